"""What happens when traffic is unusual: each value of ``SECURE_ML_ANOMALIES``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from alert_receiver import Receiver
from audited_app import Audited
from flask_secure_ml import ConfigError
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
    found: float | None = metrics.registry.get_sample_value("secure_ml_anomalies_total", {"signal": "scanning"})
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
        ("127.0.0.1", "10 different API keys rejected in an hour")
    ]


def test_the_audit_log(tmp_path: Path, clock: FakeClock) -> None:
    """Has a record of each event."""
    audited = Audited(tmp_path, clock, ANOMALIES={"scanning": "event"})
    scan(audited.app)
    (record,) = audited.records("anomaly")
    assert {name: record[name] for name in ("signal", "subject", "explanation")} == {
        "signal": "scanning",
        "subject": "test:ada",
        "explanation": EXPLANATION,
    }
    audited.log.checkpoint()
    audited.assert_verifies()


def test_the_webhook(protected: MakeApp, receiver: Receiver) -> None:
    """Gets each event."""
    app = protected(
        ANOMALIES={"scanning": "event"}, ALERT_WEBHOOK=receiver.url, ALERT_WEBHOOK_SECRET="env:ALERT_SECRET"
    )
    scan(app)
    (alert,) = receiver.wait(1)
    assert {name: alert[name] for name in ("event", "subject", "signal", "summary")} == {
        "event": "anomaly_detected",
        "subject": "test:ada",
        "signal": "scanning",
        "summary": f"test:ada: {EXPLANATION}.",
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("observe", "must be an object such as"),
        ({"scanning": "block"}, "must be one of 'off', 'observe', 'event'"),
        ({"scanning": []}, "must be one of 'off', 'observe', 'event'"),
        ({"scaning": "event"}, "there is no signal 'scaning'; did you mean 'scanning'"),
        ({"x" * 30: "event"}, "known are rate, rejections, scanning"),
    ],
)
def test_a_wrong_value(protected: MakeApp, value: object, message: str) -> None:
    """It is a start-up error that says what to write."""
    with pytest.raises(ConfigError, match="SECURE_ML_ANOMALIES") as caught:
        protected(ANOMALIES=value)
    assert message in str(caught.value)


def test_names_are_unique() -> None:
    """Settings and metrics are by name."""
    assert len({each.name for each in SIGNALS}) == len(SIGNALS)
