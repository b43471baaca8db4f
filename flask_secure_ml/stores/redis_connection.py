"""Connections to Redis or Valkey whose time-out is for the whole of a command, not for each packet of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

_LEAST = 0.001
"""Zero would make a socket non-blocking."""


class Deadline:
    """The instant at which what runs in this context has to end: connecting, authenticating, commands and all.

    :param usual: seconds for a socket that is used outside :meth:`within`.
    """

    def __init__(self, usual: float) -> None:
        self.usual = usual
        # Of a context: each thread and each greenlet has its own.
        self._ends: ContextVar[float | None] = ContextVar("flask_secure_ml_deadline", default=None)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Set the deadline."""
        token = self._ends.set(time.monotonic() + seconds)
        try:
            yield
        finally:
            self._ends.reset(token)

    def left(self) -> float:
        """Return the seconds until then; zero or less when it has passed."""
        ends = self._ends.get()
        return self.usual if ends is None else ends - time.monotonic()


class BoundedSocket:
    """A socket that reads and writes until the deadline, however many times it is asked to."""

    def __init__(self, plain: Any, deadline: Deadline) -> None:
        self._plain = plain
        self._deadline = deadline
        self._timeout: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set the time-out of one operation; 0 for a look at what is there."""
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
    """Makes a kind of connection keep the deadline."""

    def __init__(self, *, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(**options)

    # The library reads these for each address that it tries, and before it wraps a socket in TLS.
    @property
    def socket_timeout(self) -> float:
        return max(_LEAST, self._deadline.left())

    @socket_timeout.setter
    def socket_timeout(self, _: object) -> None:
        """Leave it to the deadline."""

    @property
    def socket_connect_timeout(self) -> float:
        return self.socket_timeout

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, _: object) -> None:
        """Leave it to the deadline."""

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
