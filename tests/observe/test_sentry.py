"""Errors in Sentry: what finds the error, and nothing of what the client sent. A transport keeps the events here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from marshmallow import Schema
from sentry_sdk.transport import Transport

from flask_secure_ml import SecureML, protect
from flask_secure_ml.exchange import exchange_or_none
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.sentry import Scrubber, add_sentry, scrub
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, NameAuthenticator, caller

DSN = "https://public@sentry.example/1"
CANARIES = ("canaryquery", "canaryheader", "canarybody", "canarylocal", "canarymessage", "canarycookie")


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep one envelope as it would be on the wire."""
        self.texts.append(envelope.serialize().decode())

    @property
    def events(self) -> list[dict[str, Any]]:
        found = [json.loads(line) for text in self.texts for line in text.splitlines() if line.startswith("{")]
        return [each for each in found if "exception" in each or "logentry" in each]


@pytest.fixture
def kept() -> Iterator[Kept]:
    yield Kept()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def failing_app() -> Flask:
    app = Flask("failing")
    app.config |= {"SECURE_ML_PLANS": {"default": {"requests": ["3/minute"]}}}
    SecureML(app, authenticators=[NameAuthenticator()], clock=FakeClock(), sink=MemorySink())

    @app.post("/predict")
    @protect(body=Rows)
    def predict(payload: Any) -> str:
        # Backwards, because Sentry gets lines of source.
        model_input = ["lacolyranac"[::-1], payload]
        raise ValueError("egassemyranac"[::-1], len(model_input))

    return app


def send(app: Flask) -> Any:
    client = app.test_client()
    client.set_cookie("session", "canarycookie")
    return client.post(
        "/predict?q=canaryquery",
        base_url=HTTPS,
        headers=caller() | {"X-Note": "canaryheader"},
        json={"instances": [[1, 2]]},
    )


def test_an_error_without_what_was_sent(kept: Kept) -> None:
    """Type, stack, endpoint, URL and request id; no payload, query, header, cookie, variable or message."""
    add_sentry(DSN, exchange_or_none, transport=kept)
    response = send(failing_app())
    assert response.status_code == 500
    (event,) = [each for each in kept.events if "exception" in each]
    (error,) = event["exception"]["values"]
    assert error["type"] == "ValueError"
    assert any(frame["function"] == "predict" for frame in error["stacktrace"]["frames"])
    assert event["tags"]["request_id"] == response.headers["X-Request-ID"]
    assert event["transaction"] == "predict"
    assert event["request"] == {"method": "POST", "url": "https://localhost/predict"}
    assert not [word for word in CANARIES if any(word in text for text in kept.texts)]


def test_rejections_are_no_errors(kept: Kept) -> None:
    """401, 422 and 429 send nothing."""
    add_sentry(DSN, exchange_or_none, transport=kept)
    app = failing_app()
    client = app.test_client()
    found = {client.post("/predict", base_url=HTTPS, headers=caller("bad")).status_code}
    for _ in range(5):
        found.add(client.post("/predict", base_url=HTTPS, headers=caller(), json={"instances": "no"}).status_code)
    assert found == {401, 422, 429}
    assert kept.events == []


def test_a_client_of_the_app_stays(kept: Kept) -> None:
    """Its own hook gets the scrubbed event; a second protected app changes nothing more."""
    seen: list[Any] = []

    def own(event: Any, _hint: Any) -> Any:
        seen.append(event)
        return event

    sentry_sdk.init(DSN, transport=kept, before_send=own)
    client = sentry_sdk.get_client()
    for _ in range(2):
        add_sentry("https://other@sentry.example/2", exchange_or_none)
    assert sentry_sdk.get_client() is client
    assert send(failing_app()).status_code == 500
    assert seen
    assert not [word for word in CANARIES if word in "".join(kept.texts)]
    assert "canarymessage" not in json.dumps(seen[0].get("exception"))


def test_the_setting(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURE_ML_SENTRY_DSN creates the client."""
    monkeypatch.setenv("SENTRY_DSN_OF_TESTS", DSN)
    app = Flask("set")
    app.config |= {"SECURE_ML_SENTRY_DSN": "env:SENTRY_DSN_OF_TESTS", "SECURE_ML_REQUEST_LOG": "off"}
    SecureML(app)
    client = sentry_sdk.get_client()
    assert client.is_active()
    assert isinstance(client.options["before_send"], Scrubber)
    assert client.options["dsn"] == DSN


def test_outside_of_a_request() -> None:
    """An event of a thread has no exchange."""
    assert Scrubber(exchange_or_none)({"exception": {"values": []}, "user": {"id": "ada"}}, {}) == {
        "exception": {"values": []}
    }


def test_scrubbing() -> None:
    """Only what is known to be harmless stays of a request; formats stay, arguments go."""
    event = {
        "request": {"url": "https://a/x?q=1", "method": "GET", "data": "d", "env": {}, "headers": {}, "cookies": "c"},
        "logentry": {"message": "failed for %s", "params": ["secret"], "formatted": "failed for secret"},
        "threads": {"values": [{"stacktrace": {"frames": [{"function": "f", "vars": {"a": 1}}]}}]},
        "contexts": {"runtime": {"name": "CPython"}, "response": {"body": "x"}},
        "breadcrumbs": {"values": [{"message": "x"}]},
    }
    assert scrub(event) == {
        "request": {"url": "https://a/x", "method": "GET"},
        "logentry": {"message": "failed for %s"},
        "threads": {"values": [{"stacktrace": {"frames": [{"function": "f"}]}}]},
        "contexts": {"runtime": {"name": "CPython"}},
    }
