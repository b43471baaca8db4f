"""An app that is only described: created without the secrets and files of its machine, and closed."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, SecureML, public
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.describing import described_only
from support import HTTPS, NameAuthenticator, caller

MISSING = [
    {"SECURE_ML_STORE_URI": "rediss://h/0", "SECURE_ML_STORE_PASSWORD": "env:NOT_SET"},
    {"SECURE_ML_MTLS_CLIENTS": [{"client": "a", "san_dns": "a.example"}], "SECURE_ML_MTLS_CA_FILE": "/missing.pem"},
    {"SECURE_ML_AUDIT_LOG": "/missing/audit"},
    {"SECURE_ML_API_KEYS": "/missing/keys.json", "SECURE_ML_API_KEY_PEPPER": "file:/missing"},
    {
        "SECURE_ML_TOKEN_ISSUERS": [
            {"issuer": "https://i.example", "audience": "a", "algorithms": ["ES256"], "jwks_file": "/missing.json"}
        ]
    },
    {
        "SECURE_ML_TOKEN_ISSUERS": [
            {
                "issuer": "https://i.example",
                "audience": "a",
                "algorithms": ["ES256"],
                "jwks_uri": "https://i.example/k",
                "ca_file": "/missing",
            }
        ]
    },
    {"SECURE_ML_ALERT_WEBHOOK": "https://h.example/", "SECURE_ML_ALERT_WEBHOOK_SECRET": "env:NOT_SET"},
    {"SECURE_ML_SENTRY_DSN": "env:NOT_SET"},
    {"SECURE_ML_REQUEST_LOG": "/missing/requests.log"},
    {
        "SECURE_ML_TOKEN_ISSUERS": [
            {"issuer": "https://i.example", "audience": "a", "algorithms": ["HS256"], "secret": "file:/missing"}
        ]
    },
]


def app_with(settings: dict[str, object]) -> Flask:
    app = Flask("described", static_folder=None)
    app.config.from_mapping(settings)
    return app


@pytest.mark.parametrize("settings", MISSING, ids=min)
def test_what_is_missing(settings: dict[str, object]) -> None:
    """It ends the start of an app that is served, and no command that describes one."""
    with pytest.raises(ConfigError):
        SecureML(app_with(settings))
    app = app_with(settings)
    with described_only():
        SecureML(app)
    assert facts_of(app).environment.keys() >= {
        f"FLASK_{key}" for key in settings if key not in {"SECURE_ML_STORE_URI", "SECURE_ML_ALERT_WEBHOOK"}
    }


def test_a_store_in_a_file(tmp_path: Path) -> None:
    """It is neither created nor read, even if that is impossible; its path is checked."""
    for folder in (tmp_path, tmp_path / "missing"):
        app = app_with({"SECURE_ML_STORE_URI": f"sqlite:{folder}/state.db"})
        with described_only():
            SecureML(app)
        assert facts_of(app).environment["FLASK_SECURE_ML_STORE_URI"] == f"sqlite:{folder}/state.db"
        assert list(tmp_path.iterdir()) == []
    with described_only(), pytest.raises(ConfigError, match="absolute"):
        SecureML(app_with({"SECURE_ML_STORE_URI": "sqlite:state.db"}))


def test_mistakes_are_reported() -> None:
    """A described app has the same checks of everything else."""
    with described_only(), pytest.raises(ConfigError, match="SECURE_ML_STORE_URL"):
        SecureML(app_with({"SECURE_ML_STORE_URL": "memory:"}))


@pytest.mark.parametrize("path", ["/open", "/closed", "/unknown", "/static/x"])
def test_it_serves_nothing(path: str) -> None:
    """Requests could not be audited, so public routes and valid keys are rejected too."""
    settings = {"SECURE_ML_AUDIT_LOG": "/missing/audit", "SECURE_ML_AUDIT_REQUIRED": True}
    app = app_with(settings | {"SECURE_ML_REQUEST_LOG": "off"})
    with described_only():
        SecureML(app, authenticators=[NameAuthenticator()])
    app.add_url_rule("/open", "open", public(lambda: "open"))
    app.add_url_rule("/closed", "closed", lambda: "closed")
    for headers in ({}, caller()):
        response = app.test_client().get(path, base_url=HTTPS, headers=headers)
        assert (response.status_code, response.headers["X-Error-Code"]) == (503, "dependency_unavailable")
