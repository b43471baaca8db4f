"""Records kept in memory: when the store is asked, and what counts while it does not answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.stores.snapshot import Snapshot
from flask_secure_ml.testing import FakeClock


class Watched(MemoryStore):
    """Counts the looks, and can be down or slow."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.looks = 0
        self.down = False
        self.asked = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def version(self, space: str) -> int:
        self.looks += 1
        self.asked.set()
        self.go.wait(10)
        if self.down:
            raise DependencyUnavailable("down")
        return super().version(space)


@pytest.fixture
def store(clock: FakeClock) -> Watched:
    return Watched(clock)


@pytest.fixture
def snapshot(store: Watched, clock: FakeClock) -> Snapshot[int]:
    return Snapshot(store, "s", int, clock)


def test_change_is_seen_within_half_a_second(store: Watched, snapshot: Snapshot[int], clock: FakeClock) -> None:
    """In between, requests pay nothing; the content is the same object until it changes."""
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


def test_store_that_is_down_at_first(store: Watched, snapshot: Snapshot[int], clock: FakeClock) -> None:
    """Without any content nothing can be told; later it can."""
    store.down = True
    with pytest.raises(DependencyUnavailable):
        snapshot.read()
    store.down = False
    with pytest.raises(DependencyUnavailable):
        snapshot.read()
    clock.advance(0.5)
    assert snapshot.read() == {}


def test_old_content_serves_for_a_minute(store: Watched, snapshot: Snapshot[int], clock: FakeClock) -> None:
    """Then the store could know of a change for too long."""
    store.put("s", "a", b"1")
    snapshot.read()
    store.down = True
    clock.advance(59.9)
    assert snapshot.read() == {"a": 1}
    clock.advance(0.1)
    with pytest.raises(DependencyUnavailable):
        snapshot.read()


def test_damaged_record(store: Watched, snapshot: Snapshot[int], clock: FakeClock) -> None:
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


def test_one_thread_asks_and_the_others_go_on(store: Watched, snapshot: Snapshot[int], clock: FakeClock) -> None:
    """A slow store holds up one request at a time."""
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


def test_first_content_is_loaded_once(store: Watched, snapshot: Snapshot[int]) -> None:
    """Threads that need it at the same time wait for the one that loads it."""
    store.put("s", "a", b"1")
    store.go.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(snapshot.read) for _ in range(8)]
        assert store.asked.wait(10)
        store.go.set()
        assert [each.result(10) for each in waiting] == [{"a": 1}] * 8
    assert store.looks == 1


def test_refresh(store: Watched, snapshot: Snapshot[int]) -> None:
    """Who changed something looks at once."""
    snapshot.read()
    store.put("s", "a", b"1")
    assert snapshot.read() == {}
    snapshot.refresh()
    assert snapshot.read() == {"a": 1}


def test_change_while_loading_is_not_missed(
    store: Watched, snapshot: Snapshot[int], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes between the version and the records is found at the next look."""
    items = store.items

    def slow(space: str) -> Mapping[str, bytes]:
        found = items(space)
        store.put("s", "late", b"2")
        monkeypatch.setattr(store, "items", items)
        return found

    monkeypatch.setattr(store, "items", slow)
    assert snapshot.read() == {}
    clock.advance(0.5)
    assert snapshot.read() == {"late": 2}


def test_outage_is_logged_once(
    store: Watched, snapshot: Snapshot[int], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When it begins and when it ends, not twice a second in between."""
    snapshot.read()
    for down in (True, True, True, False, False):
        store.down = down
        clock.advance(0.5)
        snapshot.read()
    assert [each.getMessage() for each in caplog.records] == ["s are not up to date: down", "s are up to date again"]


def test_refusal_says_when_to_come_back(store: Watched, snapshot: Snapshot[int]) -> None:
    """503 with Retry-After, and the private reason names the space."""
    store.down = True
    with pytest.raises(DependencyUnavailable) as caught:
        snapshot.read()
    assert caught.value.extra_headers == (("Retry-After", "1"),)
    assert "about s" in caught.value.reason


def test_quiet_time_makes_the_others_wait(clock: FakeClock) -> None:
    """After a minute without requests the first ones all wait for the store: it is not down, only not asked yet."""

    class Slow(MemoryStore):
        asked, go = threading.Event(), threading.Event()

        def version(self, space: str) -> int:
            self.asked.set()
            self.go.wait(10)
            return super().version(space)

    store = Slow(clock)
    store.go.set()
    snapshot: Snapshot[int] = Snapshot(store, "s", int, clock)
    snapshot.read()
    clock.advance(61)
    store.asked.clear()
    store.go.clear()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(snapshot.read) for _ in range(8)]
        assert store.asked.wait(10)
        store.go.set()
        assert [each.result(10) for each in reads] == [{}] * 8
