"""No secret leaves its place: canaries are planted everywhere, and everything the app wrote is searched for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, SecureML, protect
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key, make_signing_key, make_token
from support import HTTPS

ISSUER, AUDIENCE = "https://as.example", "https://api.example"
CANARIES = {
    "PEPPER": "c4n4ry-pepper-71f0b92e6ad84c53a7e1d6f8",
    "OLD_PEPPER": "c4n4ry-older-pepper-1b9f63c07e2a58d4",
    "HMAC": "c4n4ry-hmac-5e80a2c96d1f47b3098aefd1",
    "NONCES": "c4n4ry-nonces-9d2c7b14fa60e835d7c1b0",
    "CLIENT": "c4n4ry-client-0a8f3e57c2b9d164",
    "STORE": "c4n4ry-store-3f6b8d0e72a9c415",
}
SETTINGS: dict[str, Any] = {
    "API_KEY_PEPPER": ["env:CANARY_PEPPER", "env:CANARY_OLD_PEPPER"],
    "DPOP": "accept",
    "RESOURCE_URI": "https://models.example.com",
    "DPOP_NONCE_SECRET": "env:CANARY_NONCES",
    "STORE_PASSWORD": "env:CANARY_STORE",
    "TOKEN_ISSUERS": [
        {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["HS256"], "secret": "env:CANARY_HMAC"},
        {
            "issuer": "https://opaque.example",
            "audience": AUDIENCE,
            "introspection_uri": "https://127.0.0.1:9/introspect",
            "private_network": True,
            "client_id": "api",
            "client_secret": "env:CANARY_CLIENT",
        },
    ],
}


class Place:
    """An app with canaries, and everything that it wrote."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder = folder
        self.clock = clock
        self.sink = MemorySink()
        self.responses: list[str] = []
        self.app = self._make()
        self.state = self.app.extensions["secure_ml"]

    def _make(self) -> Flask:
        app = Flask("canaries")
        app.config.update({f"SECURE_ML_{name}": value for name, value in SETTINGS.items()})
        app.config["SECURE_ML_API_KEYS"] = str(self.folder / "keys.json")
        app.config["SECURE_ML_STORE_URI"] = f"sqlite:{self.folder / 'state.db'}"
        SecureML(app, clock=self.clock, sink=self.sink)

        @app.get("/crash")
        @protect
        def crash() -> str:
            raise RuntimeError("a fault in the view")

        return app

    def send(self, headers: dict[str, str], url: str = "/crash") -> int:
        response = self.app.test_client().get(url, base_url=HTTPS, headers=headers)
        self.responses.append(f"{response.status}\n{response.headers}\n{response.text}")
        return response.status_code

    def command(self, *words: str) -> str:
        done = self.app.test_cli_runner().invoke(secure_ml, list(words))
        self.responses.append(done.output + repr(done.exception))
        return done.output

    def written(self) -> str:
        """Return everything that was responded to, logged, stored or can be printed."""
        files = [path.read_bytes().decode("utf-8", "replace") for path in self.folder.rglob("*") if path.is_file()]
        return "\n".join([*self.responses, *self.sink.lines, *files, *map(str, texts_of(self.state, 0))])


def texts_of(value: Any, depth: int) -> Iterator[str]:
    """Yield how an object of this package prints, and its parts of this package."""
    if depth < 8 and type(value).__module__.startswith("flask_secure_ml"):
        yield repr(value)
        names = {*getattr(value, "__dict__", {}), *getattr(value, "__slots__", ())}
        for name in names:
            part = getattr(value, name, None)
            for each in part if isinstance(part, (tuple, list)) else [part]:
                yield from texts_of(each, depth + 1)


@pytest.fixture
def place(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in CANARIES.items():
        monkeypatch.setenv(f"CANARY_{name}", value)
    return Place(tmp_path, clock)


def test_nothing_that_is_written_holds_a_secret(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """After good, bad and crashing requests of every kind: responses, logs, files, commands and reprs are clean."""
    caplog.set_level(logging.DEBUG)
    key = make_api_key(place.app, scopes=())
    signer = make_signing_key("RS256")
    token = make_token(signer, issuer=ISSUER, audience=AUDIENCE, now=place.clock.now())
    opaque = "c4n4ry-opaque-token-88d1c0"
    wrong = key[:-20] + "0" * 20
    statuses = [
        place.send({"X-API-Key": key}),
        place.send({"Authorization": f"ApiKey {key}"}, "/nowhere"),
        place.send({"X-API-Key": wrong}),
        place.send({"X-API-Key": key, "Authorization": f"Bearer {token}"}),
        place.send({"Authorization": f"Bearer {token}"}),
        place.send({"Authorization": f"Bearer {opaque}"}),
        place.send({"Authorization": f"DPoP {token}", "DPoP": token}),
        place.send({"Authorization": f"Bearer {token} {token}"}),
        place.send({}, f"/crash?access_token={token}&api_key={key}"),
        place.send({}, f"/{key}"),
        place.send({"X-API-Key": key, "X-Request-ID": key, "User-Agent": key, "Referer": f"https://x/?{key}"}),
    ]
    assert statuses == [500, 404, 401, 400, 401, 503, 401, 400, 401, 401, 500]
    for words in (["check"], ["routes"], ["keys", "list"], ["keys", "show", key[4:16]], ["keys", "revoke", key[4:16]]):
        assert "Usage" not in place.command(*words)
    everything = place.written() + caplog.text
    assert len(everything) > 5_000, "nothing was collected, so nothing was searched"
    for secret in (*CANARIES.values(), key[17:], wrong[17:], token.rpartition(".")[2], opaque):
        assert secret not in everything
        assert secret[:16] not in everything


def test_a_failed_start_repeats_no_secret(place: Place) -> None:
    """Neither does the error that lists what is wrong."""
    app = Flask("broken")
    app.config.update({f"SECURE_ML_{name}": value for name, value in SETTINGS.items()})
    app.config["SECURE_ML_API_KEY_PEPPER"] = [CANARIES["PEPPER"], 5]
    app.config["SECURE_ML_DPOP_NONCE_SECRET"] = CANARIES["NONCES"]
    app.config["SECURE_ML_STORE_URI"] = f"mongodb://user:{CANARIES['STORE']}@host/"
    with pytest.raises(ConfigError) as caught:
        SecureML(app)
    assert len(caught.value.problems) == 3
    assert not any(secret in str(caught.value) for secret in CANARIES.values())
