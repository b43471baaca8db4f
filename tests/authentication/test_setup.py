"""Which parts an app imports: those that its settings turn on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from flask_secure_ml import SecureML, public
from flask_secure_ml.stores.base import Changes, Cursor
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.stores.snapshot import POLLED
from flask_secure_ml.testing import FakeClock
from support import HTTPS, RANDOM_SECRET

# The description of the API imports authenticators by itself, and is left out.
CODE = """
import sys
for name in ("openapi", "openapi.document", "openapi.security"):
    sys.modules.setdefault(f"flask_secure_ml.{name}", type(sys)(name))
sys.modules["flask_secure_ml.openapi"].add_openapi = None
from flask_secure_ml.authentication.setup import build_authentication
from flask_secure_ml.config import Settings
from flask_secure_ml.limits.setup import build_limiter
from flask_secure_ml.config import Settings
from flask_secure_ml.limits.failure_throttle import FailureThrottle
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
settings, clock = Settings.load(SETTINGS), SystemClock()
store = open_store(settings.store_uri, None, clock)
throttle = FailureThrottle(build_limiter({}, Settings.load({}), clock), (), (), clock, store)
build_authentication(settings, clock, store, (), throttle)
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
    """An app loads only the parts that it uses."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    given = {f"SECURE_ML_{name}": value for name, value in settings.items()} | {"TESTING": True}
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("SETTINGS", repr(given))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {part for part, module in PARTS.items() if module in done.stdout.split()} == expected


class Counted(MemoryStore):
    """A store that counts reads, and that other processes share."""

    shared = True

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.reads: list[str] = []

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        self.reads.append(space)
        return super().changes(space, cursor, timeout=timeout)


def test_keys_and_revocations_are_read_for_any_request(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for one to a public route, and with load() before the first; not for each of them."""
    store = Counted(clock)
    monkeypatch.setattr("flask_secure_ml.wiring.build.open_store", lambda *_: store)
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = Flask("model_app")
    app.config |= {
        "SECURE_ML_STORE_URI": "sqlite:/x",
        "SECURE_ML_API_KEYS": "store",
        "SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
    }
    SecureML(app, clock=clock)
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    assert store.reads == []
    SecureML.load(app)
    assert store.reads == ["revocations", "keys"]
    client = app.test_client()
    for _ in range(5):
        assert client.get("/open", base_url=HTTPS).status_code == 200
    assert len(store.reads) == 2
    clock.advance(POLLED)
    client.get("/open", base_url=HTTPS)
    assert len(store.reads) == 4


def test_a_key_file_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that starts logs it, instead of the first request with a key."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = Flask("model_app")
    path = tmp_path / "mistyped.json"
    app.config |= {"SECURE_ML_API_KEYS": str(path), "SECURE_ML_API_KEY_PEPPER": "env:PEPPER"}
    SecureML(app)
    assert caplog.messages == []
    SecureML.load(app)
    (message,) = caplog.messages
    assert message.startswith(f"the API key file {path} cannot be used: the API key file does not exist")
