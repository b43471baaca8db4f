"""The app for the checks of a running service: a public and a private route of each kind."""

from __future__ import annotations

from typing import Any

from flask import Flask
from marshmallow import Schema

from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.inputs import Tensor


class Request(Schema):
    """Rows of two numbers."""

    instances = Tensor((None, 2), max_items=100)


def create_app() -> Flask:
    """Return the protected app."""
    app = Flask("checked", static_folder=None)
    app.config.from_prefixed_env()
    SecureML(app)

    @app.post("/v1/predict")
    @protect(scopes=["predict"], body=Request, cost="instances")
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"sums": payload["instances"].sum(axis=1)}

    @app.get("/v1/model")
    @protect(scopes=["predict"])
    def model() -> dict[str, str]:
        return {"name": "sums"}

    @app.get("/v1/scarce")
    @protect(scopes=["predict"], limits=["3/hour"])
    def scarce() -> dict[str, str]:
        return {"name": "scarce"}

    @app.put("/v1/models/<int:model>/<any(weights, labels):part>")
    @protect(scopes=["train"])
    def replace(model: int, part: str) -> dict[str, str]:
        return {"replaced": f"{part} of {model}"}

    @app.get("/healthz")
    @public
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
