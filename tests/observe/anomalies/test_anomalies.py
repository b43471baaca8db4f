"""Handling of unusual traffic for each value of ``SECURE_ML_ANOMALIES``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from alert_receiver import Receiver
from audited_app import Audited
from flask_secure_ml import ConfigError, public
from flask_secure_ml.authentication.api_keys.key import new_key
from flask_secure_ml.observe.anomalies import SIGNALS, Anomaly
from flask_secure_ml.signals import anomaly_detected
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock, make_api_key
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

LOGGER = "flask_secure_ml.wiring.anomalies"
EXPLANATION = "10 different URLs in an hour that do not exist or are not allowed"


@pytest.fixture
def sent() -> Iterator[list[tuple[object, Anomaly]]]:
    found: list[tuple[object, Anomaly]] = []

    def note(app: object, anomaly: Anomaly) -> None:
        found.append((app, anomaly))

    anomaly_detected.connect(note)
    yield found
    anomaly_detected.disconnect(note)


def scan(app: Flask, name: str = "ada") -> set[int]:
    client = app.test_client()
    return {client.get(f"/x{n}", base_url=HTTPS, headers=caller(name)).status_code for n in range(12)}


def counted(app: Flask) -> float | None:
    metrics = state_of(app).metrics
    assert metrics is not None
    found: float | None = metrics.counters.registry.get_sample_value(
        "secure_ml_anomalies_total", {"signal": "scanning"}
    )
    return found


@pytest.mark.parametrize(
    ("settings", "count", "events"),
    [
        ({}, None, 0),
        ({"ANOMALIES": {}}, 1, 0),
        ({"ANOMALIES": {"scanning": "observe"}}, 1, 0),
        ({"ANOMALIES": {"scanning": "off"}}, None, 0),
        ({"ANOMALIES": {"scanning": "event"}}, 1, 1),
        ({"ANOMALIES": {"rate": "event"}}, 1, 0),
    ],
)
def test_the_setting(
    protected: MakeApp,
    sent: list[tuple[object, Anomaly]],
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    count: float | None,
    events: int,
) -> None:
    """Decides by signal; the response is the same with all."""
    app = protected(METRICS="/metrics", **settings)
    assert counted(app) == (None if count is None else 0)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert scan(app) == {404}
    assert counted(app) == count
    assert [each.getMessage() for each in caplog.records if each.name == LOGGER] == [
        f"anomaly scanning: 'test:ada': {EXPLANATION}"
    ] * events
    assert [(sender, each.signal, each.subject) for sender, each in sent] == [(app, "scanning", "test:ada")] * events


@pytest.mark.parametrize(("action", "seconds"), [("throttle", 300), ("block", 3_600)])
def test_who_is_rejected(
    protected: MakeApp, sent: list[tuple[object, Anomaly]], clock: FakeClock, action: str, seconds: int
) -> None:
    """Only the caller, for the time in ``Retry-After``."""
    app = protected(ANOMALIES={"scanning": action})
    app.add_url_rule("/x", "x", lambda: "ok")
    assert scan(app) == {404, 429}
    assert [(each.subject, each.penalty) for _, each in sent] == [("test:ada", action)]
    response = get(app, "/x")
    assert (response.status_code, response.headers["Retry-After"]) == (429, str(seconds))
    assert response.json is not None
    assert {name: response.json[name] for name in ("code", "type", "detail")} == {
        "code": "abnormal_usage",
        "type": "https://iana.org/assignments/http-problem-types#abnormal-usage-detected",
        "detail": "The usage of this service was unusual. Try again later.",
    }
    assert get(app, "/x", "bob").status_code == 200
    clock.advance(seconds - 0.5)
    assert get(app, "/x").headers["Retry-After"] == "1"
    clock.advance(0.6)
    assert get(app, "/x").status_code == 200


def get(app: Flask, path: str, name: str = "ada") -> TestResponse:
    return app.test_client().get(path, base_url=HTTPS, headers=caller(name))


def test_why(tmp_path: Path, clock: FakeClock) -> None:
    """The audit log has the signal in the private reason of a rejection, and the response does not."""
    audited = Audited(tmp_path, clock, ANOMALIES={"scanning": "block"})
    scan(audited.app)
    response = get(audited.app, "/open2")
    record = audited.records("request")[-1]
    assert record["reason"] == "unusual usage (scanning); rejected for 3600 s"
    assert "scanning" not in response.text


def test_a_rejected_network(protected: MakeApp, sent: list[tuple[object, Anomaly]]) -> None:
    """Its anonymous requests are rejected, but neither valid credentials nor probes."""
    app = protected(ANOMALIES={"scanning": "block"}, PROBES={"live": "/livez"})
    app.add_url_rule("/open", "open", public(lambda: "ok"))
    app.add_url_rule("/x", "x", lambda: "ok")
    client = app.test_client()
    assert {client.get(f"/x{n}", base_url=HTTPS).status_code for n in range(12)} == {401}
    assert [each.subject for _, each in sent] == ["127.0.0.1"]
    rejected = client.get("/open", base_url=HTTPS)
    assert (rejected.status_code, rejected.headers["X-Error-Code"]) == (429, "abnormal_usage")
    elsewhere = client.get("/open", base_url=HTTPS, environ_base={"REMOTE_ADDR": "192.0.2.9"})
    assert elsewhere.status_code == 200
    assert get(app, "/x").status_code == 200
    assert client.get("/livez", base_url=HTTPS).status_code == 200


@pytest.mark.parametrize(("action", "documented"), [("event", False), ("throttle", True)])
def test_the_description(protected: MakeApp, action: str, *, documented: bool) -> None:
    """OpenAPI has the code where it can occur."""
    app = protected(ANOMALIES={"rate": action}, OPENAPI="public")
    app.add_url_rule("/x", "x", lambda: "ok")
    assert ("abnormal_usage" in app.test_client().get("/openapi.json", base_url=HTTPS).text) is documented


def test_without_metrics(protected: MakeApp, sent: list[tuple[object, Anomaly]]) -> None:
    """Events need no other part."""
    assert scan(protected(ANOMALIES={"scanning": "event"})) == {404}
    assert len(sent) == 1


def test_tried_keys(
    protected: MakeApp, sent: list[tuple[object, Anomaly]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one network, by the ids in the keys that were rejected."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(ANOMALIES={"credentials": "event"}, API_KEYS=str(tmp_path / "k"), API_KEY_PEPPER="env:PEPPER")
    make_api_key(app)
    client = app.test_client()
    for _ in range(12):
        assert client.get("/x", base_url=HTTPS, headers={"X-API-Key": new_key()}).status_code == 401
    assert [(each.subject, each.explanation) for _, each in sent] == [
        ("127.0.0.1", "10 different identities in rejected credentials in an hour")
    ]


@pytest.mark.parametrize(("action", "penalty"), [("event", None), ("throttle", "throttle"), ("block", "block")])
def test_the_audit_log(tmp_path: Path, clock: FakeClock, action: str, penalty: str | None) -> None:
    """Has a record of each event, with the penalty."""
    audited = Audited(tmp_path, clock, ANOMALIES={"scanning": action})
    scan(audited.app)
    (record,) = audited.records("anomaly")
    assert {name: record.get(name) for name in ("signal", "subject", "kind", "explanation", "penalty")} == {
        "signal": "scanning",
        "kind": "principal",
        "subject": "test:ada",
        "explanation": EXPLANATION,
        "penalty": penalty,
    }
    audited.log.checkpoint()
    audited.assert_verifies()


@pytest.mark.parametrize(
    ("action", "result", "penalty"), [("event", "", None), ("block", "; rejected", "block")], ids=["event", "block"]
)
def test_the_webhook(protected: MakeApp, receiver: Receiver, action: str, result: str, penalty: str | None) -> None:
    """Gets each event, with the penalty."""
    app = protected(ANOMALIES={"scanning": action}, ALERT_WEBHOOK=receiver.url, ALERT_WEBHOOK_SECRET="env:ALERT_SECRET")
    scan(app)
    (alert,) = receiver.wait(1)
    assert {name: alert[name] for name in ("event", "subject", "signal", "summary")} == {
        "event": "anomaly_detected",
        "subject": "test:ada",
        "signal": "scanning",
        "summary": f"test:ada: {EXPLANATION}{result}.",
    }
    assert alert.get("penalty") == penalty


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("observe", "must be an object such as"),
        ({"scanning": "reject"}, "must be one of 'off', 'observe', 'event', 'throttle', 'block'"),
        ({"scanning": []}, "must be one of 'off', 'observe', 'event'"),
        ({"scaning": "event"}, "unknown signal 'scaning'; did you mean 'scanning'"),
        ({"x" * 30: "event"}, "choose from rate, rejections, scanning"),
    ],
)
def test_a_wrong_value(protected: MakeApp, value: object, message: str) -> None:
    """It is a start-up error that lists the valid values."""
    with pytest.raises(ConfigError, match="SECURE_ML_ANOMALIES") as caught:
        protected(ANOMALIES=value)
    assert message in str(caught.value)


def test_names_are_unique() -> None:
    """Settings and metrics are by name."""
    assert len({each.name for each in SIGNALS}) == len(SIGNALS)
