"""The store in a file: private, safe across forks and crashes, and closed when the file was replaced."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import sqlite, sqlite_connection
from flask_secure_ml.stores.sqlite import SqliteStore
from flask_secure_ml.testing import FakeClock
from support import version_of
from waits import HANG

ACTIONS = [
    pytest.param(lambda store: store.add("a", "k", 1), id="add"),
    pytest.param(lambda store: store.put("a", "k", b""), id="put"),
    pytest.param(lambda store: store.get("a", "k"), id="get"),
    pytest.param(lambda store: store.delete("a", "k"), id="delete"),
    pytest.param(lambda store: store.items("a"), id="items"),
    pytest.param(lambda store: store.changes("a", None), id="changes"),
]
PRELUDE = """
import os, sys
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1], SystemClock())
"""
# The parent has the file open, forks, and ends first: SQLite would then throw away what the child writes after that.
FORK = (
    PRELUDE
    + """
store.put("a", "parent", b"")
back, forth = os.pipe(), os.pipe()
if os.fork() == 0:
    store.put("a", "child early", b"")
    os.write(back[1], b"x")
    os.read(forth[0], 1)
    store.put("a", "child late", b"")
    os._exit(0)
os.read(back[0], 1)
store.put("a", "parent late", b"")
del store
os.write(forth[1], b"x")
os.wait()
"""
)
KILLED = (
    PRELUDE
    + """
store.put("a", "k", b"1")
store.add("a", "k", 3600)
os.kill(os.getpid(), 9)
"""
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path, clock: FakeClock) -> SqliteStore:
    return SqliteStore(path, clock)


def run(code: str, path: Path) -> int:
    return subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False).returncode


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def test_only_the_owner_can_read_it(path: Path, clock: FakeClock) -> None:
    """The file and the additional files of SQLite, for any umask."""
    mask = os.umask(0)
    try:
        store = SqliteStore(path, clock)
        store.put("a", "k", b"1")
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600)


def test_open_file_is_named(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A user who can write to it can undo revocations, so the log has the command that restricts it."""
    path.touch(0o600)
    SqliteStore(path, clock)
    assert caplog.text == ""
    path.chmod(0o644)
    SqliteStore(path, clock)
    assert f"{path} can be read or written by users other than its owner; run chmod 600" in caplog.text


def test_state_survives_the_process(path: Path, store: SqliteStore) -> None:
    """Also one that is killed the moment after."""
    assert run(KILLED, path) == -signal.SIGKILL
    assert store.get("a", "k") == b"1"
    assert not SqliteStore(path, SystemClock()).add("a", "k", 60)


def test_what_a_child_writes_is_kept(path: Path, store: SqliteStore) -> None:
    """A server may use the store before it forks, and the parent may end before the child."""
    assert run(FORK, path) == 0
    assert list(store.items("a")) == ["child early", "child late", "parent", "parent late"]


def test_connection_ends_with_the_store(path: Path, clock: FakeClock) -> None:
    """All connections are closed, and the additional files of SQLite are removed."""
    store = SqliteStore(path, clock)
    store.put("a", "k", b"1")
    del store
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


def test_processes_that_start_at_once(path: Path) -> None:
    """The file is made by one, and found by all."""
    code = PRELUDE + "assert store.add('a', str(os.getpid()), 60)"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(8)]
    assert [each.wait(60) for each in running] == [0] * 8


LAST = PRELUDE + 'store.put("a", "other", b"")'


def test_second_store_of_one_process(path: Path, store: SqliteStore) -> None:
    """Opening it does not end the locks of the first: another process would take itself for the last, and clean up."""
    store.put("a", "first", b"")
    second = SqliteStore(path, SystemClock())
    assert run(LAST, path) == 0
    store.put("a", "late", b"")
    second.put("a", "second", b"")
    assert list(SqliteStore(path, SystemClock()).items("a")) == ["first", "late", "other", "second"]
    assert path.with_name("state.db-wal").exists()


FULL_DISK = """
import logging, os, resource, sys
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
lines = []
logging.getLogger().addHandler(type("Lines", (logging.Handler,), {"emit": lambda _, record: lines.append(record)})())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, hard))
store = open_store("sqlite:" + sys.argv[1], None, SystemClock())
for _ in range(3):
    for action in (lambda: store.put("a", "k", b"1" * 100_000), lambda: store.add("a", "k", 60)):
        try:
            action()
        except DependencyUnavailable as error:
            assert dict(error.extra_headers)["Retry-After"] == "1"
        else:
            raise SystemExit("no error")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert store.put("a", "k", b"1") and store.add("a", "k", 60) and dict(store.items("a")) == {"k": b"1"}
assert [each.levelname for each in lines] == ["ERROR", "WARNING"], lines
"""


@pytest.mark.parametrize("limit", [0, 8192], ids=["nothing fits", "the file fits"])
def test_disk_that_is_full_at_start(path: Path, limit: int) -> None:
    """The store opens, is unavailable until there is space, and logs both once; the worker starts."""
    assert run(FULL_DISK.replace("BYTES", str(limit)), path) == 0


def test_disk_that_is_full_for_an_existing_file(path: Path) -> None:
    """The same if another worker created the file before."""
    SqliteStore(path, SystemClock()).put("b", "k", b"")
    assert run(FULL_DISK.replace("BYTES", "0"), path) == 0


@pytest.mark.parametrize("action", ACTIONS)
def test_file_that_is_gone(store: SqliteStore, path: Path, action: Callable[[Any], object]) -> None:
    """It could have had a revocation: every response is 503, and no empty file replaces it."""
    store.put("a", "k", b"1")
    path.unlink()
    with pytest.raises(DependencyUnavailable) as caught:
        action(store)
    assert str(path) in caught.value.reason
    assert ("Retry-After", "1") in caught.value.extra_headers
    assert not path.exists()


def test_file_that_was_replaced(store: SqliteStore, path: Path, clock: FakeClock) -> None:
    """The file that has the name counts, not the one that was opened, and its version is another one."""
    store.put("a", "k", b"1")
    version = version_of(store, "a")
    other = SqliteStore(path.with_name("other.db"), clock)
    other.put("a", "k", b"2")
    del other
    for each in path.parent.glob("state.db-*"):
        each.unlink()
    path.with_name("other.db").rename(path)
    assert (store.get("a", "k"), version_of(store, "a") == version) == (b"2", False)


@pytest.mark.parametrize("action", ACTIONS)
def test_damaged_file(path: Path, clock: FakeClock, action: Callable[[Any], object]) -> None:
    """503 for as long as it is damaged."""
    store = SqliteStore(path, clock)
    path.write_bytes(b"not a database" * 1000)
    for _ in range(2):
        with pytest.raises(DependencyUnavailable, match="503"):
            action(store)


@pytest.fixture
def busy_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts passed to SQLite for waiting on locks, in order."""
    noted: list[float] = []
    connect = sqlite3.connect

    def note(statement: str) -> None:
        if found := re.fullmatch(r"PRAGMA busy_timeout = ([0-9]+)", statement):
            noted.append(int(found[1]) / 1000)

    def noting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        # Those of the test itself wait as they like.
        if "timeout" in options:
            noted.append(options["timeout"])
            connection.set_trace_callback(note)
        return connection

    monkeypatch.setattr(sqlite3, "connect", noting)
    return noted


def test_file_that_somebody_else_writes(
    busy_waits: list[float], store: SqliteStore, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request waits only for its own short timeout; reading still works."""
    assert store.add("a", "before", 60)
    monkeypatch.setattr(sqlite_connection, "BUSY", 0.05)
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        busy_waits.clear()
        began = time.monotonic()
        with pytest.raises(DependencyUnavailable) as caught:
            store.add("a", "k", 60)
        assert time.monotonic() - began < HANG
        assert busy_waits
        assert max(busy_waits) <= 0.05
        assert "locked" in caught.value.reason
        assert store.get("a", "k") is None
        connection.execute("ROLLBACK")
    assert store.add("a", "k", 60)


def test_reader_does_not_wait_for_a_writer(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for another process nor for a thread of this one that is waiting to write."""
    store.put("a", "k", b"1")
    monkeypatch.setattr(sqlite_connection, "BUSY", HANG)
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=lambda: failing(store))
        waiting.start()
        found = [store.changes("a", None, timeout=0.25).records.keys() for _ in range(20)]
        assert found == [{"k"}] * 20
        assert waiting.is_alive()
        connection.execute("ROLLBACK")
        waiting.join(10)


def failing(store: SqliteStore) -> None:
    with suppress(DependencyUnavailable):
        store.put("a", "l", b"2")


def test_locked_file(busy_waits: list[float], store: SqliteStore, path: Path) -> None:
    """A file that is locked exclusively is given up at the caller's timeout, with its connection."""
    store.put("a", "k", b"1")
    store._writer._close()
    with opened(path) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        for _ in range(2):
            busy_waits.clear()
            began = time.monotonic()
            with pytest.raises(DependencyUnavailable) as caught:
                store.changes("a", None, timeout=0.25)
            assert 0.2 < time.monotonic() - began < HANG
            assert busy_waits
            assert max(busy_waits) <= 0.25
            assert "locked" in caught.value.reason
        connection.execute("ROLLBACK")
    assert store.changes("a", None, timeout=0.25).records.keys() == {"k"}


def test_file_that_was_restored_in_its_place(store: SqliteStore, path: Path) -> None:
    """A backup has numbers of its own for the changes that came after it."""
    store.put("a", "k", b"1")
    with opened(path) as connection, closing(sqlite3.connect(":memory:", isolation_level=None)) as backup:
        connection.backup(backup)
        store.put("a", "k", b"2")
        cursor = store.changes("a", None).cursor
        backup.backup(connection)
    store.put("a", "l", b"3")
    found = store.changes("a", cursor)
    assert found.cursor.version.partition("-")[0] == cursor.version.partition("-")[0]
    assert (found.whole, dict(store.items("a"))) == (True, {"k": b"1", "l": b"3"})


def test_thread_that_takes_long(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it wait for another thread of its own process for longer."""
    monkeypatch.setattr(sqlite_connection, "BUSY", 0.05)
    with store._writer.use(), pytest.raises(DependencyUnavailable) as caught:
        store.put("a", "k", b"")
    assert "busy" in caught.value.reason
    with store._reader.use(), pytest.raises(DependencyUnavailable) as caught:
        store.get("a", "k")
    assert "busy" in caught.value.reason
    assert store.get("a", "k") is None


def test_change_that_breaks_off_is_undone(store: SqliteStore) -> None:
    """A record and its version change together or not at all, also for the next change."""
    version = version_of(store, "a")

    def interrupt() -> None:
        with store._changing("a", 0.0) as connection:
            connection.execute(sqlite._PUT, ("a", "k", None, b"1", False))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (store.get("a", "k"), version_of(store, "a")) == (None, version)
    assert store.put("a", "l", b"2")
    assert list(store.items("a")) == ["l"]


def test_file_does_not_grow_with_time(
    store: SqliteStore, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired entries are deleted once a minute, records at the next change, and only recent changes are kept."""
    monkeypatch.setattr(sqlite, "KEPT_CHANGES", 50)
    for number in range(300):
        store.add("a", str(number), 5)
        store.put("a", str(number), b"x", seconds=5)
        clock.advance(1)
    with opened(path) as connection:
        (seen,) = connection.execute("SELECT count(*) FROM secure_ml_seen").fetchone()
        (records,) = connection.execute("SELECT count(*) FROM secure_ml_records").fetchone()
        (changes,) = connection.execute("SELECT count(*) FROM secure_ml_changes").fetchone()
    assert seen <= sqlite.SWEEP_SECONDS + 5
    assert records <= 6
    assert changes == 50


def test_sweep_takes_little_at_once(
    store: SqliteStore, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request does not delete all of them; the next ones continue."""
    monkeypatch.setattr(sqlite, "SWEEP_ROWS", 4)
    for number in range(10):
        store.add("a", str(number), 5)
    clock.advance(100)
    left = []
    for number in range(4):
        store.add("b", str(number), 1000)
        with opened(path) as connection:
            left += connection.execute("SELECT count(*) FROM secure_ml_seen WHERE space = 'a'").fetchone()
    assert left == [6, 2, 0, 0]


def test_threads_share_one_connection(store: SqliteStore) -> None:
    """A server with a thread for each request opens no file for each of them."""
    found: list[object] = []

    def note() -> None:
        with store._writer.use() as connection:
            found.append(connection)

    threads = [threading.Thread(target=note) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_records_are_on_the_disk_before_anyone_is_told(store: SqliteStore) -> None:
    """They survive a power failure; remembered keys are not synced."""
    with store._changing("a", 0.0) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    with store._writer.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_steps_of_a_fork(store: SqliteStore) -> None:
    """Closed before it and opened after it, in the parent and in the child."""
    file = store._writer
    for after in (file.after_fork_in_parent, file.after_fork_in_child):
        store.put("a", "k", b"1")
        states = [file._connection]
        file.before_fork()
        states.append(file._connection)
        after()
        assert [each is None for each in states] == [False, True]
        assert store.get("a", "k") == b"1"
        assert file._inherited == []


def test_untold_child_leaves_what_it_inherits(store: SqliteStore) -> None:
    """A connection of the parent is neither used nor closed."""
    store.put("a", "k", b"1")
    inherited = store._writer._connection
    store._writer.after_fork_in_child()
    assert store.delete("a", "k")
    assert store._writer._connection not in {None, inherited}
    assert store._writer._inherited == [inherited]
    assert inherited is not None
    inherited.execute("SELECT 1")
    inherited.close()


def test_opening_waits_for_another_worker(tmp_path: Path, clock: FakeClock) -> None:
    """Workers start at the same moment; one that finds the new file in use takes its turn."""
    path = tmp_path / "state.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.2, other.rollback)
    release.start()
    assert SqliteStore(path, clock).add("a", "k", 60)
    release.join()
    other.close()
