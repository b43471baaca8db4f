"""An ML backend with the routes, methods and bodies of Label Studio's, and hooks that read the request."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request

log = logging.getLogger(__name__)
EVENTS = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING"}


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
        return jsonify({"results": model.predict(sent["tasks"])})

    @app.post("/setup")
    def setup() -> Any:
        return jsonify({"model_version": model.version})

    @app.post("/webhook")
    def webhook() -> Any:
        sent: Any = request.json
        event = sent.pop("action")
        if event not in EVENTS:
            return jsonify({"status": "Unknown event"})
        return jsonify({"result": {"trained": event}, "status": "ok"}), 201

    @app.get("/health")
    @app.get("/")
    def health() -> Any:
        return jsonify({"status": "UP", "model_class": model_class.__name__})

    @app.get("/metrics")
    def metrics() -> Any:
        return jsonify({})

    return app
