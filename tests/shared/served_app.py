"""The app that the tests serve with gunicorn: one model route, settings from the environment."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from flask import Flask, Response, request
from marshmallow import Schema

from flask_secure_ml import SecureML, current_principal, protect, public
from flask_secure_ml.inputs import Tensor


class PredictRequest(Schema):
    """Up to 100 rows of 4 numbers."""

    instances = Tensor(shape=(None, 4), dtype="float32", minimum=-10, maximum=10, max_items=100)


def create_app() -> Flask:
    """Return the protected app."""
    app = Flask("served")
    app.config.from_prefixed_env()
    if listen := os.environ.get("LISTEN_IN_CODE"):
        app.config["SECURE_ML_METRICS_LISTEN"] = None if listen == "off" else listen
    SecureML(app)

    @app.post("/predict")
    @protect(scopes=["predict"], body=PredictRequest)
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"sums": payload["instances"].sum(axis=1)}

    @app.post("/legacy")
    def legacy() -> dict[str, Any]:
        return {"length": len(request.get_data()), "json": request.get_json(silent=True)}

    @app.get("/whoami")
    def whoami() -> dict[str, Any]:
        return {"id": current_principal.id, "scopes": sorted(current_principal.scopes)}

    @app.get("/stream")
    def stream() -> Response:
        return Response(f"{number}\n" for number in range(3))

    @app.get("/crash")
    def crash() -> str:
        raise ValueError("secret detail of the model")

    @app.get("/healthz")
    @public
    def healthz() -> dict[str, Any]:
        return {"time": time.time(), "worker": os.getpid()}

    return app


def create_app_on_a_full_disk() -> Flask:
    """Return the app in a process that cannot write to files until its limit is raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    return create_app()
