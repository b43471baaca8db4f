"""A store for all processes of one machine: a SQLite file that only its owner can read."""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..exchange import Clock
from .sqlite_file import SqliteFile

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
CREATE TABLE IF NOT EXISTS secure_ml_versions (space TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
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
_ITEMS = "SELECT key, value FROM secure_ml_records WHERE space = ? AND (until IS NULL OR until > ?) ORDER BY key"
_DELETE = "DELETE FROM secure_ml_records WHERE space = ? AND key = ?"
_EXPIRE = "DELETE FROM secure_ml_records WHERE space = ? AND until <= ?"
_VERSION = "SELECT number FROM secure_ml_versions WHERE space = ?"
_BUMP = "INSERT INTO secure_ml_versions VALUES (?, ?) ON CONFLICT DO UPDATE SET number = number + 1"
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
        with self._changing(space, now) as connection:
            return connection.execute(_PUT, (space, key, until, value, new)).rowcount > 0

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        with self._file.use() as connection:
            row = connection.execute(_GET, (space, key, self._clock.now())).fetchone()
        return None if row is None else bytes(row[0])

    def delete(self, space: str, key: str) -> bool:
        """Forget a record; False when there is none."""
        with self._changing(space, self._clock.now()) as connection:
            return connection.execute(_DELETE, (space, key)).rowcount > 0

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, in the order of their keys."""
        with self._file.use() as connection:
            return {key: bytes(value) for key, value in connection.execute(_ITEMS, (space, self._clock.now()))}

    def version(self, space: str) -> int:
        """Return a number that is another one after every ``put`` and ``delete`` in the space."""
        with self._file.use() as connection:
            row = connection.execute(_VERSION, (space,)).fetchone()
        return 0 if row is None else int(row[0])

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        if now >= self._sweep_at and connection.execute(_SWEEP, (now, SWEEP_ROWS)).rowcount < SWEEP_ROWS:
            self._sweep_at = now + SWEEP_SECONDS

    @contextmanager
    def _changing(self, space: str, now: float) -> Iterator[sqlite3.Connection]:
        """Change records and their version together, safe on the disk before anyone is told."""
        with self._file.use() as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_EXPIRE, (space, now))
            yield connection
            # Begun at random, so that another file in the same place does not have the same number.
            connection.execute(_BUMP, (space, secrets.randbits(40)))
            connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous = NORMAL")
