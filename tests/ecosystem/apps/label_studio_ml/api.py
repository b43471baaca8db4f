"""An ML backend with the routes, methods and bodies of Label Studio's, and its hooks that read what was sent."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request

log = logging.getLogger(__name__)


def init_app(model_class: Any) -> Flask:
    """Return the app of one model."""
    app = Flask(__name__)
    model = model_class()

    @app.before_request
    def log_request() -> None:
        log.debug("%s %s", request.headers, request.get_data())

    @app.after_request
    def log_response(response: Response) -> Response:
        log.debug("%s %s", response.headers, response.get_data())
        return response

    @app.post("/predict")
    def predict() -> Any:
        sent: Any = request.json
        return jsonify({"results": model.predict(sent["tasks"]), "model_version": model.version})

    @app.post("/setup")
    def setup() -> Any:
        return jsonify({"model_version": model.version})

    @app.post("/webhook")
    def webhook() -> Any:
        sent: Any = request.json
        return jsonify({"event": sent.pop("action"), "project": sent["project"]["id"]}), 201

    @app.post("/train")
    def train() -> Any:
        return jsonify({"job": "1"}), 201

    @app.get("/health")
    @app.get("/")
    def health() -> Any:
        return jsonify({"status": "UP", "model_class": model_class.__name__})

    @app.get("/metrics")
    def metrics() -> Any:
        return jsonify({})

    return app
