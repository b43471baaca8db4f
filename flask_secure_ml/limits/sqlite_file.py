"""The SQLite file in which the workers of one machine count, and the clock with which they measure windows.

Workers serialize on the write lock of SQLite. A worker that finds it taken retries every 50 microseconds: SQLite's own
busy handler starts with a millisecond, and blocks all greenlets of gevent. A file lock (``flock``) would wait in the
kernel, but without a timeout if its holder is suspended, and measurements showed that it is not faster.

Write-ahead mode takes a third of the time of a rollback journal here. The file is not synchronized to the disk: counts
survive the end of any process and an orderly restart of the machine, but a loss of power may damage the file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..principal import Clock
from ..stores.sqlite_connection import SqliteConnection, SqliteFile, connect

log: logging.Logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two updates of the time in the file."""

UNKNOWN = "unknown"
"""The boot id on systems without one."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHORT, _PATIENCE, _LONG = 50e-6, 0.01, 1e-3
_CHECKPOINT_PAGES = 250
_FOLDER_BUSY = 0.1
_CLOCK = """
CREATE TABLE IF NOT EXISTS clock
    (id INTEGER PRIMARY KEY CHECK (id = 0), boot TEXT, shift REAL NOT NULL, seen REAL NOT NULL);
INSERT OR IGNORE INTO clock VALUES (0, NULL, 0, 0);
"""
_HAS_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'clock'"

T = TypeVar("T")


def boot_id() -> str:
    """Return the kernel's id of the current boot, or :data:`UNKNOWN`."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return UNKNOWN


class CounterFile(SqliteFile):
    """A file of counts. If it is removed, it is created again, which resets all limits.

    :param path: the file; created if it is missing, readable by its owner only.
    :param tables: statements that create the tables if they are missing.
    """

    def __init__(self, path: Path, tables: str, clock: Clock) -> None:
        # In one transaction, so that other processes find all tables or none.
        self._tables = f"BEGIN IMMEDIATE; {tables} {_CLOCK} COMMIT;"
        self._was_found = False
        super().__init__(path, self._tables, clock)

    def make(self) -> None:
        """Create the file if it is missing, and delete the remains of a removed one.

        :raises OSError: it cannot be created, or is not a file that this user may write.
        """
        if not self.path.exists():
            with self._alone():
                if not self.path.exists():
                    self._replace_removed()
        super().make()

    def identity(self) -> tuple[int, int]:
        """Return the device and the inode of the file, which is created if it is missing."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self.make()
            found = self.path.stat()
        self._was_found = True
        return found.st_dev, found.st_ino

    def open(self) -> sqlite3.Connection:
        """Return a connection without a busy timeout; the tables are created if they are missing."""
        connection = connect(self.path, 0.0)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            # Frequent small checkpoints instead of rare large ones, so that no request waits long.
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            if connection.execute(_HAS_TABLES).fetchone() is None:
                connection.executescript(self._tables)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _replace_removed(self) -> None:
        # SQLite would use the log and the index of the removed file for the new one.
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        super().make()
        if self._was_found:
            log.warning("%s was removed: limits are counted from zero again", self.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the directory of the file, so that only one process at a time creates the file."""
        folder = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _retried(lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB), time.monotonic() + _FOLDER_BUSY)
            yield
        finally:
            os.close(folder)


class CounterConnection(SqliteConnection):
    """The connection of each process to a file of counts.

    :param clock: its monotonic clock measures time; the system time is used only after a restart of the machine.
    :param timeout: seconds to wait for other threads and processes in total.
    :param boot: identifies the current boot of the machine.
    """

    def __init__(self, file: CounterFile, clock: Clock, timeout: float, boot: str) -> None:
        super().__init__(file)
        self._counts = file
        self._clock = clock
        self._timeout = timeout
        self._boot = boot

    @contextmanager
    def transaction(self) -> Iterator[tuple[sqlite3.Connection, float, bool]]:
        """Yield the connection in a write transaction, the time, and whether the last tick was long ago.

        :raises DependencyUnavailable: the file is damaged, on a full disk, or busy for too long; it is not changed.
        """
        ends = time.monotonic() + self._timeout
        with self.use(self._timeout) as connection:
            _retried(lambda: connection.execute("BEGIN IMMEDIATE"), ends)
            # The time is read in the transaction, so that no process writes an earlier time after a later one.
            now, shift, seen = self._time(connection)
            late = shift is not None or now >= seen + TICK
            if shift is not None:
                connection.execute("UPDATE clock SET boot = ?, shift = ?, seen = ?", (self._boot, shift, now))
            elif late:
                connection.execute("UPDATE clock SET seen = ?", (now,))
            yield connection, now, late
            connection.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Yield the connection in a read transaction, and the time; other processes may write meanwhile.

        :raises DependencyUnavailable: the file is damaged, or another thread takes too long.
        """
        ends = time.monotonic() + self._timeout
        with self.use(self._timeout) as connection:
            connection.execute("BEGIN")
            # The first reader after a worker was killed may have to rebuild the index, while others wait.
            yield connection, _retried(lambda: self._time(connection), ends)[0]
            connection.execute("COMMIT")

    def _current(self, ends: float) -> sqlite3.Connection:
        identity = self._counts.identity()
        if self._connection is None or identity != self._identity:
            self._close()
            self._connection, self._identity = _retried(self._counts.open, ends), identity
        return self._connection

    def _time(self, connection: sqlite3.Connection) -> tuple[float, float | None, float]:
        """Return the time, its offset from the monotonic clock if that is new, and the last stored time.

        The time is continuous across all processes and restarts of the machine.
        """
        boot, shift, seen = only_row(connection, "SELECT boot, shift, seen FROM clock")
        monotonic = self._clock.monotonic()
        now: float = monotonic + shift
        if boot != self._boot or (boot == UNKNOWN and now < seen - TICK):
            now = max(self._clock.now(), seen)
            return now, now - monotonic, seen
        return now, None, seen


def only_row(connection: sqlite3.Connection, statement: str) -> tuple[Any, ...]:
    """Return the row of a table that always has exactly one.

    :raises sqlite3.DatabaseError: it has no row.
    """
    row: tuple[Any, ...] | None = connection.execute(statement).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("a row is missing")
    return row


def _retried(action: Callable[[], T], ends: float) -> T:
    """Call an action again while it fails because of a lock, and return its result."""
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except (sqlite3.OperationalError, BlockingIOError) as error:
            now = time.monotonic()
            if not _is_busy(error) or now >= ends:
                raise
        # Other greenlets can run meanwhile under gevent.
        time.sleep(_SHORT if now < patience else _LONG)


def _is_busy(error: Exception) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    return isinstance(error, OSError) and error.errno in {errno.EAGAIN, errno.EWOULDBLOCK}
