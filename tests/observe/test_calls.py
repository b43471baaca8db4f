"""How many function calls a request takes with everything on; unlike its time, that is the same on every machine."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema
from werkzeug.test import EnvironBuilder

from flask_secure_ml import SecureML, protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import make_api_key
from support import HTTPS, OLDER_SECRET, RANDOM_SECRET

MOST = 1_000
PLANS = {"default": {"requests": ["1000000/minute", "50000000/hour"], "quotas": ["1000000000/day"], "in_flight": 8}}


class Body(Schema):
    """Rows of four numbers."""

    instances = Tensor(shape=(None, 4), dtype="float32")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return an app with everything on that observes it, and limits of every kind."""
    monkeypatch.setenv("A_SECRET", RANDOM_SECRET)
    monkeypatch.setenv("ANOTHER_SECRET", OLDER_SECRET)
    make_keys(tmp_path / "audit", tmp_path / "verification.key", "tests/calls")
    app = Flask("observed")
    app.config.update(
        SECURE_ML_API_KEYS=str(tmp_path / "keys.json"),
        SECURE_ML_API_KEY_PEPPER="env:A_SECRET",
        SECURE_ML_PLANS=PLANS,
        SECURE_ML_REQUEST_LOG=str(tmp_path / "request.log"),
        SECURE_ML_AUDIT_LOG=str(tmp_path / "audit"),
        SECURE_ML_METRICS="/metrics",
        SECURE_ML_ANOMALIES={},
        SECURE_ML_ALERT_WEBHOOK="http://127.0.0.1:9/",
        SECURE_ML_ALERT_WEBHOOK_SECRET="env:ANOTHER_SECRET",
    )
    SecureML(app)

    @app.post("/predict")
    @protect(scopes=["predict"], body=Body, cost="instances")
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"sums": payload["instances"].sum(axis=1)}

    return app


def test_calls_of_a_request(app: Flask, tmp_path: Path) -> None:
    """At most 1,000, those of C functions included; bare Flask takes 416 of them."""
    headers = {"X-API-Key": make_api_key(app, scopes=("predict",))}

    def environ() -> dict[str, Any]:
        builder = EnvironBuilder(
            "/predict", HTTPS, method="POST", headers=[*headers.items()], json={"instances": [[1, 2, 3, 4]]}
        )
        return builder.get_environ()

    def call(environ: dict[str, Any]) -> None:
        response = app.wsgi_app(environ, lambda status, *_: statuses.append(status) or (lambda _: None))  # type: ignore[func-returns-value]
        b"".join(response)
        response.close()  # type: ignore[attr-defined]

    statuses: list[str] = []
    counts = []
    for _ in range(10):
        given, profile = environ(), cProfile.Profile()
        profile.enable()
        call(given)
        profile.disable()
        counts.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
    assert statuses == ["200 OK"] * 10
    # The first requests make what the others use, and once in a while a file is polled.
    assert min(counts) <= MOST, counts
    # Everything was on.
    assert len((tmp_path / "request.log").read_text().splitlines()) == 10
    audit, metrics = state_of(app).audit, state_of(app).metrics
    assert audit is not None
    assert metrics is not None
    assert (
        b'secure_ml_requests_total{endpoint="predict",method="POST",status="200"} 10.0'
        in metrics.exposition.text().body
    )
    audit.close()
