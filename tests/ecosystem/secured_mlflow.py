"""The tracking server of MLflow, protected as docs/howto/working_with.rst shows it."""

from __future__ import annotations

from typing import Any

from mlflow.server import app

from flask_secure_ml import SecureML

READ: dict[str, Any] = {"scopes": ["read"]}
WRITE: dict[str, Any] = {"scopes": ["write"]}

app.config["SECURE_ML_POLICIES"] = {
    "*": {"scopes": ["admin"]},
    "GET *": READ | {"headers": "page"},
    "GET /health": {"public": True},
    "/api/*": WRITE,
    "GET /api/*": READ,
    "PUT /api/2.0/mlflow-artifacts/artifacts/*": WRITE | {"caps": {"max_body_bytes": 500_000_000}},
    "/ajax-api/*": WRITE,
    "GET /ajax-api/*": READ,
    # MLflow searches and deletes with POST. An endpoint is at both URLs.
    "_search_experiments": READ,
    "_search_runs": READ,
    "_delete_experiment": {"scopes": ["admin"]},
}
app.config.from_prefixed_env()
secure_ml = SecureML(app)
secure_ml.check(app)
