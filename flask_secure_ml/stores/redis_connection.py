"""Connections to Redis or Valkey with a timeout for a whole command, not for each packet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

_LEAST = 0.001
"""The minimum timeout, because 0 would make a socket non-blocking."""


class Deadline:
    """The time by which all operations in a context must end: connecting, authentication and commands.

    :param usual: seconds for operations outside :meth:`within`.
    :param monotonic: returns the seconds of a clock that never goes backwards.
    """

    def __init__(self, usual: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.usual = usual
        self._monotonic = monotonic
        # Each thread and each greenlet has its own context.
        self._ends: ContextVar[float | None] = ContextVar("flask_secure_ml_deadline", default=None)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Set the deadline, or keep the current one if it is earlier."""
        before, ends = self._ends.get(), self._monotonic() + seconds
        token = self._ends.set(ends if before is None else min(before, ends))
        try:
            yield
        finally:
            self._ends.reset(token)

    def left(self) -> float:
        """Return the seconds until the deadline; 0 or less if it has passed."""
        ends = self._ends.get()
        return self.usual if ends is None else ends - self._monotonic()


class BoundedSocket:
    """A socket whose reads and writes end by the deadline."""

    def __init__(self, plain: Any, deadline: Deadline) -> None:
        self._plain = plain
        self._deadline = deadline
        self._timeout: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set the timeout of one operation; 0 to return available data without waiting."""
        self._timeout = seconds

    def recv(self, *args: Any) -> Any:
        """Receive bytes."""
        return self._bounded().recv(*args)

    def recv_into(self, *args: Any) -> Any:
        """Receive bytes into a buffer."""
        return self._bounded().recv_into(*args)

    def sendall(self, *args: Any) -> Any:
        """Send all bytes."""
        return self._bounded().sendall(*args)

    def _bounded(self) -> Any:
        left = self._deadline.left()
        if self._timeout == 0:
            left = 0
        elif left <= 0:
            raise TimeoutError("timed out")
        self._plain.settimeout(left)
        return self._plain


class _Bounded:
    """Makes a connection class observe the deadline."""

    def __init__(self, *, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(**options)

    # The library reads these for each address that it tries, and before the TLS handshake.
    @property
    def socket_timeout(self) -> float:
        return max(_LEAST, self._deadline.left())

    @socket_timeout.setter
    def socket_timeout(self, _: object) -> None:
        """Ignore the value: the deadline decides."""

    @property
    def socket_connect_timeout(self) -> float:
        return self.socket_timeout

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, _: object) -> None:
        """Ignore the value: the deadline decides."""

    def _connect(self) -> BoundedSocket:
        return BoundedSocket(super()._connect(), self._deadline)  # type: ignore[misc]


class BoundedConnection(_Bounded, Connection):  # type: ignore[misc]
    """TCP."""


class BoundedTlsConnection(_Bounded, SSLConnection):  # type: ignore[misc]
    """TLS over TCP."""


class BoundedUnixConnection(_Bounded, UnixDomainSocketConnection):  # type: ignore[misc]
    """A Unix socket."""


BOUNDED: dict[type, type] = {
    Connection: BoundedConnection,
    SSLConnection: BoundedTlsConnection,
    UnixDomainSocketConnection: BoundedUnixConnection,
}
