"""A store for all processes of one machine: a SQLite file that only its owner can read."""

from __future__ import annotations

import logging
import math
import os
import secrets
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from ..principal import Clock
from .base import KEPT_CHANGES, PAGE, Changes, Cursor, Record, all_items, unavailable

SWEEP_SECONDS = 60.0
"""Seconds between two times that a process deletes what is over."""

SWEEP_ROWS = 10_000
"""The most rows that are deleted at once, so that no request pays for all of them."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS secure_ml_seen
    (space TEXT NOT NULL, key TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS secure_ml_seen_until ON secure_ml_seen (until);
CREATE TABLE IF NOT EXISTS secure_ml_records
    (space TEXT NOT NULL, key TEXT NOT NULL, until REAL, value BLOB NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS secure_ml_records_until ON secure_ml_records (space, until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS secure_ml_changes
    (space TEXT NOT NULL, number INTEGER NOT NULL, tag TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (space, number))
    WITHOUT ROWID;
"""
_ADD = """
INSERT INTO secure_ml_seen VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ?
"""
_PUT = """
INSERT INTO secure_ml_records VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET until = excluded.until, value = excluded.value WHERE NOT ?
"""
_GET = "SELECT value FROM secure_ml_records WHERE space = ? AND key = ? AND (until IS NULL OR until > ?)"
_DELETE = "DELETE FROM secure_ml_records WHERE space = ? AND key = ?"
_EXPIRE = "DELETE FROM secure_ml_records WHERE space = ? AND until <= ?"
_CHANGE = """
INSERT INTO secure_ml_changes
SELECT :space, coalesce(max(number), 0) + 1, :tag, :key FROM secure_ml_changes WHERE space = :space
"""
_PRUNE = """
DELETE FROM secure_ml_changes
WHERE space = :space AND number <= (SELECT max(number) FROM secure_ml_changes WHERE space = :space) - :kept
"""
_VERSION = "SELECT number, tag FROM secure_ml_changes WHERE space = ? ORDER BY number DESC LIMIT 1"
_KNOWN = "SELECT 1 FROM secure_ml_changes WHERE space = ? AND number = ? AND tag = ?"
_CHANGED = """
SELECT number, tag, changed.key, value, until FROM secure_ml_changes AS changed
LEFT JOIN secure_ml_records AS records ON records.space = changed.space AND records.key = changed.key
WHERE changed.space = ? AND number > ? ORDER BY number LIMIT ?
"""
_FIRST = "SELECT key, value, until FROM secure_ml_records WHERE space = ? ORDER BY key LIMIT ?"
_NEXT = "SELECT key, value, until FROM secure_ml_records WHERE space = ? AND key > ? ORDER BY key LIMIT ?"
_SWEEP = """
DELETE FROM secure_ml_seen WHERE (space, key) IN
    (SELECT space, key FROM secure_ml_seen WHERE until <= ? ORDER BY until LIMIT ?)
"""


class SqliteStore:
    """Keeps everything in one file, in write-ahead mode, which needs a local disk.

    :param path: the file; it is made where it is missing, readable by its owner only.
    :param clock: tells when an entry is over; its time is that of the wall, as processes come and go.
    :raises DependencyUnavailable: the file cannot be opened or is no database.
    """

    shared = True

    def __init__(self, path: str | Path, clock: Clock) -> None:
        self._file = SqliteFile(Path(path), _SCHEMA)
        # Readers do not wait for whoever writes, in this process as in others.
        self._reader = SqliteFile(Path(path))
        self._clock = clock
        self._sweep_at = -math.inf

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Remember a key for a time; False when it is remembered already, by whatever process."""
        now = self._clock.now()
        with self._file.use() as connection:
            added = connection.execute(_ADD, (space, key, now + seconds, now)).rowcount > 0
            self._sweep(connection, now)
        return added

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; False, and nothing stored, when ``new`` is wanted and the key is taken."""
        now = self._clock.now()
        until = None if seconds is None else now + seconds
        return self._change(space, key, now, _PUT, (space, key, until, value, new))

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        with self._reader.use() as connection:
            row = connection.execute(_GET, (space, key, self._clock.now())).fetchone()
        return None if row is None else bytes(row[0])

    def delete(self, space: str, key: str) -> bool:
        """Forget a record; False when there is none."""
        return self._change(space, key, self._clock.now(), _DELETE, (space, key))

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, in the order of their keys."""
        return all_items(self, space)

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return what was put and deleted since a cursor, or the first of all records."""
        now = self._clock.now()
        with self._reader.use(timeout) as connection:
            # One transaction, so that the version and the records are of one instant.
            connection.execute("BEGIN")
            found = self._changes(connection, space, cursor, now)
            connection.execute("COMMIT")
        return found

    def _changes(self, connection: sqlite3.Connection, space: str, cursor: Cursor | None, now: float) -> Changes:
        version = _version(connection, space)
        if cursor is None or not _knows(connection, space, version, cursor.version):
            rows = connection.execute(_FIRST, (space, PAGE)).fetchall()
            return _page(rows, version, version, now, whole=True)
        if cursor.after is not None:
            rows = connection.execute(_NEXT, (space, cursor.after, PAGE)).fetchall()
            return _page(rows, cursor.version, version, now, whole=False)
        if cursor.version == version:
            return Changes({}, cursor, more=False, whole=False)
        number = cursor.version.partition("-")[0]
        changed = connection.execute(_CHANGED, (space, int(number or 0), PAGE)).fetchall()
        records = {key: _record(value, until, now) for _, _, key, value, until in changed}
        reached = f"{changed[-1][0]}-{changed[-1][1]}"
        return Changes(records, Cursor(reached), more=reached != version, whole=False)

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        if now >= self._sweep_at and connection.execute(_SWEEP, (now, SWEEP_ROWS)).rowcount < SWEEP_ROWS:
            self._sweep_at = now + SWEEP_SECONDS

    def _change(self, space: str, key: str, now: float, statement: str, values: tuple[object, ...]) -> bool:
        with self._changing(space, now) as connection:
            changed = connection.execute(statement, values).rowcount > 0
            if changed:
                # The tag tells this change from one of the same number in another history: a file from a backup.
                connection.execute(_CHANGE, {"space": space, "tag": secrets.token_hex(8), "key": key})
                connection.execute(_PRUNE, {"space": space, "kept": KEPT_CHANGES})
            return changed

    @contextmanager
    def _changing(self, space: str, now: float) -> Iterator[sqlite3.Connection]:
        """Change records and their version together, safe on the disk before anyone is told."""
        with self._file.use() as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_EXPIRE, (space, now))
            yield connection
            connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous = NORMAL")


def _version(connection: sqlite3.Connection, space: str) -> str:
    row = connection.execute(_VERSION, (space,)).fetchone()
    return "" if row is None else f"{row[0]}-{row[1]}"


def _knows(connection: sqlite3.Connection, space: str, version: str, past: str) -> bool:
    if past == version:
        return True
    number, _, tag = past.partition("-")
    return bool(number) and connection.execute(_KNOWN, (space, int(number), tag)).fetchone() is not None


def _page(
    rows: list[tuple[str, bytes, float | None]], version: str, current: str, now: float, *, whole: bool
) -> Changes:
    """Return one page of all records, as they are while the reader has come to ``version``."""
    records = {key: _record(value, until, now) for key, value, until in rows}
    full = len(rows) == PAGE
    return Changes(
        records, Cursor(version, rows[-1][0] if full else None), more=full or version != current, whole=whole
    )


def _record(value: bytes | None, until: float | None, now: float) -> Record | None:
    if value is None or (until is not None and until <= now):
        return None
    return Record(bytes(value), None if until is None else until - now)


log: logging.Logger = logging.getLogger(__name__)

BUSY = 1.0
"""Seconds to wait while another thread or process writes."""

_BUSY_AT_START = 10.0
_PAUSE = 0.02


class SqliteFile:
    """One connection of this process, opened when it is first needed; its threads use it one at a time.

    SQLite forbids to carry a connection over a fork, and what a child then writes can be lost. So the connection is
    closed before each fork, and parent and child open their own.

    :param path: the file; it is made where it is missing, readable by its owner only.
    :param schema: statements that make the tables where they are missing; None for a file that is there.
    :raises DependencyUnavailable: the file cannot be opened or is no database.
    """

    def __init__(self, path: Path, schema: str | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._inherited: list[sqlite3.Connection] = []
        if schema is not None:
            self._make(schema)
        _follow_forks(weakref.ref(self))

    def __del__(self) -> None:
        self._close()

    @contextmanager
    def use(self, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend the connection; what was begun and not committed when something is raised is undone.

        :param timeout: seconds to wait, for other threads and for other processes together; None for the usual.
        :raises DependencyUnavailable: the file is gone, damaged, or busy for too long.
        """
        ends = time.monotonic() + (BUSY if timeout is None else timeout)
        if not self._lock.acquire(timeout=_left(ends)):
            raise unavailable(f"the store {self._path} is busy")
        try:
            with self._explained():
                yield self._current(ends)
        except BaseException:
            # Whatever state the connection is in, a new one is in none.
            self._close()
            raise
        finally:
            self._lock.release()

    def _make(self, schema: str) -> None:
        with self._explained():
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._make_tables(schema)
            if self._path.stat().st_mode & 0o077:
                log.warning("%s can be read or written by others than its owner; chmod 600 it", self._path)

    def _make_tables(self, schema: str) -> None:
        """Take turns with workers that start at the same moment.

        SQLite's own waiting does not cover the change to write-ahead mode: of two that ask for it one fails at once.
        """
        ends = time.monotonic() + _BUSY_AT_START
        while True:
            try:
                with closing(_connect(self._path, _BUSY_AT_START)) as connection:
                    connection.executescript(schema)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _current(self, ends: float) -> sqlite3.Connection:
        # A file that was removed or replaced lives on for who has it open, and would never show a change again.
        found = self._path.stat()
        identity = found.st_dev, found.st_ino
        if self._connection is None or identity != self._identity:
            self._close()
            self._connection, self._identity = _connect(self._path, _left(ends)), identity
        # Of what the caller does, the first statement takes the lock and the others have it.
        self._connection.execute(f"PRAGMA busy_timeout = {_left(ends) * 1000:.0f}")
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self.__dict__.get("_connection"), None
        if connection is not None:
            connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unavailable(f"the store {self._path} failed: {error}") from None

    def before_fork(self) -> None:
        """Wait for the thread that uses the connection, and close it."""
        self._lock.acquire()
        self._close()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew; a server in C may fork without a word before, and what is inherited then stays untouched."""
        self._lock = Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection = None


def _follow_forks(reference: weakref.ref[SqliteFile]) -> None:
    def tell(step: Callable[[SqliteFile], None]) -> None:
        file = reference()
        if file is not None:
            step(file)

    # These registrations last as long as the process; the file does not, hence the reference.
    os.register_at_fork(
        before=lambda: tell(SqliteFile.before_fork),
        after_in_parent=lambda: tell(SqliteFile.after_fork_in_parent),
        after_in_child=lambda: tell(SqliteFile.after_fork_in_child),
    )


def _left(ends: float) -> float:
    return max(0.0, ends - time.monotonic())


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    # Never made here: a file that went missing could have held a revocation.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
