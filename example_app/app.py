"""The example app: a model with three endpoints, each with a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask
from marshmallow import Schema

from flask_secure_ml import SecureML, current_exchange, protect, public
from flask_secure_ml.inputs import Tensor

from .model import PIXELS, DigitsModel, load, trained_digest

secure_ml = SecureML()


class PredictRequest(Schema):
    """Images of digits, one row of 64 pixels for each."""

    instances = Tensor(shape=(None, PIXELS), dtype="float32", minimum=0, maximum=16, max_items=4096)


class PredictResponse(Schema):
    """The digit of each image, and the probability of each of the ten digits."""

    predictions = Tensor(shape=(None,), dtype="int64")
    probabilities = Tensor(shape=(None, None), dtype="float64")


def create_app() -> Flask:
    """Return the app, configured from ``FLASK_*``: ``FLASK_MODEL_FILE`` and ``FLASK_SECURE_ML_*``.

    :raises ModelError: the model is missing, or has changed since it was trained.
    :raises ConfigError: a setting of flask-secure-ml is invalid.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MODEL_FILE"] = "model.npz"
    app.config["SECURE_ML_WIRE_FORMATS"] = ["json", "oip", "npy", "csv"]
    app.config.from_prefixed_env()
    secure_ml.init_app(app)
    path = Path(str(app.config["MODEL_FILE"]))
    digest = trained_digest(path)
    _add_routes(app, load(path, digest), digest)
    return app


def _add_routes(app: Flask, model: DigitsModel, digest: str) -> None:
    @app.post("/v1/predict")
    @protect(
        scopes=["predict"],
        body=PredictRequest,
        response=PredictResponse,
        scores={"round": 4},
        limits=["600/minute"],
        cost="instances",
    )
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        """Recognize the digits in images.

        An image is 8 rows of 8 pixels, one row after the other.
        """
        digits, probabilities = model.predict(payload["instances"])
        current_exchange.used_model("digits", digest[:12])
        return {"predictions": digits, "probabilities": probabilities}

    @app.get("/v1/model")
    @protect(scores=False)
    def describe() -> dict[str, Any]:
        """Return the digest and the accuracy of the model."""
        return {
            "name": "digits",
            "sha256": digest,
            "classes": model.classes,
            "accuracy": float(model.accuracy),
            "input": {"name": "instances", "shape": [None, PIXELS], "minimum": 0, "maximum": 16},
        }

    @app.get("/healthz")
    @public
    def healthz() -> dict[str, str]:
        """Report that the server is running."""
        return {"status": "ok"}
