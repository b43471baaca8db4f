"""The served app with two pages that post a form to their own origin, with each preset of headers."""

from __future__ import annotations

from flask import Flask, Response, request

import served_app
from flask_secure_ml import public

FORM = """<script src="/script.js"></script><script>document.title = "inline"</script>
<form method="post" action="/posted"><button>Send</button></form>"""


def create_app() -> Flask:
    """Return the protected app."""
    app = served_app.create_app()
    app.add_url_rule("/page", "page", public(headers="page")(lambda: FORM))
    app.add_url_rule("/bare", "bare", public(headers="api")(lambda: FORM))

    @app.get("/script.js")
    @public
    def script() -> Response:
        return Response("document.documentElement.lang = 'la';", mimetype="text/javascript")

    @app.post("/posted")
    @public
    def posted() -> str:
        return f"Referer: {request.headers.get('Referer')}"

    return app
