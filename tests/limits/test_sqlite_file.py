"""The shared counter file after it was replaced or damaged."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from counter_files import HOURLY, IN_FLIGHT, KEY, charge, lease, opened, used
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import Settlement
from flask_secure_ml.limits.rules import key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.testing import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db-limits"


@pytest.fixture
def counters(path: Path, clock: FakeClock) -> SqliteCounters:
    return SqliteCounters(path, clock)


def test_only_the_owner_can_read_it(path: Path, clock: FakeClock) -> None:
    """The file and the additional files of SQLite, for any umask."""
    mask = os.umask(0)
    try:
        counters = SqliteCounters(path, clock)
        charge(counters)
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)


def test_counts_survive_the_workers(path: Path, clock: FakeClock) -> None:
    """A quota continues after all workers were replaced."""
    counters = SqliteCounters(path, clock)
    charge(counters, 7)
    del counters
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert used(SqliteCounters(path, clock)) == [7]


def test_file_that_was_removed(
    counters: SqliteCounters, path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The limits start from zero, for all workers together, and one of them logs it."""
    other = SqliteCounters(path, clock)
    for each in (counters, other):
        charge(each, 5)
    path.unlink()
    assert [charge(each).counts[0].used for each in (counters, other, counters)] == [1, 2, 3]
    assert [each.getMessage() for each in caplog.records] == [f"{path} was removed: limits are counted from zero again"]


def test_file_that_was_replaced(counters: SqliteCounters, path: Path, clock: FakeClock) -> None:
    """The file that has the name counts."""
    charge(counters, 5)
    other = SqliteCounters(path.with_name("other"), clock)
    charge(other, 2)
    del other
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    path.with_name("other").rename(path)
    assert used(counters) == [2]


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\x00" + b"\xff" * 8176])
def test_damaged_file(path: Path, counters: SqliteCounters, content: bytes) -> None:
    """503 while it is damaged; counting continues when it is repaired."""
    charge(counters, 3)
    with opened(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = path.read_bytes()
    actions: list[Any] = [
        lambda: charge(counters),
        lambda: used(counters),
        lambda: counters.settle([Settlement(KEY, HOURLY, (0,), (0.0,), lease(1))]),
        lambda: counters.renew([(KEY, IN_FLIGHT, lease(1))]),
        lambda: counters.clear(KEY),
        counters.callers,
    ]
    path.with_name("copy").write_bytes(content)
    path.with_name("copy").rename(path)
    for action in actions:
        with pytest.raises(DependencyUnavailable, match="503"):
            action()
    path.with_name("copy").write_bytes(good)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.with_name("copy").rename(path)
    assert used(counters) == [3]


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("UPDATE counters SET windows = x'00'", KEY),
        ("UPDATE counters SET penalty = 'x'", KEY),
        ("DELETE FROM clock", KEY),
        ("DELETE FROM size", key_of("new")),
        ("DROP TABLE size", key_of("new")),
        ("DROP TABLE counters", KEY),
    ],
)
def test_damaged_content(path: Path, counters: SqliteCounters, damage: str, key: bytes) -> None:
    """It is a fault of the store like others."""
    charge(counters)
    with opened(path) as connection:
        connection.execute(damage)
    with pytest.raises(DependencyUnavailable):
        charge(counters, key=key)


def test_empty_file(path: Path, counters: SqliteCounters) -> None:
    """One that was emptied gets its tables again."""
    charge(counters, 3)
    path.with_name("empty").touch(0o600)
    path.with_name("empty").rename(path)
    assert charge(counters).counts[0].used == 1


def test_file_that_another_worker_creates(path: Path, clock: FakeClock) -> None:
    """Other workers wait briefly, and count when it is created."""
    counters = SqliteCounters(path, clock, timeout=0.05)
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(DependencyUnavailable):
        charge(counters)
    assert not path.exists()
    os.close(folder)
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(DependencyUnavailable):
            charge(counters)
        connection.execute("ROLLBACK")
    assert charge(counters).counts[0].used == 1


def test_file_that_can_never_work(path: Path, clock: FakeClock) -> None:
    """It is a fault of the configuration, reported when the app starts."""
    for bad in (path.parent, path / "missing"):
        with pytest.raises(ValueError, match="failed"):
            SqliteCounters(bad, clock)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="not a database"):
        SqliteCounters(path, clock)
