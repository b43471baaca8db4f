"""A store for all processes of one machine: a SQLite file that only its owner can read."""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..principal import Clock
from .base import KEPT_CHANGES, PAGE, Changes, Cursor, Record, all_items
from .sqlite_connection import SqliteConnection, SqliteFile

SWEEP_SECONDS = 60.0
"""Seconds after which a process deletes expired keys again."""

SWEEP_ROWS = 10_000
"""The maximum number of rows that are deleted at the same time, so that no request takes long."""

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
    """Stores everything in one file, in write-ahead mode, which needs a local disk.

    If the disk is full or fails when a worker starts, the worker still starts, and opens the file once that is
    possible.

    :param path: the file; created if it is missing, readable by its owner only.
    :param clock: decides when an entry expires, by the system time, which all processes share.
    :raises ValueError: the file cannot be used: it is not such a store, or this user may not open it.
    """

    shared = True

    def __init__(self, path: str | Path, clock: Clock) -> None:
        file = SqliteFile(Path(path), _SCHEMA, clock)
        file.prepare_at_start()
        self._writer = SqliteConnection(file)
        # A second connection, so that readers do not wait for writers in this process either.
        self._reader = SqliteConnection(file)
        self._clock = clock
        self._sweep_at = -math.inf

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Store a key for some seconds; return False if it is already stored by any process."""
        now = self._clock.now()
        with self._writer.use() as connection:
            added = connection.execute(_ADD, (space, key, now + seconds, now)).rowcount > 0
            self._sweep(connection, now)
        return added

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; with ``new``, return False without storing it if the key is taken."""
        now = self._clock.now()
        until = None if seconds is None else now + seconds
        return self._change(space, key, now, _PUT, (space, key, until, value, new))

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        with self._reader.use() as connection:
            row = connection.execute(_GET, (space, key, self._clock.now())).fetchone()
        return None if row is None else bytes(row[0])

    def delete(self, space: str, key: str) -> bool:
        """Delete a record; return False if there is none."""
        return self._change(space, key, self._clock.now(), _DELETE, (space, key))

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, sorted by key."""
        return all_items(self, space)

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return the records that changed since a cursor, or the first page of all records."""
        now = self._clock.now()
        with self._reader.use(timeout) as connection:
            # One transaction, so that the version and the records are consistent.
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
                # The tag distinguishes this change from one with the same number in a file from a backup.
                connection.execute(_CHANGE, {"space": space, "tag": secrets.token_hex(8), "key": key})
                connection.execute(_PRUNE, {"space": space, "kept": KEPT_CHANGES})
            return changed

    @contextmanager
    def _changing(self, space: str, now: float) -> Iterator[sqlite3.Connection]:
        """Change records and their version in one transaction, which is durable when it ends."""
        with self._writer.use() as connection:
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
    """Return one page of all records, for a reader that has read the changes up to ``version``."""
    records = {key: _record(value, until, now) for key, value, until in rows}
    full = len(rows) == PAGE
    return Changes(
        records, Cursor(version, rows[-1][0] if full else None), more=full or version != current, whole=whole
    )


def _record(value: bytes | None, until: float | None, now: float) -> Record | None:
    if value is None or (until is not None and until <= now):
        return None
    return Record(bytes(value), None if until is None else until - now)
