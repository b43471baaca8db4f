"""Closes connections so that clients can read early responses, and slow clients do not occupy threads.

Many clients send their whole body before they read the response. If the server responds early and closes the
connection, the kernel resets it and the response is lost; if the server keeps reading, a client can occupy a thread for
any time. So the response is sent first, and the rest of the request is read within limits and discarded (RFC 9112
section 9.6).

Only gunicorn exposes the socket that this needs. Its HTTP/2 streams share one connection, which is not drained.
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
"""The maximum number of bytes that are read from one client."""

MAX_SECONDS = 5.0
"""The maximum number of seconds for which one client is read."""

GRACE = 1.0
"""Seconds during which a client may be slow, unless another thread waits for its turn."""

WINDOW = 0.25
"""The length in seconds of the intervals after that, in each of which it must send :data:`WINDOW_BYTES`."""

WINDOW_BYTES = 256 * 1024

TURN = 0.3
"""The maximum wait for a turn in seconds, a little longer than the interval after which a slow client is dropped."""

_BLOCK = 65_536
_FIRST_ERROR = "400"
_SEEN = "flask_secure_ml.drain"
_SHARES = "_flask_secure_ml_shares"


class Socket(Timeout, Protocol):
    """The methods that are used of a socket: plain, with TLS, or of gevent."""

    def recv(self, size: int, /) -> bytes:
        """Return received bytes; wait until there are some."""

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
    declared length (in clear text), 64 MiB and 5 seconds; after the first second only while 256 KiB arrive in 250 ms;
    and by at most a quarter of the worker's threads at the same time, for all apps together. Then the socket is shut
    down in both directions, so that the server does not wait for the client either.

    :param clock: measures the time limits.
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
        """Read the rest of a request, unless a quarter of the worker's threads already do the same.

        :param limit: the maximum number of bytes to read.
        :param grace: seconds during which the client may be slow.
        :param share: the share of the worker's threads.
        """
        if not share.take():
            return
        try:
            # Also removes Python's TLS layer. From now on each call waits for one packet. With TLS, it would wait for a
            # whole record, which a client can send byte by byte.
            connection.shutdown(SHUT_WR)
            read_within_bounds(connection, min(limit, MAX_BYTES), grace, self._clock, share)
        finally:
            share.give_back()


class Share:
    """The share of a worker's threads that may wait for clients whose response is complete.

    :param capacity: the number of requests that the worker serves concurrently.
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
        """Return True if this thread may read.

        It waits up to 300 ms for its turn, unless too many threads wait. Without the wait, a client that sends
        consecutive requests would compete with its own previous request.
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
        """Release the share for other threads."""
        self._reading.release()


def share_of(owner: object, capacity: int) -> Share:
    """Return the share of this process, created on first use.

    :param owner: the object that has it as an attribute: gunicorn's configuration, which all apps of a worker share.
    """
    shares: PerProcess[Share] = vars(owner).setdefault(_SHARES, PerProcess(lambda: Share(capacity)))
    return shares.get()


def read_within_bounds(connection: Socket, limit: int, grace: float, clock: Clock, share: Share) -> None:
    """Read until the end, the limit, 5 seconds, or the first 250 ms after the grace period in which too little arrived.

    While another thread waits for its turn, there is no grace period.

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
            # gevent returns available data without a switch: other greenlets would wait while 64 MiB arrive.
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
        """Whether the response determines if the connection is kept."""
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
        # gunicorn calls sendfile() only for its own wrapper, whose close is an instance attribute like this one.
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
                # If middleware hides gunicorn's response, gunicorn would parse the rest as the next request.
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
            # The overhead of TLS is unknown: a client may send each byte in its own record.
            return MAX_BYTES
        return self.body.remaining

    def _grace(self) -> float:
        # If the worker serves one request at a time, every other client would wait.
        return GRACE if self._unread and self._capacity() > 1 else 0.0

    def _share(self) -> Share:
        owner = self._drain if self._response is None else self._response.cfg
        return share_of(owner, self._capacity())

    def _capacity(self) -> int:
        if not self._environ.get("wsgi.multithread"):
            return 1
        if self._response is None:
            # Unknown, but probably more than one: such a worker rarely has a single thread.
            return 2
        cooperative = any(base.__module__.startswith("gevent.") for base in type(self._connection).__mro__)
        return int(getattr(self._response.cfg, "worker_connections" if cooperative else "threads", 1))


def server_response(start_response: object) -> ServerResponse | None:
    """Return gunicorn's response object, or None if middleware hides it.

    A header cannot be used instead: gunicorn drops ``Connection`` from the headers of apps, as PEP 3333 allows.
    """
    owner = getattr(start_response, "__self__", None)
    return cast("ServerResponse", owner) if hasattr(owner, "force_close") else None
