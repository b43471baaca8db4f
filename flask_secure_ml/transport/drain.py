"""Closing connections: early responses that clients can read, and no thread that waits for a slow client.

Many clients send their whole body before they read. If the server responds early and closes, the kernel resets the
connection and the response is lost; if the server reads on, the client decides how long it occupies a thread. So the
response is sent first, and the rest of the request is read within bounds and discarded (RFC 9112 section 9.6).

Only gunicorn exposes the socket that this needs. Its HTTP/2 streams share one connection, which is left alone.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import SHUT_RDWR, SHUT_WR
from threading import Semaphore
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..principal import Clock
from ..refresh import PerProcess
from .request_body import SMALL_BODY, RequestBody, Timeout
from .response_bodies import Closing

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BYTES = 64 * 1024 * 1024
"""The most bytes that are read from one client."""

MAX_SECONDS = 5.0
"""The longest time for which one client is read, in seconds."""

GRACE = 1.0
"""The seconds in which a client may be slow, unless another waits for its turn."""

WINDOW = 0.25
"""The length of the intervals, in seconds, in each of which it must send :data:`WINDOW_BYTES` after that."""

WINDOW_BYTES = 256 * 1024

TURN = 0.3
"""The longest wait for a turn, in seconds: a little longer than the interval after which a slow client gives way."""

_BLOCK = 65_536
_FIRST_ERROR = "400"
_SEEN = "flask_secure_ml.drain"
_SHARES = "_flask_secure_ml_shares"


class Socket(Timeout, Protocol):
    """The methods that are used of a socket, which may be plain, have TLS, or be of gevent."""

    def recv(self, size: int, /) -> bytes:
        """Return received bytes, or wait for some."""

    def shutdown(self, how: int, /) -> None:
        """Close one or both directions."""


class ServerResponse(Protocol):
    """The attributes that are used of gunicorn's own response object."""

    status: str | None
    cfg: Any

    def force_close(self) -> None:
        """Send ``Connection: close``, and close the connection after the response."""

    def should_close(self) -> bool:
        """Return True if the connection closes after the response."""


class Drain:
    """WSGI middleware that closes the connections of a WSGI app.

    A response of 400 and above to a request whose body was not read has ``Connection: close``. When the response has
    been sent and recorded, and its iterable closed, the rest of the request is read from the raw socket: at most the
    declared length in clear text, 64 MiB and 5 seconds; after the first second only while 256 KiB arrive in 250 ms; and
    by at most a quarter of the worker's threads at once, for all apps together. Then the socket is shut down in both
    directions, so that the server does not wait for the client either.

    :param clock: measures the bounds in time.
    """

    def __init__(self, app: WSGIApplication, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app."""
        connection = environ.get("gunicorn.socket")
        if connection is None or _SEEN in environ or not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
            return self._app(environ, start_response)
        environ[_SEEN] = True
        closing = _LingeringClose(self, environ, connection, server_response(start_response))
        if closing.watches:
            start_response = closing.watch(start_response)
        return closing.wrap(self._app(environ, start_response))

    def discard(self, connection: Socket, limit: int, grace: float, share: Share) -> None:
        """Read the rest of a request, if fewer than a quarter of the worker's threads do so already.

        :param limit: the most bytes to read.
        :param grace: seconds for which the client may be slow.
        :param share: of the worker's threads.
        """
        if not share.take():
            return
        try:
            # Also removes Python's TLS layer. From here on each wait is for one packet. With TLS it would be for a
            # whole record, which a client can send byte by byte.
            connection.shutdown(SHUT_WR)
            read_within_bounds(connection, min(limit, MAX_BYTES), grace, self._clock, share)
        finally:
            share.give_back()


class Share:
    """The share of a worker's threads that may wait for clients whose response is complete.

    :param capacity: how many requests the worker serves at once.
    """

    def __init__(self, capacity: int) -> None:
        self._reading = Semaphore(max(1, capacity // 4))
        self._waiting = Semaphore(capacity // 4)
        self._waiters: set[object] = set()

    @property
    def wanted(self) -> bool:
        """Whether another thread waits for its turn."""
        return bool(self._waiters)

    def take(self) -> bool:
        """Return True if this thread may read; wait up to 300 ms for its turn, if not too many wait.

        A client that sends one request after the other would otherwise compete with its own previous request.
        """
        if self._reading.acquire(blocking=False):
            return True
        if not self._waiting.acquire(blocking=False):
            return False
        waiter = object()
        self._waiters.add(waiter)
        try:
            return self._reading.acquire(timeout=TURN)
        finally:
            self._waiters.discard(waiter)
            self._waiting.release()

    def give_back(self) -> None:
        """Return the share to the other threads."""
        self._reading.release()


def share_of(owner: object, capacity: int) -> Share:
    """Return the share of this process; create it if there is none.

    :param owner: the object that keeps it. gunicorn's configuration is the same for all apps of a worker.
    """
    shares: PerProcess[Share] = vars(owner).setdefault(_SHARES, PerProcess(lambda: Share(capacity)))
    return shares.get()


def read_within_bounds(connection: Socket, limit: int, grace: float, clock: Clock, share: Share) -> None:
    """Read until the end, the limit, 5 seconds, or the first 250 ms after the grace in which too little arrived.

    While another thread waits for its turn, there is no grace.

    :raises OSError: the connection is broken.
    """
    started = now = clock.monotonic()
    window_end, in_window = started + WINDOW, 0
    while limit > 0 and now < started + MAX_SECONDS:
        if now >= window_end:
            if in_window < WINDOW_BYTES and (now >= started + grace or share.wanted):
                return
            window_end, in_window = now + WINDOW, 0
        connection.settimeout(min(window_end, started + MAX_SECONDS) - now)
        try:
            received = len(connection.recv(min(limit, _BLOCK)))
            if not received:
                return
            limit -= received
            in_window += received
            # gevent returns what has arrived without a switch: everybody would wait while 64 MiB come at full speed.
            time.sleep(0)
        except TimeoutError:
            pass
        now = clock.monotonic()


class _LingeringClose:
    """Closes the connection of one request in stages: our direction, the rest of the request, both directions."""

    def __init__(
        self, drain: Drain, environ: WSGIEnvironment, connection: Socket, response: ServerResponse | None
    ) -> None:
        self._drain = drain
        self._environ = environ
        self._connection = connection
        self._response = response
        self._unread = False
        # After a rejected handshake (RFC 6455 section 4.2.2) some clients wait for the end of the connection.
        self._upgrading = "HTTP_UPGRADE" in environ
        self.body = RequestBody.declared(environ)
        if self.body is not None:
            environ["wsgi.input"] = self.body

    @property
    def watches(self) -> bool:
        """Whether what the response is decides what becomes of the connection."""
        return self.body is not None or self._upgrading

    def watch(self, start_response: StartResponse) -> StartResponse:
        """Return the ``start_response`` for the app."""

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            if status >= _FIRST_ERROR and (self._upgrading or not self._has_arrived()):
                self._force_close()
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return start

    def wrap(self, iterable: Iterable[bytes]) -> Iterable[bytes]:
        """Return the iterable of the response with a ``close()`` that also closes the connection."""
        response = self._response
        if self.body is None and (response is None or (response.status is not None and not response.should_close())):
            return iterable
        closing = Closing(iterable, self.close)
        wrapper = self._environ.get("wsgi.file_wrapper")
        if not (isinstance(wrapper, type) and isinstance(iterable, wrapper)):
            return closing
        # gunicorn calls sendfile() only for its own wrapper, whose close() is an attribute like this one.
        cast("Any", iterable).close = closing.close
        return iterable

    def close(self) -> None:
        """Read the rest of the request and shut the socket down, if the connection is not kept."""
        with suppress(OSError, ValueError):
            if not self._has_arrived():
                self._force_close()
            if not (self._unread or self._will_close()):
                return
            if self.body is not None:
                # Where middleware hides gunicorn's response, it would parse what still comes as the next request.
                self.body.abandon()
            try:
                self._drain.discard(self._connection, self._limit(), self._grace(), self._share())
            finally:
                self._connection.shutdown(SHUT_RDWR)

    def _has_arrived(self) -> bool:
        return not self._unread and (self.body is None or self.body.has_arrived(self._connection))

    def _force_close(self) -> None:
        self._unread = True
        if self._response is not None:
            self._response.force_close()

    def _will_close(self) -> bool:
        return self._response is not None and self._response.status is not None and self._response.should_close()

    def _limit(self) -> int:
        if self.body is None or self.body.ended:
            return SMALL_BODY
        if self.body.remaining is None or isinstance(self._connection, ssl.SSLSocket):
            # How many bytes TLS adds is unknown: a client may send each byte in a record of its own.
            return MAX_BYTES
        return self.body.remaining

    def _grace(self) -> float:
        # A worker that serves one request at a time makes every other client wait.
        return GRACE if self._unread and self._capacity() > 1 else 0.0

    def _share(self) -> Share:
        owner = self._drain if self._response is None else self._response.cfg
        return share_of(owner, self._capacity())

    def _capacity(self) -> int:
        if not self._environ.get("wsgi.multithread"):
            return 1
        if self._response is None:
            # Unknown, but more than one: such a worker rarely has a single thread.
            return 2
        cooperative = type(self._connection).__module__.startswith("gevent.")
        return int(getattr(self._response.cfg, "worker_connections" if cooperative else "threads", 1))


def server_response(start_response: object) -> ServerResponse | None:
    """Return gunicorn's response object, or None where middleware hides it.

    A header does not help: gunicorn drops ``Connection`` from the headers of apps, as PEP 3333 allows.
    """
    owner = getattr(start_response, "__self__", None)
    return cast("ServerResponse", owner) if hasattr(owner, "force_close") else None
