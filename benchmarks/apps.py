"""The same model in three apps: bare, behind flask-secure-ml, and behind a hand-assembled stack."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from flask import Flask, Response, g, jsonify, request
from flask_limiter import Limiter
from flask_talisman import Talisman
from joserfc.jwk import Key, KeySet
from marshmallow import Schema, ValidationError, fields, validate

from flask_secure_ml import SecureML, protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.testing import make_api_key, make_key_set, make_signing_key, make_token

ISSUER = "https://as.example"
AUDIENCE = "https://api.example"
LIMITS = ("1000000/minute", "50000000/hour")
FOUR_LIMITS = {"default": {"requests": [*LIMITS], "quotas": ["1000000000/day"], "in_flight": 8}}


@dataclass(frozen=True)
class Contender:
    """An app and the credentials that its caller sends."""

    name: str
    app: Flask
    headers: dict[str, str] = field(default_factory=dict)


def predict(instances: Any) -> np.ndarray[Any, Any]:
    """Stand in for the model: the cheapest computation that reads every number."""
    # A typed variable, because numpy 2.4, the last release for Python 3.11, annotates this sum as Any.
    sums: np.ndarray[Any, Any] = np.asarray(instances, dtype=np.float32).sum(axis=1)
    return sums


def bare() -> Contender:
    """Return the app without any protection."""
    app = Flask("bare")

    @app.post("/predict")
    def view() -> Response:
        return jsonify(sums=predict(request.get_json()["instances"]).tolist())

    return Contender("bare app", app)


def secured(columns: int, folder: Path, *, cost: str | None = None, **settings: Any) -> Flask:
    """Return the app with this extension: TLS, credential, scope, limits, schema, headers, log.

    :param folder: the directory with ``jwks.json``, the keys for verifying tokens.
    :param cost: the field whose rows count toward a quota; None for no quota.
    """
    app = Flask("secured")
    os.environ["BENCHMARK_PEPPER"] = "benchmark-pepper-of-forty-characters-long"
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"], "jwks_file": str(folder / "jwks.json")}
    app.config.update(
        SECURE_ML_API_KEYS=str(folder / "keys.json"),
        SECURE_ML_API_KEY_PEPPER="env:BENCHMARK_PEPPER",
        SECURE_ML_TOKEN_ISSUERS=[issuer],
        SECURE_ML_PLANS={"default": {"requests": [*LIMITS]}},
        SECURE_ML_MAX_BODY_BYTES=100_000_000,
        SECURE_ML_REQUEST_LOG=os.devnull,
    )
    app.config.update(settings)
    SecureML(app)

    class Body(Schema):
        instances = Tensor(shape=(None, columns), dtype="float32", minimum=-1e6, maximum=1e6)

    @app.post("/predict")
    @protect(scopes=["predict"], body=Body, cost=cost)
    def view(payload: dict[str, Any]) -> dict[str, Any]:
        return {"sums": predict(payload["instances"])}

    return app


def everything(folder: Path) -> dict[str, Any]:
    """Return the settings that enable all observability features; the keys of the audit log are created once."""
    audit = folder / "audit"
    if not audit.exists():
        make_keys(audit, folder / "verification.key", "benchmarks/everything")
    os.environ["BENCHMARK_ALERTS"] = "benchmark-alerts-of-forty-characters-long"
    return {
        "SECURE_ML_REQUEST_LOG": str(folder / "requests.log"),
        "SECURE_ML_METRICS": "/metrics",
        "SECURE_ML_ANOMALIES": {},
        "SECURE_ML_AUDIT_LOG": str(audit),
        # No alert is posted, because no event occurs that causes one.
        "SECURE_ML_ALERT_WEBHOOK": "http://127.0.0.1:9/",
        "SECURE_ML_ALERT_WEBHOOK_SECRET": "env:BENCHMARK_ALERTS",
    }


def api_key(app: Flask) -> dict[str, str]:
    """Return the header with a key of a secured app."""
    return {"X-API-Key": make_api_key(app)}


def by_hand(columns: int, key: Key) -> Contender:
    """Return the same app built from common packages, each used as its documentation shows."""
    app = Flask("by_hand")
    app.config["RATELIMIT_STORAGE_URI"] = "memory://"
    app.before_request(_start)
    Talisman(app)
    Limiter(lambda: request.headers.get("Authorization", "none"), app=app, default_limits=[*LIMITS])
    require = ResourceProtector()
    require.register_token_validator(_Validator(KeySet.import_key_set(json.loads(make_key_set(key)))))
    app.after_request(_access_log)

    class Body(Schema):
        instances = fields.List(
            fields.List(fields.Float(validate=validate.Range(-1e6, 1e6)), validate=validate.Length(equal=columns)),
            required=True,
        )

    @app.post("/predict")
    @require("predict")  # type: ignore[untyped-decorator]
    def view() -> Response | tuple[Response, int]:
        try:
            payload = Body().load(request.get_json())
        except ValidationError as error:
            return jsonify(error.messages), 422
        return jsonify(sums=predict(payload["instances"]).tolist())

    return Contender("by hand, JWT", app, bearer(access_token(key)))


def access_token(key: Key, **options: Any) -> str:
    """Return a token that is valid for the whole benchmark.

    :param options: options of :func:`~flask_secure_ml.testing.make_token`, instead of those of a valid token.
    """
    given: dict[str, Any] = {"issuer": ISSUER, "now": int(time.time()) - 1} | options
    return make_token(key, audience=AUDIENCE, lifetime=3600, **given)


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {token}"}


def contenders(columns: int, folder: Path) -> list[Contender]:
    """Return all four contenders for inputs with this number of columns."""
    key = signing_key(folder)
    app, other = secured(columns, folder), secured(columns, folder)
    return [
        bare(),
        Contender("flask-secure-ml, API key", app, api_key(app)),
        Contender("flask-secure-ml, JWT", other, bearer(access_token(key))),
        by_hand(columns, key),
    ]


def signing_key(folder: Path) -> Key:
    """Return a new key for signing tokens, and write its public part to ``jwks.json``."""
    key = make_signing_key("RS256", "benchmark")
    (folder / "jwks.json").write_text(make_key_set(key))
    return key


class _Validator(JWTBearerTokenValidator):  # type: ignore[misc]
    """Authlib's validator with keys that are imported once; its documentation leaves this to the user."""

    def __init__(self, keys: KeySet) -> None:
        super().__init__(issuer=ISSUER, resource_server=AUDIENCE)
        self._keys = keys

    def get_jwks(self) -> KeySet:
        return self._keys


_log = logging.Logger("by_hand")  # noqa: LOG001  a private logger, so that no configuration affects it
_log.addHandler(logging.FileHandler(os.devnull))


def _start() -> None:
    g.started = time.perf_counter()


def _access_log(response: Response) -> Response:
    line = {
        "time": time.time(),
        "client": request.remote_addr,
        "method": request.method,
        "endpoint": request.endpoint,
        "status": response.status_code,
        "ms": (time.perf_counter() - g.started) * 1000,
    }
    _log.info(json.dumps(line))
    return response
