"""Sharing between processes: each scores the whole traffic, and baselines survive restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.observe.anomalies import SIGNALS, Anomaly, Detector, Observation, load
from flask_secure_ml.observe.anomalies.codec import dumped, packed, restore, unpacked
from flask_secure_ml.observe.anomalies.outbox import MOST_ENTRIES, MOST_TIMES, Outbox
from flask_secure_ml.observe.anomalies.sharing import KEPT_SUMMARIES, STATE, SUMMARIES, Sharing, part_of
from flask_secure_ml.stores import SharedStore, open_store
from flask_secure_ml.testing import FakeClock
from servers import valkey
from waits import HANG

ADA = Observation(0, "api_key:ada", "192.0.2.1", 200)
HOUR, DAY = 3_600, 86_400


def make() -> Detector:
    return Detector(SIGNALS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(params=["sqlite", "valkey"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> SharedStore:
    if request.param == "sqlite":
        return open_store(f"sqlite:{tmp_path / 'state.db'}", None, clock)
    running = request.getfixturevalue("server")
    with redis.Redis(port=running.port) as client:
        client.flushall()
    return open_store(f"valkey://127.0.0.1:{running.port}/0?socket_timeout={HANG}", None, clock)


class Process:
    """One worker, with its findings."""

    def __init__(self, store: SharedStore, clock: FakeClock) -> None:
        self.found: list[Anomaly] = []
        self.sharing = Sharing(store, clock, make, threading.Lock(), self.found.extend)

    def serve(self, seen: Observation) -> None:
        self.found += self.sharing.observe(seen)

    def sync(self) -> None:
        self.sharing.sync()

    @property
    def signals(self) -> list[str]:
        return [each.signal for each in self.found if not each.again]


def test_each_sees_half(store: SharedStore, clock: FakeClock) -> None:
    """Of two workers that each serve half of ten URLs, both detect the anomaly."""
    first, second = Process(store, clock), Process(store, clock)
    for n in range(5):
        first.serve(replace(ADA, time=n, status=404, target=n + 1))
        second.serve(replace(ADA, time=n, status=404, target=n + 101))
    assert first.found == second.found == []
    first.sync()
    second.sync()
    assert second.signals == ["scanning"]
    first.sync()
    assert first.signals == ["scanning"]
    for each in (first, second):
        each.sync()
        assert each.signals == ["scanning"]


@pytest.mark.slow
def test_every_signal_is_the_same_as_in_one_process(store: SharedStore, clock: FakeClock) -> None:
    """After four days in two workers, with one exchange each minute, scores agree with those of one that served all."""
    alone, workers = make(), [Process(store, clock) for _ in range(2)]
    begin = clock.now()
    for minute in range(4 * 24 * 60):
        if active := minute % (24 * 60) < 240:
            for n in range(2):
                seen = replace(
                    ADA, time=begin + 60 * minute + 20 * n, rows=3, size=500, network=f"192.0.2.{minute % 3}"
                )
                alone.observe(seen)
                workers[n].serve(seen)
        clock.advance(60)
        if active and minute % 5 == 0:
            for each in workers:
                each.sync()
    for each in (*workers, *workers):
        each.sync()
    now = clock.now()
    expected = alone.readings("principal", ADA.principal, now)
    assert expected is not None
    for each in workers:
        readings = each.sharing.detector.readings("principal", ADA.principal, now)
        assert readings is not None
        for name in ("networks", "rejections", "scanning", "silence"):
            assert readings[name] == expected[name]
        for name in ("rate", "rows", "bytes"):
            limits = [
                float(each[name].history.split("unusual from ")[1].split(";")[0]) for each in (readings, expected)
            ]
            assert limits[0] == pytest.approx(limits[1], rel=0.3)


def test_what_is_usual_survives_a_restart(store: SharedStore, clock: FakeClock) -> None:
    """After all processes end, the next one knows the baselines and a recent anomaly."""
    first = Process(store, clock)
    begin = clock.now()
    for day in range(4):
        for n in range(600):
            first.serve(replace(ADA, time=begin + day * DAY + 60 * n))
    clock.advance(4 * DAY)
    first.sync()
    for n in range(200):
        first.serve(replace(ADA, time=clock.now() + n))
    assert first.signals == ["rate"]
    clock.advance(200)
    first.sync()
    second = Process(store, clock)
    second.sync()
    for n in range(100):
        second.serve(replace(ADA, time=clock.now() + n))
    assert second.found
    assert second.signals == []
    clock.advance(10 * DAY + 5 * HOUR)
    third = Process(store, clock)
    third.sync()
    for n in range(200):
        third.serve(replace(ADA, time=clock.now() + n))
    assert third.signals == ["rate"]


def test_nothing_counts_twice(store: SharedStore, clock: FakeClock) -> None:
    """Data in a state is not added again from a summary, or by reading it twice."""
    first = Process(store, clock)
    for _ in range(9):
        first.serve(replace(ADA, time=clock.now(), status=422))
        first.sync()
        clock.advance(20)
    for _ in range(3):
        readings = load(store, make).detector.readings("principal", ADA.principal, clock.now() - 20)
        assert readings is not None
        assert readings["rejections"].value == "9 of 9 requests rejected in this hour"
    second = Process(store, clock)
    for _ in range(3):
        second.sync()
        first.sync()
    for each in (first, second):
        known = each.sharing.detector.readings("principal", ADA.principal, clock.now() - 20)
        assert known is not None
        assert known["rejections"].value == "9 of 9 requests rejected in this hour"


def test_what_comes_after_a_state_is_in_the_next_one(store: SharedStore, clock: FakeClock) -> None:
    """Also if another process wrote that one in the same minute, without further requests."""
    first, second = Process(store, clock), Process(store, clock)
    second.sync()
    first.serve(replace(ADA, time=clock.now(), status=422))
    first.sync()
    second.serve(replace(ADA, time=clock.now(), status=422))
    second.sync()
    for _ in range(int(2 * KEPT_SUMMARIES / 20)):
        clock.advance(20)
        first.sync()
        second.sync()
    known = load(store, make).detector.readings("principal", ADA.principal, clock.now() - 600)
    assert known is not None
    assert known["rejections"].value == "2 of 2 requests rejected in this hour"


def test_an_idle_service_writes_nothing(store: SharedStore, clock: FakeClock) -> None:
    """Each state is written once after the last change."""
    first, second = Process(store, clock), Process(store, clock)
    first.serve(replace(ADA, time=clock.now()))
    for each in (first, second) * 40:
        each.sync()
        clock.advance(20)
    cursor = store.changes(STATE, None).cursor
    for each in (first, second) * 20:
        each.sync()
        clock.advance(20)
    assert not store.changes(STATE, cursor).records


class Between:
    """A store that calls back before a process writes its state."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.call: Callable[[], None] = lambda: None

    def add(self, *arguments: Any) -> bool:
        self.call()
        return self._store.add(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_what_is_served_meanwhile_counts_once(store: SharedStore, clock: FakeClock) -> None:
    """A request between the summary and the state is in both or in none."""
    between = Between(store)
    first = Process(between, clock)  # type: ignore[arg-type]
    between.call = lambda: first.serve(replace(ADA, time=clock.now(), status=422))
    first.serve(replace(ADA, time=clock.now(), status=422))
    first.sync()
    between.call = lambda: None
    for _ in range(2):
        known = load(store, make).detector.readings("principal", ADA.principal, clock.now())
        assert known is not None
        assert known["rejections"].value == "2 of 2 requests rejected in this hour"
        first.sync()


def test_who_missed_too_much_begins_with_the_state(store: SharedStore, clock: FakeClock) -> None:
    """Summaries that expired meanwhile are in it."""
    first, second = Process(store, clock), Process(store, clock)
    second.sync()
    for _ in range(12):
        first.serve(replace(ADA, time=clock.now(), status=422))
        first.sync()
        clock.advance(KEPT_SUMMARIES / 5)
    second.sync()
    known = second.sharing.detector.readings("principal", ADA.principal, clock.now() - 60)
    assert known is not None
    assert known["rejections"].value == "12 of 12 requests rejected in this hour"


class Failing:
    """A store that is down for one method."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.down: set[str] = set()

    def __getattr__(self, name: str) -> object:
        if name in self.down:
            raise DependencyUnavailable("down")
        return getattr(self._store, name)


@pytest.mark.parametrize("method", ["put", "get", "changes", "add"])
def test_an_outage_loses_nothing(store: SharedStore, clock: FakeClock, method: str) -> None:
    """Requests served meanwhile are shared when the store is back, and counted once."""
    broken = Failing(store)
    first, second = Process(broken, clock), Process(store, clock)  # type: ignore[arg-type]
    if method == "changes":
        first.sync()
    broken.down = {method}
    for n in range(5):
        first.serve(replace(ADA, time=clock.now() + n, status=404, target=n + 1))
        if n == 2:
            with pytest.raises(DependencyUnavailable):
                first.sync()
    broken.down = set()
    clock.advance(5)
    first.sync()
    second.sync()
    known = second.sharing.detector.readings("principal", ADA.principal, clock.now())
    assert known is not None
    assert known["scanning"].value.endswith(": 5")
    assert known["rejections"].value == "5 of 5 requests rejected in this hour"


@pytest.mark.parametrize("raw", [b"", b"x", packed([]), packed({"version": 2}), packed([[1]]), packed({"version": 1})])
def test_what_cannot_be_read(store: SharedStore, clock: FakeClock, raw: bytes) -> None:
    """A record of the state or a summary that is damaged is skipped."""
    for part in range(256):
        store.put(STATE, str(part), raw)
    store.put(SUMMARIES, f"other-{1:012}", raw)
    store.put(SUMMARIES, "nothing", raw)
    first = Process(store, clock)
    first.serve(replace(ADA, time=clock.now()))
    first.sync()
    second = Process(store, clock)
    second.sync()
    assert second.sharing.detector.readings("principal", ADA.principal, clock.now()) is not None


def test_a_summary_is_bounded() -> None:
    """By the number of entries of each kind, and of times in one; strangers crowd out no principal."""
    outbox = Outbox()
    for n in range(MOST_ENTRIES + 50):
        outbox.add(Observation(n, "", f"n{n}", 401))
    for n in range(100):
        outbox.add(replace(ADA, time=n, rows=2**53, size=2**60))
    found = outbox.take()
    assert len(found) == MOST_ENTRIES + 1
    (ada,) = [each for each in found if each.principal]
    assert (ada.count, ada.time, len(ada.times), ada.size) == (100, 99, MOST_TIMES, 2**62)
    assert not outbox


@pytest.mark.parametrize("kind", SIGNALS)
def test_the_state_of_a_signal(kind: type[Any]) -> None:
    """It is restored exactly, and continues like the original."""
    original, copy = kind(), kind()
    for n in range(6_000):
        seen = replace(ADA, time=100.0 * n, status=(200, 404)[n % 2], target=n % 7, rows=n % 9, network=f"n{n % 5}")
        original.observe(replace(seen, attempted=f"k{n % 3}"), 1.0)
    restore(copy, unpacked(packed(dumped(original))))
    assert dumped(copy) == dumped(original)
    later = [
        replace(ADA, time=600_000.0 + n, status=404, target=n + 50, rows=50, attempted=f"x{n}") for n in range(500)
    ]
    assert [copy.observe(each, 1.0) for each in later] == [original.observe(each, 1.0) for each in later]


@pytest.mark.parametrize("state", [None, {}, [], {"_history": 1}, "x"])
def test_a_state_of_something_else(state: Any) -> None:
    """It is rejected."""
    with pytest.raises(ValueError, match="another class"):
        restore(SIGNALS[0](), state)


def test_parts_are_the_same_everywhere() -> None:
    """They do not depend on the process."""
    assert part_of("principal", "api_key:ada") == part_of("principal", "api_key:ada") < 256
    assert len({part_of("network", f"192.0.2.{n}") for n in range(200)}) > 100
