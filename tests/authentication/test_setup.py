"""Which parts an app imports: those that its settings turn on."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The description of the API imports authenticators by itself, and is left out.
CODE = """
import sys
for name in ("openapi", "openapi.document", "openapi.security"):
    sys.modules.setdefault(f"flask_secure_ml.{name}", type(sys)(name))
sys.modules["flask_secure_ml.openapi"].add_openapi = None
from flask_secure_ml.authentication.setup import build_authentication
from flask_secure_ml.config import Settings
from flask_secure_ml.limits.engine import build_limiter
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
settings = Settings.load(SETTINGS)
build_authentication(settings, SystemClock(), open_store(settings.store_uri, None, SystemClock()), (), None)
build_limiter({}, SystemClock(), "memory")
print(*(name.removeprefix("flask_secure_ml.") for name in sys.modules))
"""
ISSUER = {"issuer": "https://i.example", "audience": "a"}
SIGNED = {**ISSUER, "algorithms": ["ES256"], "jwks_uri": "https://i.example/jwks"}
OPAQUE = {
    **ISSUER,
    "introspection_uri": "https://i.example/x",
    "client_id": "c",
    "client_secret": "sixteen characters",
}
FINGERPRINT = {"client": "c", "scopes": [], "sha256": "0" * 64}
PARTS = {
    "tokens": "authentication.tokens.authenticator",
    "joserfc": "joserfc",
    "jwt": "authentication.tokens.jwt",
    "introspection": "authentication.tokens.introspection",
    "authlib": "authlib",
    "dpop": "authentication.tokens.dpop",
    "mtls": "authentication.mtls",
    "sqlite": "stores.sqlite",
    "redis": "stores.redis",
    "flask-limiter": "flask_limiter",
    "hvac": "hvac",
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, set(), id="nothing"),
        pytest.param({"API_KEYS": "/x", "API_KEY_PEPPER": "env:PEPPER"}, set(), id="API keys"),
        pytest.param({"TOKEN_ISSUERS": [SIGNED]}, {"tokens", "joserfc", "jwt"}, id="JWT"),
        pytest.param({"TOKEN_ISSUERS": [OPAQUE]}, {"tokens", "introspection", "authlib"}, id="introspection"),
        pytest.param(
            {"TOKEN_ISSUERS": [SIGNED], "DPOP": "accept", "RESOURCE_URI": "https://a.example"},
            {"tokens", "joserfc", "jwt", "dpop"},
            id="DPoP",
        ),
        pytest.param({"MTLS_CLIENTS": [FINGERPRINT]}, {"mtls"}, id="mTLS"),
    ],
)
def test_parts_that_are_off_are_not_imported(
    settings: dict[str, object], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app pays at start for what it uses."""
    monkeypatch.setenv("PEPPER", "9c1f5ae07b42d86e3f9d0b7c5a1846e2f3d97b60c8a5e412")
    given = {f"SECURE_ML_{name}": value for name, value in settings.items()} | {"TESTING": True}
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("SETTINGS", repr(given))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {part for part, module in PARTS.items() if module in done.stdout.split()} == expected
