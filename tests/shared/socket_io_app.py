"""The app with Flask-SocketIO that tests serve with gunicorn; its handler writes each event to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO

from flask_secure_ml import SecureML, current_principal, public
from support import NameAuthenticator


def create_app() -> Flask:
    """Return the protected app; Flask-SocketIO is set up before it is protected."""
    events = Path(os.environ["EVENTS"])
    app = Flask("socket_io")
    server = SocketIO(app, async_mode=os.environ["ASYNC_MODE"])
    app.config.from_prefixed_env()

    def predict(data: Any) -> int:
        with events.open("a") as lines:
            lines.write(f"{current_principal.subject} {data}\n")
        return int(data) + 1

    server.on_event("predict", predict)
    SecureML(app, authenticators=[NameAuthenticator()])

    @app.get("/<path:path>")
    @public
    def page(path: str) -> dict[str, Any]:
        return {"path": path, "websocket": "wsgi.websocket" in request.environ}

    return app
