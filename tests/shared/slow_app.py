"""A public app with a view that takes as long as the request specifies, and one with a large response."""

from __future__ import annotations

import os
import time

from flask import Flask, Response, request

from flask_secure_ml import SecureML, public


def create_app() -> Flask:
    """Return the app."""
    app = Flask("slow")
    app.config.from_prefixed_env()
    SecureML(app)

    @app.get("/wait/<int:milliseconds>")
    @public
    def wait(milliseconds: int) -> dict[str, int]:
        time.sleep(milliseconds / 1000)
        return {"worker": os.getpid()}

    @app.post("/length")
    @public
    def length() -> dict[str, int]:
        return {"length": len(request.get_data())}

    @app.get("/large")
    @public
    def large() -> Response:
        return Response(b"x" * 20_000_000, mimetype="application/octet-stream")

    return app
