"""The app whose deployment is generated: client certificates, two issuers, CORS, and a route of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request
from marshmallow import Schema

from flask_secure_ml import SecureML, current_principal, protect, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.describing import described_only
from flask_secure_ml.inputs import Tensor

SETTINGS: dict[str, Any] = {
    "SECURE_ML_TRUSTED_PROXIES": ["127.0.0.0/8", "unix"],
    "SECURE_ML_CLIENT_CERTIFICATE_HEADER": "X-SSL-Client-Cert",
    "SECURE_ML_MTLS_CLIENTS": [{"client": "trainer", "san_dns": "trainer.example.com", "scopes": ["predict"]}],
    "SECURE_ML_MTLS_CA_FILE": "/etc/own-model/clients.pem",
    "SECURE_ML_TOKEN_ISSUERS": [
        {
            "issuer": "https://id.example.com/realms/ml",
            "audience": "own-model",
            "jwks_uri": "https://id.example.com/realms/ml/keys",
            "algorithms": ["ES256"],
        },
        {
            "issuer": "https://login.example.org",
            "audience": ["own-model", "https://own.example.com"],
            "introspection_uri": "https://login.example.org:8443/introspect",
            "client_id": "own-model",
            "client_secret": "env:INTROSPECTION_SECRET",
        },
    ],
    "SECURE_ML_CORS": {"origins": ["https://app.example.com"]},
    "SECURE_ML_STORE_URI": "rediss://valkey.example.com:6380/0",
    "SECURE_ML_STORE_PASSWORD": "file:/run/secrets/store",
    "SECURE_ML_PROBES": {},
    "SECURE_ML_METRICS": "/metrics",
    "SECURE_ML_DEPLOY": {
        "app": "deployed_app:create_app()",
        "name": "own-model",
        "hosts": ["own.example.com", "own.example.org"],
        "upstreams": ["127.0.0.1:8001", "127.0.0.1:8002"],
        "client_certificates": "optional",
        "client_ca": "/etc/own-model/clients.pem",
        "streams": ["/v1/stream"],
    },
}


class OwnRequest(Schema):
    """Up to 100 rows of 4 numbers."""

    instances = Tensor(shape=(None, 4), dtype="float32", max_items=100)


def create_app(**settings: Any) -> Flask:
    """Return the app without its secrets; ``FLASK_SECURE_ML_*`` and ``settings`` override the settings above."""
    with described_only():
        return serve_app(**settings)


def serve_app(**settings: Any) -> Flask:
    """Return the app with its secrets."""
    app = Flask("deployed_app", static_folder=None)
    app.config.from_mapping(SETTINGS)
    app.config.from_prefixed_env()
    app.config.from_mapping(settings)
    SecureML(app)
    _add_routes(app)
    return app


def own_facts(**options: Any) -> Facts:
    """Return the facts of the app; ``options`` override those of ``SECURE_ML_DEPLOY``."""
    return facts_of(create_app(SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | options))


def _add_routes(app: Flask) -> None:
    @app.post("/v1/predict")
    @protect(scopes=["predict"], body=OwnRequest)
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"sums": payload["instances"].sum(axis=1)}

    @app.put("/v1/models/<name>")
    @protect(scopes=["train"], caps={"max_body_bytes": 16_777_216})
    def upload(name: str) -> dict[str, Any]:
        return {"name": name, "bytes": len(request.get_data())}

    @app.get("/v1/jobs/<int:job>/files/<path:file>")
    def file(job: int, file: str) -> dict[str, Any]:
        return {"job": job, "file": file}

    @app.get("/v1/whoami")
    def whoami() -> dict[str, Any]:
        return {"id": current_principal.id, "address": request.remote_addr, "host": request.host}

    @app.get("/v1/stream")
    def stream() -> Response:
        def lines() -> Iterator[str]:
            yield from (f"{number}\n" for number in range(3))

        return Response(lines(), mimetype="text/plain")

    @app.get("/v1/classes")
    @public(headers={"values": {"Cache-Control": "public, max-age=5"}})
    def classes() -> dict[str, Any]:
        return {"classes": ["cat", "dog"]}

    @app.get("/v1/notes/")
    @public(caps={"max_body_bytes": 1024})
    def notes() -> dict[str, Any]:
        return {"notes": []}


METRICS_PORT = {
    "SECURE_ML_METRICS": None,
    "SECURE_ML_METRICS_LISTEN": "0.0.0.0:9100",
    "SECURE_ML_METRICS_TOKEN": "env:METRICS_TOKEN",
}


def port_facts() -> Facts:
    """Return the facts of the app with a separate port for metrics."""
    return facts_of(create_app(**METRICS_PORT))
