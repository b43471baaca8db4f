"""A SQLite file that the threads and processes of one machine use together."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from .base import unavailable

log = logging.getLogger(__name__)

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
