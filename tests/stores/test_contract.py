"""The contract of all stores: in memory, in a SQLite file, on a Valkey server."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.stores import SharedStore, memory, open_store, sqlite
from flask_secure_ml.stores import redis as server
from flask_secure_ml.stores.base import Cursor, Record
from flask_secure_ml.testing import FakeClock
from support import version_of

THREADS = 8
PROCESSES = 4
KEYS = 200
ADD_ALL = """
import sys
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
store = open_store(sys.argv[1], None, SystemClock())
print("ready", flush=True)
sys.stdin.readline()
print(sum(store.add("seen", f"key {number}", 60) for number in range(int(sys.argv[2]))))
"""
STRANGE = [
    pytest.param("", id="empty"),
    pytest.param("a\nb\0c", id="control characters"),
    pytest.param("{x}:y*?[", id="signs that mean something to Redis"),
    pytest.param("o'; DROP TABLE secure_ml_records; --", id="SQL"),
    pytest.param("snowman ☃ 😀", id="beyond ASCII"),
    pytest.param("k" * 5000, id="long"),
]


def test_add_once(store: SharedStore) -> None:
    """A key is new once; other keys and other spaces are independent."""
    added = [store.add(*where, 60) for where in (("a", "k"), ("a", "k"), ("a", "l"), ("b", "k"), ("b", "k"))]
    assert added == [True, False, True, True, False]


def test_add_is_no_record(store: SharedStore) -> None:
    """Remembered keys and stored records are separate, and no version changes."""
    version = version_of(store, "a")
    store.add("a", "k", 60)
    assert (store.get("a", "k"), store.items("a"), store.delete("a", "k")) == (None, {}, False)
    store.put("a", "l", b"1")
    assert store.add("a", "l", 60)
    before = version_of(store, "a")
    store.add("a", "m", 60)
    assert version_of(store, "a") == before != version


def test_records(store: SharedStore) -> None:
    """A record is stored, replaced and forgotten."""
    assert store.get("a", "k") is None
    assert store.put("a", "k", b"1")
    assert store.put("a", "k", b"2")
    assert (store.get("a", "k"), store.get("b", "k")) == (b"2", None)
    assert [store.delete("a", "k"), store.delete("a", "k")] == [True, False]
    assert store.get("a", "k") is None


def test_new_record(store: SharedStore) -> None:
    """Of two concurrent creations of a key, the first succeeds."""
    assert store.put("a", "k", b"1", new=True)
    assert not store.put("a", "k", b"2", new=True)
    assert store.get("a", "k") == b"1"
    store.delete("a", "k")
    assert store.put("a", "k", b"3", new=True)


def test_items_are_in_order(store: SharedStore) -> None:
    """All records of one space, by key."""
    for key in ("b", "a", "c"):
        store.put("x", key, key.encode())
    store.put("y", "d", b"")
    assert list(store.items("x").items()) == [("a", b"a"), ("b", b"b"), ("c", b"c")]
    assert dict(store.items("y")) == {"d": b""}
    assert dict(store.items("z")) == {}


@pytest.mark.parametrize("key", STRANGE)
def test_strange_keys(store: SharedStore, key: str) -> None:
    """A key may be any string."""
    value = b"0\n\x00\xff\r\n" + key.encode()
    assert store.put("a", key, value)
    assert (store.get("a", key), dict(store.items("a"))) == (value, {key: value})
    assert [store.add("a", key, 60), store.add("a", key, 60)] == [True, False]
    assert store.delete("a", key)


def test_record_that_is_over(store: SharedStore, clock: FakeClock) -> None:
    """It is there until its time, and then as if it had never been; one without an end stays."""
    store.put("a", "k", b"1", seconds=10)
    store.put("a", "l", b"2")
    clock.advance(9.9)
    assert dict(store.items("a")) == {"k": b"1", "l": b"2"}
    clock.advance(0.2)
    assert (store.get("a", "k"), dict(store.items("a")), store.delete("a", "k")) == (None, {"l": b"2"}, False)
    store.put("a", "k", b"3", seconds=10)
    clock.advance(10.1)
    assert store.put("a", "k", b"4", new=True)
    assert store.get("a", "k") == b"4"


def test_renewed_record(store: SharedStore, clock: FakeClock) -> None:
    """The last put determines the expiry."""
    store.put("a", "k", b"1", seconds=10)
    store.put("a", "k", b"2", seconds=100)
    clock.advance(50)
    assert store.get("a", "k") == b"2"
    store.put("a", "k", b"3")
    clock.advance(1e9)
    assert store.get("a", "k") == b"3"


def test_key_is_new_again_after_its_time(store: SharedStore, clock: FakeClock, uri: str) -> None:
    """Remembered to the end, and no longer."""
    if uri.startswith("valkey"):
        pytest.skip("by the server's own clock; see test_redis.py")
    store.add("a", "long", 100)
    assert store.add("a", "k", 10)
    clock.advance(9.9)
    assert not store.add("a", "k", 10)
    clock.advance(0.2)
    assert [store.add("a", "k", 10), store.add("a", "k", 10)] == [True, False]
    assert not store.add("a", "long", 100)


def test_version(store: SharedStore) -> None:
    """It is another one after each change, in that space only."""
    found = [version_of(store, "a")]
    changes: list[Callable[[], bool]] = [
        lambda: store.put("a", "k", b"1"),
        lambda: store.put("a", "k", b"1"),
        lambda: store.put("a", "l", b"2", seconds=5),
        lambda: store.delete("a", "k"),
    ]
    for change in changes:
        change()
        found.append(version_of(store, "a"))
        store.put("b", "k", b"1")
        assert version_of(store, "a") == found[-1]
    assert len(set(found)) == len(found)


# --- what changed since --------------------------------------------------------------------------------------


class Reader:
    """Follows the changes of a space, like a worker; records how many records it got."""

    def __init__(self, store: SharedStore, space: str = "a") -> None:
        self._store = store
        self._space = space
        self._cursor: Cursor | None = None
        self.records: dict[str, bytes] = {}
        self.given: list[int] = []
        self.began = 0

    def follow(self, steps: int = 1000) -> dict[str, bytes]:
        """Read pages to the end, or for some steps."""
        self.given = []
        for _ in range(steps):
            changes = self._store.changes(self._space, self._cursor)
            if changes.whole:
                self.began += 1
                self.records.clear()
            for key, record in changes.records.items():
                self.records.pop(key, None)
                if record is not None:
                    self.records[key] = record.value
            self._cursor = changes.cursor
            self.given.append(len(changes.records))
            if not changes.more:
                return self.records
        return self.records


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores with short pages and a short memory."""
    for module in (memory, sqlite, server):
        monkeypatch.setattr(module, "KEPT_CHANGES", 20)
    for module in (sqlite, server):
        monkeypatch.setattr(module, "PAGE", 3)


def test_reader_is_given_what_changed(store: SharedStore) -> None:
    """A change costs each reader one record, however many there are."""
    for number in range(50):
        store.put("a", str(number), b"1")
    reader = Reader(store)
    assert (len(reader.follow()), reader.given) == (50, [50])
    assert (len(reader.follow()), reader.given) == (50, [0])
    store.put("a", "7", b"2")
    store.delete("a", "8")
    store.delete("a", "none")
    store.put("a", "9", b"3", new=True)
    store.put("b", "1", b"4")
    assert (reader.follow()["7"], reader.given, reader.began) == (b"2", [2], 1)
    assert reader.records == store.items("a")


def test_reader_knows_how_long(store: SharedStore, clock: FakeClock) -> None:
    """A record has its expiry; an expired one does not exist."""
    store.put("a", "short", b"1", seconds=10)
    store.put("a", "long", b"2")
    clock.advance(4)
    first = store.changes("a", None)
    assert first.records["long"] == Record(b"2", None)
    short = first.records["short"]
    assert short is not None
    assert short.seconds == pytest.approx(6, abs=0.01)
    store.put("a", "brief", b"3", seconds=1)
    clock.advance(7)
    assert store.changes("a", first.cursor).records == {"brief": None}
    assert {key for key, record in store.changes("a", None).records.items() if record} == {"long"}


@pytest.mark.usefixtures("small")
def test_records_come_in_pages(store: SharedStore, uri: str) -> None:
    """Changes during a full read are not missed, and deleted records are not kept."""
    if uri == "memory:":
        pytest.skip("has one page")
    for number in range(10):
        store.put("a", f"k{number}", b"1")
    reader = Reader(store)
    reader.follow(2)
    assert sorted(reader.records) == ["k0", "k1", "k2", "k3", "k4", "k5"]
    store.delete("a", "k0")
    store.put("a", "k1", b"2")
    store.delete("a", "k9")
    store.put("a", "k10", b"3")
    assert reader.follow() == store.items("a")
    assert (reader.began, max(reader.given)) == (1, 3)


@pytest.mark.usefixtures("small")
def test_reader_that_missed_too_much(store: SharedStore) -> None:
    """The store forgets old changes, and a reader that was away begins again; one that follows does not."""
    reader, away = Reader(store), Reader(store)
    for number in range(300):
        if number in {0, 200}:
            away.follow()
        store.put("a", str(number % 7), b"%d" % number)
        reader.follow()
    store.delete("a", "3")
    assert reader.follow() == away.follow() == store.items("a")
    assert (reader.began, away.began) == (1, 3)


def test_reader_of_another_history(store: SharedStore) -> None:
    """A version that the store does not have means that it is not the one that was read."""
    store.put("a", "k", b"1")
    for version in ("", "1-0", "2-99", "999999-1"):
        for after in (None, "k"):
            found = store.changes("a", Cursor(version, after))
            assert (found.whole, list(found.records)) == (True, ["k"])


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["put", "short", "new", "delete", "wait", "follow", "page"]), st.sampled_from("abcdefgh")
        ),
        max_size=60,
    )
)
@pytest.mark.usefixtures("small")
def test_reader_has_what_the_store_has(steps: list[tuple[str, str]], uri: str) -> None:
    """After any changes and reads in any order; the reader drops records that expire in between."""
    clock = FakeClock()
    store = open_store(uri, None, clock)
    space = f"space {secrets.token_hex(8)}"
    reader = Reader(store, space)
    for number, (step, key) in enumerate(steps):
        value = b"%d" % number
        if step in {"put", "new"}:
            store.put(space, key, value, new=step == "new")
        elif step == "short":
            store.put(space, key, value, seconds=2)
        elif step == "delete":
            store.delete(space, key)
        elif step == "wait":
            clock.advance(1)
        else:
            reader.follow(1 if step == "page" else 1000)
    found = reader.follow()
    items = store.items(space)
    assert {key: value for key, value in found.items() if key in items} == items
    assert all(store.get(space, key) is None for key in found.keys() - items.keys())


# --- threads, processes and machines -------------------------------------------------------------------------


def test_threads_race(store: SharedStore) -> None:
    """Of eight threads that present the same thing at once, exactly one is the first."""
    start = Barrier(THREADS)

    def race(thread: int) -> list[tuple[bool, bool]]:
        start.wait()
        return [
            (store.add("seen", str(number), 60), store.put("new", str(number), b"%d" % thread, new=True))
            for number in range(50)
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(zip(*pool.map(race, range(THREADS)), strict=True))
    assert [sum(added for added, _ in each) for each in outcomes] == [1] * 50
    assert [sum(stored for _, stored in each) for each in outcomes] == [1] * 50


def test_processes_race(uri: str) -> None:
    """Also of several processes exactly one is the first."""
    if uri == "memory:":
        pytest.skip("is for one process")
    command = [sys.executable, "-c", ADD_ALL, uri, str(KEYS)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for each in running:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    assert sum(int(each.communicate(timeout=60)[0]) for each in running) == KEYS


def test_what_others_see(uri: str, clock: FakeClock) -> None:
    """``shared`` is correct: another store with the same URI has all data, or none."""
    one, other = (open_store(uri, None, clock) for _ in range(2))
    one.put("a", "k", b"1")
    one.add("a", "k", 60)
    assert one.shared is other.shared is (uri != "memory:")
    assert (other.get("a", "k") == b"1") is one.shared
    assert other.add("a", "k", 60) is not one.shared
    assert (version_of(other, "a") == version_of(one, "a")) is one.shared
