"""The SQLite file of a store, and connections that survive forks and full disks."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..principal import Clock
from ..refresh import Outage, process_lock, sentence_of
from .base import StoreUnavailable, unavailable

log: logging.Logger = logging.getLogger(__name__)

BUSY = 1.0
"""Seconds to wait while another thread or process writes."""

_BUSY_AT_START = 10.0
_PAUSE = 0.02
# Permanent errors. Others, such as a full disk, may be temporary.
_PERMANENT = frozenset(
    {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM}
)


class SqliteFile:
    """A database file, and the log of its outages.

    :param path: the file; created if it is missing, readable by its owner only.
    :param schema: statements that create the tables if they are missing.
    """

    def __init__(self, path: Path, schema: str, clock: Clock) -> None:
        self.path = path
        self._schema = schema
        self._prepared = False
        self._outage = Outage(f"the store {path} is down", f"the store {path} is up again", clock.monotonic)

    def prepare_at_start(self) -> None:
        """Create the file and its tables at start-up.

        After a temporary error, this is repeated when the store is used.

        :raises ValueError: the error is permanent.
        """
        try:
            self._prepare(_BUSY_AT_START)
        except (sqlite3.Error, OSError) as error:
            if _is_permanent(error):
                raise ValueError(f"the store {self.path} failed: {sentence_of(error)}") from None
            self._outage.failed(str(error))

    def prepare(self, seconds: float) -> None:
        """Create the file and its tables, if that was not possible at start-up.

        A file that is removed later is never created again, because it may have contained a revocation.
        """
        if not self._prepared:
            self._prepare(seconds)

    def failed(self, reason: str) -> StoreUnavailable:
        """Log the beginning of an outage, and return the error to raise."""
        self._outage.failed(reason)
        return unavailable(f"the store {self.path} failed: {reason}")

    def works(self) -> None:
        """Log the end of an outage."""
        self._outage.ended()

    def make(self) -> None:
        """Create the file if it is missing, readable by its owner only.

        :raises OSError: it cannot be created, or is not a file that this user may write.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            return
        # Without opening it: closing it would release the locks of all connections of this process to the file.
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))

    def _prepare(self, seconds: float) -> None:
        self.make()
        self._create_tables(time.monotonic() + seconds)
        self._prepared = True
        if self.path.stat().st_mode & 0o077:
            log.warning("%s can be read or written by users other than its owner; run chmod 600", self.path)

    def _create_tables(self, ends: float) -> None:
        """Create the tables; retry while other workers that start at the same time do the same.

        SQLite's busy timeout does not cover the change to write-ahead mode: of two concurrent changes, one fails at
        once.
        """
        while True:
            try:
                with closing(connect(self.path, _left(ends))) as connection:
                    connection.executescript(self._schema)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                    raise
                time.sleep(_PAUSE)
            else:
                return


class SqliteConnection:
    """One connection of this process, opened on first use.

    The threads of the process use it one at a time. SQLite connections must not be used across a fork: writes of the
    child can be lost. The connection is therefore closed before each fork, and parent and child open their own.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._lock = process_lock()
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._inherited: list[sqlite3.Connection] = []
        _follow_forks(weakref.ref(self))

    def __del__(self) -> None:
        self._close()

    @contextmanager
    def use(self, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Yield the connection; an exception rolls back uncommitted changes.

        :param timeout: seconds to wait for other threads and processes in total; None for the default.
        :raises DependencyUnavailable: the file is missing, damaged, on a full disk, or busy for too long.
        """
        ends = time.monotonic() + (BUSY if timeout is None else timeout)
        lock = self._lock.get()
        if not lock.acquire(timeout=_left(ends)):
            raise self._file.failed("it is busy")
        try:
            yield self._current(ends)
        except (sqlite3.Error, OSError) as error:
            self._close()
            raise self._file.failed(str(error)) from None
        except BaseException:
            # A new connection certainly has no open transaction.
            self._close()
            raise
        else:
            self._file.works()
        finally:
            lock.release()

    def _current(self, ends: float) -> sqlite3.Connection:
        self._file.prepare(_left(ends))
        # An open connection to a file that was removed or replaced would never see changes again.
        found = self._file.path.stat()
        identity = found.st_dev, found.st_ino
        if self._connection is None or identity != self._identity:
            self._close()
            self._connection, self._identity = connect(self._file.path, _left(ends)), identity
        # Only the caller's first statement waits for the lock; after that, it is held.
        self._connection.execute(f"PRAGMA busy_timeout = {_left(ends) * 1000:.0f}")
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self.__dict__.get("_connection"), None
        if connection is not None:
            connection.close()

    def before_fork(self) -> None:
        """Wait for the thread that uses the connection, and close it."""
        self._lock.get().acquire()
        self._close()

    def after_fork_in_parent(self) -> None:
        """Continue."""
        self._lock.get().release()

    def after_fork_in_child(self) -> None:
        """Reset the state without using an inherited connection; servers in C may fork without ``before_fork``."""
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection = None


def _follow_forks(reference: weakref.ref[SqliteConnection]) -> None:
    def run(step: Callable[[SqliteConnection], None]) -> None:
        connection = reference()
        if connection is not None:
            step(connection)

    # Registrations last as long as the process, so they only have a weak reference to the connection.
    os.register_at_fork(
        before=lambda: run(SqliteConnection.before_fork),
        after_in_parent=lambda: run(SqliteConnection.after_fork_in_parent),
        after_in_child=lambda: run(SqliteConnection.after_fork_in_child),
    )


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB
    return isinstance(error, OSError) and error.errno in _PERMANENT


def _left(ends: float) -> float:
    return max(0.0, ends - time.monotonic())


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Return a connection to a file that exists.

    :param timeout: seconds for which each statement waits while others write.
    """
    # Never created here: a file that was removed may have contained a revocation.
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
