"""Records cached in memory: when the store is queried, and stale records during an outage."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store, redis, sqlite
from flask_secure_ml.stores.base import Changes, Cursor, Record
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.stores.snapshot import TIMEOUT, TOTAL, Snapshot
from flask_secure_ml.testing import FakeClock
from servers import valkey
from waits import HANG, assert_bounded


class Watched(MemoryStore):
    """Counts the looks, and can be down or slow."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.looks = 0
        self.down = False
        self.asked = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        self.looks += 1
        self.asked.set()
        self.go.wait(10)
        if self.down:
            raise DependencyUnavailable("down")
        return super().changes(space, cursor, timeout=timeout)


@pytest.fixture
def store(clock: FakeClock) -> Watched:
    return Watched(clock)


@pytest.fixture
def snapshot(store: Watched, clock: FakeClock) -> Snapshot[dict[str, int]]:
    return Snapshot(store, "s", int, clock, dict)


def test_change_is_seen_within_half_a_second(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock
) -> None:
    """In between, requests cause no calls; the content is the same object until it changes."""
    store.put("s", "a", b"1")
    first = snapshot.read()
    store.put("s", "b", b"2")
    assert [snapshot.read() for _ in range(100)] == [first] * 100
    assert store.looks == 1
    clock.advance(0.5)
    assert snapshot.read() == {"a": 1, "b": 2}
    clock.advance(0.5)
    assert snapshot.read() is snapshot.read()
    assert store.looks == 3


def test_store_that_is_down_at_first(store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock) -> None:
    """Without any content no decision is possible; later it is."""
    store.down = True
    with pytest.raises(DependencyUnavailable):
        snapshot.read()
    store.down = False
    with pytest.raises(DependencyUnavailable):
        snapshot.read()
    clock.advance(0.5)
    assert snapshot.read() == {}


def test_old_content_serves_for_a_minute(store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock) -> None:
    """Then the store could know of a change for too long."""
    store.put("s", "a", b"1")
    snapshot.read()
    store.down = True
    clock.advance(59.9)
    assert snapshot.read() == {"a": 1}
    clock.advance(0.1)
    with pytest.raises(DependencyUnavailable):
        snapshot.read()


def test_damaged_record(store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock) -> None:
    """One record that cannot be read makes all of them doubtful, until it is mended."""
    store.put("s", "a", b"1")
    snapshot.read()
    store.put("s", "b", b"x")
    clock.advance(0.5)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            snapshot.read()
    store.delete("s", "b")
    clock.advance(0.5)
    assert snapshot.read() == {"a": 1}


def test_one_thread_asks_and_the_others_go_on(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock
) -> None:
    """A slow store delays one request at a time."""
    store.put("s", "a", b"1")
    snapshot.read()
    clock.advance(0.5)
    store.asked.clear()
    store.go.clear()
    waiting = threading.Thread(target=snapshot.read)
    waiting.start()
    assert store.asked.wait(10)
    assert snapshot.read() == {"a": 1}
    store.go.set()
    waiting.join(10)
    assert store.looks == 2


def test_first_content_is_loaded_once(store: Watched, snapshot: Snapshot[dict[str, int]]) -> None:
    """Threads that need it at the same time wait for the one that loads it."""
    store.put("s", "a", b"1")
    store.go.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(snapshot.read) for _ in range(8)]
        assert store.asked.wait(10)
        store.go.set()
        assert [each.result(10) for each in waiting] == [{"a": 1}] * 8
    assert store.looks == 1


def test_refresh(store: Watched, snapshot: Snapshot[dict[str, int]]) -> None:
    """A caller that has changed a record polls at once."""
    snapshot.read()
    store.put("s", "a", b"1")
    assert snapshot.read() == {}
    snapshot.invalidate()
    assert snapshot.read() == {"a": 1}


def test_change_while_loading_is_not_missed(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change during the read is found at the next poll."""
    changes = store.changes

    def slow(space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        found = changes(space, cursor, timeout=timeout)
        store.put("s", "late", b"2")
        monkeypatch.setattr(store, "changes", changes)
        return found

    monkeypatch.setattr(store, "changes", slow)
    assert snapshot.read() == {}
    clock.advance(0.5)
    assert snapshot.read() == {"late": 2}


def test_outage_is_logged_once(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When it begins and when it ends, not twice a second in between."""
    snapshot.read()
    for down in (True, True, True, False, False):
        store.down = down
        clock.advance(0.5)
        snapshot.read()
    assert [each.getMessage() for each in caplog.records] == ["s are not up to date: down", "s are up to date again"]


def test_rejection_says_when_to_come_back(store: Watched, snapshot: Snapshot[dict[str, int]]) -> None:
    """503 with Retry-After, and the private reason names the space."""
    store.down = True
    with pytest.raises(DependencyUnavailable) as caught:
        snapshot.read()
    assert caught.value.extra_headers == (("Retry-After", "1"),)
    assert "its s are unknown" in caught.value.reason


def test_quiet_time_makes_the_others_wait(clock: FakeClock) -> None:
    """After a minute without requests the first ones all wait for the store, which is not down but was not polled."""

    class Slow(MemoryStore):
        asked, go = threading.Event(), threading.Event()

        def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
            self.asked.set()
            self.go.wait(10)
            return super().changes(space, cursor, timeout=timeout)

    store = Slow(clock)
    store.go.set()
    snapshot: Snapshot[dict[str, int]] = Snapshot(store, "s", int, clock, dict)
    snapshot.read()
    clock.advance(61)
    store.asked.clear()
    store.go.clear()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(snapshot.read) for _ in range(8)]
        assert store.asked.wait(10)
        store.go.set()
        assert [each.result(10) for each in reads] == [{}] * 8


# --- what changed ----------------------------------------------------------------------------------------


def test_change_is_read_alone(store: Watched, clock: FakeClock) -> None:
    """One change of ten thousand records parses one record, in the same mapping."""
    parsed: list[bytes] = []

    def parse(raw: bytes) -> int:
        parsed.append(raw)
        return int(raw)

    snapshot = Snapshot(store, "s", parse, clock, dict[str, int])
    for number in range(10_000):
        store.put("s", str(number), b"1")
    content = snapshot.read()
    assert len(parsed) == 10_000
    parsed.clear()
    store.put("s", "7", b"2")
    store.delete("s", "8")
    clock.advance(0.5)
    assert snapshot.read() is content
    assert (parsed, content["7"], "8" in content) == ([b"2"], 2, False)


def test_what_expires_leaves_the_memory(store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock) -> None:
    """At the next poll after its expiry, which the last put determines."""
    for number in range(100):
        store.put("s", f"a{number}", b"1", seconds=100)
        store.put("s", f"b{number}", b"1", seconds=10)
        store.put("s", f"c{number}", b"1", seconds=10)
    snapshot.read()
    for number in range(50):
        store.put("s", f"b{number}", b"1", seconds=200)
        store.put("s", f"c{number}", b"1")
    clock.advance(9)
    assert len(snapshot.read()) == 300
    clock.advance(2)
    assert len(snapshot.read()) == 200
    clock.advance(90)
    assert len(snapshot.read()) == 100
    clock.advance(110)
    content = snapshot._content.get()
    assert len(snapshot.read()) == len(content.table) == 50
    assert content._until == {}
    assert content._ends == []


def test_old_content_serves_until_the_new_one_is_complete(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that lost its history is read again into another mapping; a reader never sees half of it."""
    store.put("s", "a", b"1")
    old = snapshot.read()
    pages = iter(
        [
            Changes({"b": Record(b"2")}, Cursor("v", "b"), more=True, whole=True),
            Changes({"c": Record(b"3")}, Cursor("v"), more=False, whole=False),
        ]
    )
    seen: list[dict[str, int]] = []

    def changes(space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        seen.append(dict(old))
        return next(pages)

    monkeypatch.setattr(store, "changes", changes)
    clock.advance(0.5)
    assert snapshot.read() == {"b": 2, "c": 3}
    assert seen == [{"a": 1}] * 2


def test_pages_that_break_off(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partial read is never used as complete; the next attempt continues, or restarts if the store does."""
    asked: list[Cursor | None] = []
    responses: list[Changes | None] = [
        Changes({"a": Record(b"1")}, Cursor("v", "a"), more=True, whole=True),
        None,
        Changes({"b": Record(b"2")}, Cursor("v", "b"), more=True, whole=False),
        None,
        Changes({"c": Record(b"3")}, Cursor("w", "c"), more=True, whole=True),
        Changes({"d": Record(b"4")}, Cursor("w"), more=False, whole=False),
        Changes({}, Cursor("w"), more=False, whole=False),
    ]

    def changes(space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        asked.append(cursor)
        response = responses.pop(0)
        if response is None:
            raise DependencyUnavailable("down")
        return response

    monkeypatch.setattr(store, "changes", changes)
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            snapshot.read()
        clock.advance(0.5)
    assert snapshot.read() == {"c": 3, "d": 4}
    clock.advance(0.5)
    assert snapshot.read() == {"c": 3, "d": 4}
    v, w = Cursor("v", "a"), Cursor("w", "c")
    assert asked == [None, v, v, Cursor("v", "b"), Cursor("v", "b"), w, Cursor("w")]


def test_pages_without_end(
    store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that always has more is given up after the time for all of them."""
    began = clock.monotonic()

    def changes(space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        assert timeout is not None
        assert 0 < timeout <= TIMEOUT
        clock.advance(0.2)
        return Changes({}, Cursor("v", "a"), more=True, whole=cursor is None)

    monkeypatch.setattr(store, "changes", changes)
    with pytest.raises(DependencyUnavailable):
        snapshot.read()
    assert clock.monotonic() - began == pytest.approx(TOTAL, abs=0.21)


def test_damage_is_found_in_changes(store: Watched, snapshot: Snapshot[dict[str, int]], clock: FakeClock) -> None:
    """As in the first content, and it ends with the change that mends it, or with its own end."""
    store.put("s", "a", b"1")
    snapshot.read()
    store.put("s", "b", b"x", seconds=10)
    store.put("s", "a", b"y")
    clock.advance(0.5)
    with pytest.raises(ValueError, match="invalid literal"):
        snapshot.read()
    store.put("s", "a", b"2")
    clock.advance(0.5)
    with pytest.raises(ValueError, match="invalid literal"):
        snapshot.read()
    clock.advance(10)
    assert snapshot.read() == {"a": 2}


# --- real stores -----------------------------------------------------------------------------------------


class Moved(SystemClock):
    """The real clock, which a test can move forward: quiet time passes at once, and everything else as it does."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset

    def monotonic(self) -> float:
        return super().monotonic() + self.offset


@pytest.fixture(params=["sqlite", "valkey"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'state.db'}" if request.param == "sqlite" else request.getfixturevalue("address")


@pytest.mark.parametrize("quiet", [5, 40])
def test_burst_after_a_quiet_time(remote: str, quiet: float) -> None:
    """Eight simultaneous threads all get a change that was made while the worker was idle."""
    clock = Moved()
    store = open_store(remote, None, clock)
    snapshot = Snapshot(store, "s", int, clock, dict[str, int])
    snapshot.read()
    other = open_store(remote, None, SystemClock())
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            other.put("s", "a", b"%d" % number)
            clock.offset += quiet
            start = threading.Barrier(8)
            found = pool.map(lambda _, start=start: (start.wait(), dict(snapshot.read()))[1], range(8))
            assert list(found) == [{"a": number}] * 8


def test_server_that_hangs(tmp_path: Path, socket_waits: list[float | None]) -> None:
    """A stopped server delays a burst briefly; the last content is used for a minute, and then requests are 503."""
    clock = Moved()
    with valkey(tmp_path) as running:
        store = open_store(f"valkey://127.0.0.1:{running.port}", None, clock)
        snapshot = Snapshot(store, "s", int, clock, dict[str, int])
        store.put("s", "a", b"1")
        snapshot.read()
        os.kill(running._process.pid, signal.SIGSTOP)
        try:
            clock.offset += 5
            socket_waits.clear()
            with ThreadPoolExecutor(8) as pool:
                began = time.monotonic()
                found = list(pool.map(lambda _: snapshot.read(), range(8)))
                assert 0.2 < time.monotonic() - began < HANG
            assert_bounded(socket_waits, TIMEOUT)
            assert found == [{"a": 1}] * 8
            clock.offset += 60
            with pytest.raises(DependencyUnavailable):
                snapshot.read()
        finally:
            os.kill(running._process.pid, signal.SIGCONT)
        clock.offset += 1
        assert snapshot.read() == {"a": 1}


def test_all_records_of_a_large_space(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pages are read, within the timeout of each page, and then only changes."""
    for module in (sqlite, redis):
        monkeypatch.setattr(module, "PAGE", 40)
    clock = SystemClock()
    store = open_store(remote, None, clock)
    for number in range(201):
        store.put("s", str(number), b"1")
    snapshot = Snapshot(store, "s", int, clock, dict[str, int])
    assert len(snapshot.read()) == 201
    store.delete("s", "7")
    snapshot.invalidate()
    assert len(snapshot.read()) == 200
