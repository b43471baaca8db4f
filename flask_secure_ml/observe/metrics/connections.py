"""Serves the connections to the metrics port in one thread, without blocking on any of them.

Otherwise, a client could block scrapes with a few idle connections.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...refresh import Outage, failure_reason

log: logging.Logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Timeout for receiving a request, and again for sending its response, in seconds."""

MAX_OPEN = 32
"""Maximum number of connections in one process; a further one closes the oldest."""

MAX_HEAD = 8_192
_PAUSE = 0.5
_END = b"\r\n\r\n"

Respond = Callable[[bytes], bytes]
"""Returns the whole response for the head of a request."""


@dataclass(eq=False)
class _Connection:
    channel: socket.socket
    ends: float
    head: bytes = b""
    rest: memoryview | None = None


class Connections:
    """Serves the connections of one listening socket.

    :param listener: may be shared with other processes, which serve what they accept themselves.
    :param monotonic: returns monotonic time in seconds.
    """

    def __init__(self, listener: socket.socket, respond: Respond, monotonic: Callable[[], float]) -> None:
        # Another process may have accepted the connection that woke up this one.
        listener.setblocking(False)
        self._listener = listener
        self._respond = respond
        self._monotonic = monotonic
        self._outage = Outage(
            "the metrics port cannot accept connections", "the metrics port accepts connections again", monotonic
        )
        # Oldest first.
        self._open: dict[socket.socket, _Connection] = {}
        # Looked up here, because gevent may have replaced it after this module was imported.
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve forever."""
        while True:
            try:
                self._step()
            except Exception:
                log.exception("the metrics port failed")
                time.sleep(_PAUSE)

    def _step(self) -> None:
        """Wait for the next event or timeout, and handle it."""
        ends = min((each.ends for each in self._open.values()), default=None)
        for key, _ in self._selector.select(None if ends is None else max(0.0, ends - self._monotonic())):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket) and (found := self._open.get(key.fileobj)) is not None:
                self._go_on(found)
        if self._open:
            now = self._monotonic()
            for each in [each for each in self._open.values() if now >= each.ends]:
                self._close(each)

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # There are too many open files.
            self._outage.failed(failure_reason(error))
            time.sleep(_PAUSE)
            return
        self._outage.ended()
        if len(self._open) >= MAX_OPEN:
            self._close(next(iter(self._open.values())))
        channel.setblocking(False)
        self._open[channel] = _Connection(channel, self._monotonic() + PATIENCE)
        self._selector.register(channel, selectors.EVENT_READ)

    def _go_on(self, connection: _Connection) -> None:
        try:
            if connection.rest is None:
                self._read(connection)
            else:
                self._write(connection)
        except BlockingIOError:
            return
        except OSError:
            # The client has disconnected.
            self._close(connection)
        except Exception:
            log.exception("a scrape failed")
            self._close(connection)

    def _read(self, connection: _Connection) -> None:
        received = connection.channel.recv(MAX_HEAD)
        connection.head += received
        if not received or len(connection.head) > MAX_HEAD:
            self._close(connection)
        elif _END in connection.head:
            connection.rest = memoryview(self._respond(connection.head))
            connection.ends = self._monotonic() + PATIENCE
            self._selector.modify(connection.channel, selectors.EVENT_WRITE)

    def _write(self, connection: _Connection) -> None:
        rest = connection.rest or memoryview(b"")
        connection.rest = rest = rest[connection.channel.send(rest) :]
        if not rest:
            connection.channel.shutdown(socket.SHUT_WR)
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        del self._open[connection.channel]
        self._selector.unregister(connection.channel)
        connection.channel.close()
