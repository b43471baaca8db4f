"""One bounded GET for documents of an authorization server."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

TIMEOUT = 2.0
"""Seconds for the whole exchange, from connect to the last byte."""

MAX_BYTES = 256 * 1024
"""The largest document in bytes."""


class FetchError(Exception):
    """The document could not be had; the text is private and names no more than the kind of the fault."""


def fetch(uri: str, *, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the body at a configured address.

    No redirect is followed, no proxy of the environment is used, no cookie is kept, and a server that sends one
    byte now and then is cut off when the time is up.

    :param timeout: seconds for the whole exchange.
    :param max_bytes: what the body may have.
    :raises FetchError: no answer in time, a status other than 200, or too many bytes.
    """
    ends = time.monotonic() + timeout
    connection = _connection(uri, timeout)
    try:
        connection.connect()
        with _cut_off(connection.sock, ends - time.monotonic()):
            return _get(connection, uri, max_bytes)
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{type(error).__name__} while fetching it") from None
    finally:
        connection.close()


def _connection(uri: str, timeout: float) -> HTTPConnection:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port, timeout=timeout)
    return HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())


def _get(connection: HTTPConnection, uri: str, max_bytes: int) -> bytes:
    parts = urlsplit(uri)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"Accept": "application/json", "Connection": "close"})
    response = connection.getresponse()
    if response.status != HTTPStatus.OK:
        raise FetchError(f"its server answered {response.status}")
    return _body(response, max_bytes)


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise FetchError(f"it has more than {max_bytes} bytes")
    return body


@contextmanager
def _cut_off(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the socket when the time is up; its own timeout starts anew with every byte received."""
    timer = threading.Timer(max(seconds, 0.0), _shut, (connected,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connected: socket.socket) -> None:
    # The method of the plain socket: that of a TLS socket would pull its state from under the reading thread.
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
