"""The served app with a login without a password, and forms with each preset of headers."""

from __future__ import annotations

from flask import Flask, session

import served_app
from flask_secure_ml import current_principal, public

FORM = '<!doctype html><form method="post" action="/act"><button>Send</button></form>'


def create_app() -> Flask:
    """Return the protected app."""
    app = served_app.create_app()
    app.add_url_rule("/page", "page", public(headers="page")(lambda: FORM))
    app.add_url_rule("/bare", "bare", public(headers="api")(lambda: FORM))

    @app.get("/enter")
    @public
    def enter() -> str:
        session["user_id"] = 7
        return "in"

    @app.route("/act", methods=["GET", "POST"])
    def act() -> str:
        session["acted"] = session.get("acted", 0) + 1
        return f"{current_principal.id} acted {session['acted']}"

    return app
