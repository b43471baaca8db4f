"""Anomalies with several processes that share a store, and anomalies that continue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.anomalies import Anomalies, Anomaly, Penalties
from flask_secure_ml.principal import Principal
from flask_secure_ml.signals import anomaly_detected
from flask_secure_ml.state import state_of
from flask_secure_ml.stores import open_store
from flask_secure_ml.testing import FakeClock
from forks import run_forking
from servers import wait_until
from support import HTTPS, MakeApp, caller


@pytest.fixture
def sent() -> Iterator[list[Anomaly]]:
    found: list[Anomaly] = []

    def note(_app: object, anomaly: Anomaly) -> None:
        found.append(anomaly)

    anomaly_detected.connect(note)
    yield found
    anomaly_detected.disconnect(note)


def scan(app: Flask, begin: int, count: int) -> list[int]:
    client = app.test_client()
    urls = range(begin, begin + count)
    return [client.get(f"/{n}", base_url=HTTPS, headers=caller("ada")).status_code for n in urls]


def sync(app: Flask) -> None:
    anomalies = state_of(app).anomalies
    assert anomalies is not None
    anomalies.sync()


def counted(app: Flask) -> float:
    metrics = state_of(app).metrics
    assert metrics is not None
    return metrics.counters.registry.get_sample_value("secure_ml_anomalies_total", {"signal": "scanning"}) or 0.0


def score(app: Flask) -> float | None:
    """Return the score of scanning as a scrape has it."""
    metrics = state_of(app).metrics
    assert metrics is not None
    text = metrics.exposition.text().body.decode()
    (found,) = (
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "secure_ml_anomaly_score" and sample.labels == {"signal": "scanning"}
    )
    return float(found)


@pytest.mark.parametrize(("store", "whole"), [("sqlite:{}/state.db", True), ("memory:", False)])
def test_two_apps(
    protected: MakeApp, sent: list[Anomaly], tmp_path: Path, clock: FakeClock, store: str, *, whole: bool
) -> None:
    """Each serves half: with a shared store both reject, and one of them reports and counts."""
    settings: dict[str, Any] = {"STORE_URI": store.format(tmp_path), "ANOMALIES": {"scanning": "block"}}
    apps = [protected(METRICS="/metrics", **settings) for _ in range(2)]
    for n, app in enumerate(apps):
        assert scan(app, 100 * n, 5) == [404] * 5
    for app in (*apps, *apps):
        sync(app)
    clock.advance(1)
    assert len(sent) == whole
    assert sum(map(counted, apps)) == whole
    assert [score(app) for app in apps] == [1.0 if whole else 0.5] * 2
    assert [scan(app, 500, 1) for app in apps] == [[429 if whole else 404]] * 2


def test_scores(protected: MakeApp, clock: FakeClock) -> None:
    """The highest scores of the callers of the last ten minutes, and 1 during an anomaly."""
    app = protected(METRICS="/metrics", ANOMALIES={"silence": "off"})
    assert score(app) == 0
    scan(app, 0, 4)
    assert score(app) == 0.4
    clock.advance(599)
    assert score(app) == 0.4
    clock.advance(1)
    assert score(app) == 0
    scan(app, 100, 20)
    clock.advance(599)
    assert score(app) == 1
    clock.advance(1)
    assert score(app) == 0


def test_scores_of_a_worker_without_requests(protected: MakeApp, tmp_path: Path, clock: FakeClock) -> None:
    """It starts to read the summaries of others when its scores are requested."""
    first, second = (protected(METRICS="/metrics", STORE_URI=f"sqlite:{tmp_path}/state.db", ANOMALIES={}) for _ in "ab")
    scan(first, 0, 5)
    sync(first)
    score(second)
    wait_until(lambda: score(second) == 0.5, "the second does not read what the first served")


def test_while_it_goes_on(protected: MakeApp, sent: list[Anomaly], clock: FakeClock) -> None:
    """The caller stays rejected, is reported once, and is accepted five minutes after it ends."""
    app = protected(ANOMALIES={"scanning": "throttle"})
    assert scan(app, 0, 12)[-1] == 429
    for minute in range(30):
        clock.advance(60)
        assert scan(app, 1_000 + 10 * minute, 5) == [429] * 5
    assert len(sent) == 1
    clock.advance(301)
    assert scan(app, 2_000, 1) == [404]


def test_who_waits_gets_in(protected: MakeApp, clock: FakeClock) -> None:
    """An honest client that was rejected asks again after Retry-After, and has no other penalty."""
    app = protected(ANOMALIES={"scanning": "throttle"})
    app.add_url_rule("/x", "x", lambda: "ok")
    scan(app, 0, 10)
    client = app.test_client()
    response = client.get("/x", base_url=HTTPS, headers=caller("ada"))
    clock.advance(int(response.headers["Retry-After"]))
    for _ in range(50):
        assert client.get("/x", base_url=HTTPS, headers=caller("ada")).status_code == 200
        clock.advance(10)


class Down:
    """A store that is down."""

    shared = True

    def __getattr__(self, name: str) -> object:
        raise DependencyUnavailable("down")


def test_a_store_that_is_down(clock: FakeClock) -> None:
    """Requests are scored, penalties enforced and events reported, without errors."""
    found: list[Anomaly] = []
    store: Any = Down()
    penalties = Penalties(clock, store)
    recorder = Anomalies({"scanning": "block"}, lambda _signal: None, found.append, penalties, clock, store)
    exchange = Exchange("id", clock.now(), 0.0, "192.0.2.1", "192.0.2.1", secure=True, status=404)
    exchange.principal = Principal("test", "ada")
    for n in range(12):
        exchange.path = f"/{n}"
        recorder.record(exchange)
    assert penalties.left("principal", "test:ada") == 3_600
    with pytest.raises(DependencyUnavailable):
        recorder.sync()
    assert [each.signal for each in found] == ["scanning"]


FORKING = """
import sys
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.anomalies import Anomalies, Penalties, load
from flask_secure_ml.principal import Principal, SystemClock
from flask_secure_ml.stores import open_store

clock = SystemClock()
store = open_store("sqlite:{path}", None, clock)
recorder = Anomalies({{}}, lambda _: None, lambda _: None, Penalties(clock, store), clock, store)

def serve(begin):
    for n in range(begin, begin + 4):
        exchange = Exchange("id", clock.now(), 0.0, "192.0.2.1", "192.0.2.1", True, status=404, path=f"/{{n}}")
        exchange.principal = Principal("test", "ada")
        recorder.record(exchange)
    recorder.sync()

serve(0)
children = [fork(lambda begin=begin: serve(begin)) for begin in (10, 20)]
for pid in children:
    ended(pid)
recorder.sync()
found = load(store, recorder.detector).detector.readings("principal", "test:ada", clock.now())
assert found["rejections"].value == "12 of 12 requests rejected in this hour", found["rejections"]
"""


def test_processes(tmp_path: Path) -> None:
    """With a parent and children forked while it scored, all requests are counted once."""
    run_forking(FORKING.format(path=tmp_path / "state.db"))


def test_every_action_is_checked(clock: FakeClock, tmp_path: Path) -> None:
    """A detector of these settings has the signals that are not off."""
    store = open_store(f"sqlite:{tmp_path / 'state.db'}", None, clock)
    recorder = Anomalies({"rate": "off"}, lambda _: None, lambda _: None, Penalties(clock), clock, store)
    assert "rate" not in recorder.signals
    assert recorder.actions["rows"] == "observe"
    assert recorder.detector().readings("principal", "ada", 0) is None
