"""No secret leaves its place: canaries are planted everywhere, and everything the app wrote is searched for them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from marshmallow import Schema, fields, validate

from flask_secure_ml import ConfigError, SecureML, protect
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.observe.audit.reading import records_of
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


class Named(Schema):
    """A name and a number."""

    name = fields.String(validate=validate.Length(max=40))
    age = fields.Integer()


class Body(Schema):
    """One number."""

    number = fields.Float(required=True)


class Place:
    """An app with canaries, and everything that it wrote."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder = folder
        self.clock = clock
        self.sink = MemorySink()
        self.responses: list[str] = []
        make_keys(folder / "audit", folder / "verification.key", "canaries")
        self.app = self._make()
        self.state = self.app.extensions["secure_ml"]

    def _make(self) -> Flask:
        app = Flask("canaries")
        app.config.update({f"SECURE_ML_{name}": value for name, value in SETTINGS.items()})
        app.config["SECURE_ML_API_KEYS"] = str(self.folder / "keys.json")
        app.config["SECURE_ML_STORE_URI"] = f"sqlite:{self.folder / 'state.db'}"
        app.config["SECURE_ML_AUDIT_LOG"] = str(self.folder / "audit")
        SecureML(app, clock=self.clock, sink=self.sink)

        body = protect(body=Body)(lambda payload: "ok")
        app.add_url_rule("/number", "number", body, methods=["POST"])

        @app.get("/crash")
        @protect
        def crash() -> str:
            raise RuntimeError("a fault in the view")

        @app.post("/predict")
        @protect(body=Named)
        def predict(payload: dict[str, Any]) -> str:
            raise ValueError(f"cannot predict {payload} with {request.headers}")

        @app.post("/upload/<name>")
        @protect
        def upload(name: str) -> str:
            raise ValueError(f"cannot read {list(request.files.values())}")

        return app

    def send(self, headers: dict[str, str], url: str = "/crash", body: Any = None) -> int:
        method = "GET" if body is None else "POST"
        response = self.app.test_client().open(url, method=method, base_url=HTTPS, headers=headers, json=body)
        self.responses.append(f"{response.status}\n{response.headers}\n{response.text}")
        return response.status_code

    def audit(self) -> str:
        """Return every audit record."""
        return "\n".join(map(json.dumps, records_of(self.folder / "audit")))

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
    # The log says where a body is wrong: in a member whose name is a credential, which the response names too.
    wrong_bodies = [{"number": CANARIES["HMAC"], key: wrong}, {"number": token}]
    assert [place.send({"X-API-Key": key}, "/number", body) for body in wrong_bodies] == [422, 422]
    place.responses.clear()
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
    assert sum("pointers" in record for record in place.sink.records) == 2
    everything = place.written() + caplog.text
    assert len(everything) > 5_000, "nothing was collected, so nothing was searched"
    for secret in (*CANARIES.values(), key[17:], wrong[17:], token.rpartition(".")[2], opaque):
        assert secret not in everything
        assert secret[:16] not in everything


PLANTED = "c4n4ry-planted"


def test_audit_records_hold_nothing_of_a_request(place: Place) -> None:
    """No payload, token, key, header, file name, query, path or text of an exception, whatever the outcome."""
    key = make_api_key(place.app, scopes=())
    client = place.app.test_client()
    valid = {"X-API-Key": key}
    planted: dict[str, str] = {
        "User-Agent": PLANTED,
        "Referer": f"https://{PLANTED}/",
        "X-Request-ID": PLANTED,
        "X-Forwarded-For": PLANTED,
        "Cookie": f"session={PLANTED}",
        "Host": f"{PLANTED}.example",
        "Accept": f"application/{PLANTED}",
        "Origin": f"https://{PLANTED}.example",
    }
    credentials: list[dict[str, str]] = [
        {"X-API-Key": f"{key[:-20]}{PLANTED}"},
        {"X-API-Key": PLANTED},
        {"Authorization": f"Bearer {PLANTED}"},
        {"Authorization": f"Basic {PLANTED}"},
        {"Authorization": f"DPoP {PLANTED}", "DPoP": PLANTED},
        valid,
    ]
    bodies: list[dict[str, Any]] = [
        {"json": {"name": PLANTED}},
        {"json": {"name": PLANTED * 9, "age": PLANTED}},
        {"json": {PLANTED: 1}},
        {"data": f'{{"name": "{PLANTED}"', "content_type": "application/json"},
        {"data": PLANTED, "content_type": f"text/{PLANTED}"},
    ]
    statuses = set()
    for headers in credentials:
        for body in bodies:
            sent = client.post(f"/predict?q={PLANTED}", base_url=HTTPS, headers=planted | headers, **body)
            statuses.add(sent.status_code)
        file = {"data": {PLANTED: (io.BytesIO(PLANTED.encode()), f"{PLANTED}.npy")}}
        statuses.add(client.post(f"/upload/{PLANTED}", base_url=HTTPS, headers=planted | headers, **file).status_code)
        statuses.add(client.get(f"/{PLANTED}", base_url=HTTPS, headers=planted | headers).status_code)
    assert statuses >= {400, 401, 404, 415, 422, 500}
    records = place.audit()
    assert records.count('"action": "request"') == len(credentials) * (len(bodies) + 2)
    assert PLANTED not in records
    assert key[17:] not in records
    assert '"/name"' in records


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
