"""Errors in Sentry have the details needed to debug, but no client data. A transport keeps the events here."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from marshmallow import Schema
from sentry_sdk.consts import DEFAULT_OPTIONS
from sentry_sdk.transport import Transport

from flask_secure_ml import ConfigError, SecureML, protect
from flask_secure_ml.exchange import exchange_or_none
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.sentry import Scrubber, add_sentry, scrub, scrub_span
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, NameAuthenticator, caller

DSN = "https://public@sentry.example/1"
CANARIES = ("canaryquery", "canaryheader", "canarybody", "canarylocal", "canarymessage", "canarycookie")


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


class Kept(Transport):
    """Keeps the data that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep one envelope as it would be on the wire."""
        self.envelopes.append(envelope.serialize().decode())

    @property
    def events(self) -> list[dict[str, Any]]:
        found = [json.loads(line) for each in self.envelopes for line in each.splitlines() if line.startswith("{")]
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
    assert event["request"] == {"method": "POST", "url": "/predict"}
    assert not [word for word in CANARIES if any(word in each for each in kept.envelopes)]


def test_rejections_are_no_errors(kept: Kept) -> None:
    """401, 422 and 429 are not sent."""
    add_sentry(DSN, exchange_or_none, transport=kept)
    app = failing_app()
    client = app.test_client()
    found = {client.post("/predict", base_url=HTTPS, headers=caller("bad")).status_code}
    for _ in range(5):
        found.add(client.post("/predict", base_url=HTTPS, headers=caller(), json={"instances": "no"}).status_code)
    assert found == {401, 422, 429}
    assert kept.events == []


def test_a_client_of_the_app_stays(kept: Kept) -> None:
    """Its own hook gets the scrubbed event; a second protected app does not change it further."""
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
    assert not [word for word in CANARIES if word in "".join(kept.envelopes)]
    assert "canarymessage" not in json.dumps(seen[0].get("exception"))


SECRETS = (*CANARIES, "canarypath", "canaryargument", "canarykey")
STREAMED: dict[str, Any] = {"traces_sample_rate": 1.0, "trace_lifecycle": "stream"}


def failing_hook(_telemetry: Any, _hint: Any) -> Any:
    raise ValueError("a fault of the app")


@pytest.mark.filterwarnings("ignore:The send_default_pii option is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("logs", {"enable_logs": True}, id="logs"),
        pytest.param("streamed", STREAMED, id="streamed spans"),
        pytest.param("streamed", STREAMED | {"before_send_span": failing_hook}, id="streamed spans, failing hook"),
        pytest.param("transactions", {"traces_sample_rate": 1.0}, id="transactions"),
    ],
)
def test_what_is_no_event(kept: Kept, kind: str, options: dict[str, Any]) -> None:
    """Logs, streamed spans and transactions of the app's client have no client data either."""
    if missing := options.keys() - DEFAULT_OPTIONS.keys():
        pytest.skip(f"this version of the SDK has no {', '.join(missing)}")
    sentry_sdk.init(DSN, transport=kept, send_default_pii=True, **options)
    add_sentry(DSN, exchange_or_none)
    app = failing_app()

    @app.get("/notes/<name>")
    @protect()
    def notes(name: str) -> str:
        logging.getLogger("app.of.tests").error("a bad row: %s", "tnemugrayranac"[::-1])
        logging.getLogger("app.of.tests").error(f"a bad row: {name}")  # noqa: G004
        return "ok"

    send(app)
    client = app.test_client()
    client.set_cookie("session", "canarycookie")
    headers = caller() | {"X-Note": "canaryheader", "X-API-Key": "canarykey"}
    path = "/notes/canarypath?q=canaryquery"
    assert client.get(path, base_url=HTTPS, headers=headers).status_code == 200
    sentry_sdk.flush()
    sent = "".join(kept.envelopes)
    assert not [word for word in SECRETS if word in sent]
    if kind == "logs":
        assert '"body":"a bad row: %s"' in sent
        assert '"body":"(removed; see the log)"' in sent
    elif kind == "streamed":
        assert {'"name":"notes"', '"name":"predict"'} <= set(re.findall(r'"name":"\w+"', sent))
    else:
        assert {'"transaction":"notes"', '"transaction":"predict"'} <= set(re.findall(r'"transaction":"\w+"', sent))


@pytest.mark.parametrize(
    ("operation", "name", "kept_name"),
    [
        ("db.redis", "GET 'api_key:ada'", None),
        ("cache.get", "api_key:ada", None),
        ("http.client", "GET https://a/x?q=1", None),
        ("subprocess", "convert ada.png", None),
        ("template.render", "page.html", "page.html"),
    ],
)
def test_names_of_spans(operation: str, name: str, kept_name: str | None) -> None:
    """URLs, keys and arguments are removed."""
    event = {"type": "transaction", "spans": [{"op": operation, "description": name, "data": {"x": 1}}]}
    (span,) = scrub(event)["spans"]
    assert span == {"op": operation} | ({} if kept_name is None else {"description": kept_name})
    streamed = scrub_span({"name": name, "attributes": {"sentry.op": operation, "db.query.text": name}})
    assert streamed == {"name": kept_name or operation, "attributes": {"sentry.op": operation}}


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
    """Only harmless parts of a request are kept; log formats are kept without arguments."""
    event = {
        "request": {"url": "https://a/x?q=1", "method": "GET", "data": "d", "env": {}, "headers": {}, "cookies": "c"},
        "logentry": {"message": "failed for %s", "params": ["secret"], "formatted": "failed for secret"},
        "threads": {"values": [{"stacktrace": {"frames": [{"function": "f", "vars": {"a": 1}}]}}]},
        "contexts": {"runtime": {"name": "CPython"}, "response": {"body": "x"}},
        "breadcrumbs": {"values": [{"message": "x"}]},
    }
    assert scrub(event) == {
        "request": {"method": "GET"},
        "logentry": {"message": "failed for %s"},
        "threads": {"values": [{"stacktrace": {"frames": [{"function": "f"}]}}]},
        "contexts": {"runtime": {"name": "CPython"}},
    }


def test_messages_that_were_put_together(kept: Kept) -> None:
    """They are replaced by the location of the log call, which identifies them; a format is kept."""
    add_sentry(DSN, exchange_or_none, transport=kept)
    log = logging.getLogger("app.of.tests")
    row = "canarypayload"
    log.error(f"a bad row: {row}")  # noqa: G004
    log.error("another bad row: " + row)  # noqa: G003
    log.error("a bad row: %s", row)
    sentry_sdk.capture_message(f"a bad row: {row}")
    assert "canarypayload" not in "".join(kept.envelopes)
    first, second, third = kept.events
    assert '"message":"(removed; see the log)"' in kept.envelopes[-1].replace('": "', '":"')
    assert re.fullmatch(r"a message of app\.of\.tests, from line \d+ of test_sentry .*", first["logentry"]["message"])
    assert first["logentry"] != second["logentry"]
    assert third["logentry"]["message"] == "a bad row: %s"
    error = {"type": "E", "mechanism": {"type": "wsgi", "handled": False, "data": {"q": "secret"}}}
    assert scrub({"exception": {"values": [error]}})["exception"]["values"] == [
        {"type": "E", "mechanism": {"type": "wsgi", "handled": False}}
    ]


def test_a_dsn_that_is_missing() -> None:
    """The message names the setting and the variable."""
    app = Flask("missing")
    app.config |= {"SECURE_ML_SENTRY_DSN": "env:NO_DSN_OF_TESTS", "SECURE_ML_REQUEST_LOG": "off"}
    with pytest.raises(ConfigError, match="SECURE_ML_SENTRY_DSN: environment variable NO_DSN_OF_TESTS is not set"):
        SecureML(app)
