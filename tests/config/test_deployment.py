"""``SECURE_ML_DEPLOY``: valid values, and the message for each mistake."""

from __future__ import annotations

from typing import Any

import pytest

from flask_secure_ml import ConfigError
from flask_secure_ml.config import Settings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hosts": ["models.example.com; evil"]}, "is not a host name"),
        ({"hosts": []}, "hosts"),
        ({"upstreams": ["10.0.3.9"]}, "is not 'host:port'"),
        ({"upstreams": ["10.0.3.9:0"]}, "is not 'host:port'"),
        ({"upstreams": ["10.0.3.9:65536"]}, "is not 'host:port'"),
        ({"upstreams": ["[::g]:80"]}, "is not 'host:port'"),
        ({"upstreams": ["unix:relative"]}, "is not 'host:port'"),
        ({"certificate": "/etc/a b"}, "an absolute path"),
        ({"certificate": "relative.pem"}, "an absolute path"),
        ({"client_certificates": "required"}, "is required with client_certificates"),
        ({"upstream_certificate": "/a.pem"}, "must be set together"),
        ({"name": "Model API"}, "lower-case letters"),
        ({"app": "os; rm -rf"}, "an import name"),
        ({"port": 0}, "port"),
        ({"host": "a.example"}, "did you mean hosts"),
    ],
)
def test_mistakes(options: dict[str, Any], sentence: str) -> None:
    """Each is named; values that could end a string in a generated file are rejected."""
    with pytest.raises(ConfigError, match=sentence):
        Settings.load({"SECURE_ML_DEPLOY": options})


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": ["Models.Example.COM", "*.example.org", "localhost"]},
        {"upstreams": ["app:8000", "[::1]:8000", "unix:/run/app.sock", "10.0.3.9:443"]},
        {"app": "package.module:factory(debug=False)"},
        {"image": "registry.example.com:5000/a/b@sha256:" + "0" * 64},
        {"client_certificates": "required", "client_ca": "/etc/clients.pem"},
    ],
)
def test_accepted(options: dict[str, Any]) -> None:
    """Common values are accepted."""
    found = Settings.load({"SECURE_ML_DEPLOY": options}).deploy
    assert found is not None
    assert found.hosts
