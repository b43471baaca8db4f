"""What every store does, whichever it is: in memory, in a SQLite file, on a Valkey server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from flask_secure_ml.stores import SharedStore
from flask_secure_ml.stores.open import open_store
from flask_secure_ml.testing import FakeClock

THREADS = 8
PROCESSES = 4
KEYS = 200
ADD_ALL = """
import sys
from flask_secure_ml.exchange import SystemClock
from flask_secure_ml.stores.open import open_store
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
    """A key is new once; another key and another space have nothing to do with it."""
    added = [store.add(*where, 60) for where in (("a", "k"), ("a", "k"), ("a", "l"), ("b", "k"), ("b", "k"))]
    assert added == [True, False, True, True, False]


def test_add_is_no_record(store: SharedStore) -> None:
    """What is remembered and what is stored do not meet, and no version moves."""
    version = store.version("a")
    store.add("a", "k", 60)
    assert (store.get("a", "k"), store.items("a"), store.delete("a", "k")) == (None, {}, False)
    store.put("a", "l", b"1")
    assert store.add("a", "l", 60)
    before = store.version("a")
    store.add("a", "m", 60)
    assert store.version("a") == before != version


def test_records(store: SharedStore) -> None:
    """A record is stored, replaced and forgotten."""
    assert store.get("a", "k") is None
    assert store.put("a", "k", b"1")
    assert store.put("a", "k", b"2")
    assert (store.get("a", "k"), store.get("b", "k")) == (b"2", None)
    assert [store.delete("a", "k"), store.delete("a", "k")] == [True, False]
    assert store.get("a", "k") is None


def test_new_record(store: SharedStore) -> None:
    """Of two that want the same new key the first has it."""
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
    """A key is text, whatever is in it."""
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
    """The last put says how long."""
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
    found = [store.version("a")]
    changes: list[Callable[[], bool]] = [
        lambda: store.put("a", "k", b"1"),
        lambda: store.put("a", "k", b"1"),
        lambda: store.put("a", "l", b"2", seconds=5),
        lambda: store.delete("a", "k"),
    ]
    for change in changes:
        change()
        found.append(store.version("a"))
        store.put("b", "k", b"1")
        assert store.version("a") == found[-1]
    assert len(set(found)) == len(found)


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
    """``shared`` tells the truth: another store at the same address sees everything, or nothing."""
    one, other = (open_store(uri, None, clock) for _ in range(2))
    one.put("a", "k", b"1")
    one.add("a", "k", 60)
    assert one.shared is other.shared is (uri != "memory:")
    assert (other.get("a", "k") == b"1") is one.shared
    assert other.add("a", "k", 60) is not one.shared
    assert (other.version("a") == one.version("a")) is one.shared
