"""Rejected bodies with false lengths, early ends or embedded requests."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from servers import Served, complaints, wait_until

HEAD = b"POST /legacy HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 1024 * 1024
Serve = Callable[[str, bool], Served]


def connect(served: Served) -> socket.socket:
    """Open a connection, with TLS if the server has it."""
    plain = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    return served.context.wrap_socket(plain, server_hostname="localhost") if served.trusted else plain


def read_to_the_end(connection: socket.socket) -> bytes:
    """Return all bytes from the server until it closes the connection."""
    received = b""
    with suppress(OSError):
        while block := connection.recv(65_536):
            received += block
    return received


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_close(connection: socket.socket) -> None:
    # Beneath TLS, as one that just vanishes.
    socket.socket.shutdown(connection, socket.SHUT_WR)
    read_to_the_end(connection)


def declared(length: int, body: bytes = b"") -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % length + body


Ending = Callable[[socket.socket], object]

ENDINGS: dict[str, tuple[bytes, Ending]] = {
    "reset before the response": (declared(10), reset),
    "reset while it is read": (declared(9 * MEGABYTE, b"1" * 200_000), reset),
    "half closed": (declared(9 * MEGABYTE, b"1" * 20_000), half_close),
    "closed at once": (declared(9 * MEGABYTE), socket.socket.close),
    "more than declared": (declared(70_000, b"1" * 500_000), read_to_the_end),
    "Expect": (HEAD + b"Expect: 100-continue\r\nContent-Length: 900000\r\n\r\n", half_close),
    "a WebSocket with a body": (
        HEAD + b"Upgrade: websocket\r\nContent-Length: 90000\r\n\r\n" + b"1" * 9000,
        half_close,
    ),
    "a GET with a body": (declared(900_000, b"1" * 9000).replace(b"POST", b"GET"), half_close),
    "an OPTIONS with a body": (declared(900_000, b"1" * 9000).replace(b"POST", b"OPTIONS"), half_close),
    "long extensions": (CHUNKED + (b"1;a=" + b"a" * 8000 + b"\r\n1\r\n") * 100, read_to_the_end),
    "a long trailer": (CHUNKED + b"0\r\n" + (b"a: " + b"a" * 8000 + b"\r\n") * 50, half_close),
    "one huge chunk": (CHUNKED + b"FFFFFFFFFFFF\r\n" + b"1" * MEGABYTE, socket.socket.close),
    "a length of 30 digits": (declared(10**29, b"1" * MEGABYTE), socket.socket.close),
}


def is_read(served: Served) -> bool:
    """Return True if the server reads a large body after the response, so that no budget of the threads is kept."""
    with connect(served) as connection:
        connection.sendall(declared(3 * MEGABYTE))
        head = connection.recv(12)
        connection.sendall(b"1" * 3 * MEGABYTE)
        read_to_the_end(connection)
    return head == b"HTTP/1.1 401"


@pytest.mark.parametrize(("worker", "tls"), [("gthread", True), ("gthread", False), ("gevent", True)])
def test_no_ending_keeps_the_share(serve: Serve, worker: str, tls: bool) -> None:
    """After any end of a request, the next body is read, and nothing unexpected is logged."""
    served = serve(worker, tls)
    for sent, end in list(ENDINGS.values()) * 2:
        with connect(served) as connection, suppress(OSError):
            connection.sendall(sent)
            end(connection)

    def all_are_read() -> bool:
        with suppress(OSError):
            return all(is_read(served) for _ in range(8))
        return False

    wait_until(all_are_read, "the share of the threads")
    assert not [line for line in complaints(served.log) if "drain.py" in line]


WITHIN = b"GET /within HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLEAR_TEXT = WITHIN * 1000
BODIES = {
    "its beginning": declared(100_000, WITHIN),
    "behind 64 KiB": declared(100_000, b"1" * 66_000 + WITHIN * 100),
    "behind the declared length": declared(70_000, b"1" * 70_000 + WITHIN * 2000),
    "a chunk": CHUNKED + b"FFFFF\r\n" + WITHIN * 2000,
    "behind a malformed chunk": CHUNKED + b"zz\r\n" + WITHIN,
    "behind an endless trailer": CHUNKED + b"0\r\n" + WITHIN,
    "behind two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + WITHIN,
    "behind a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + WITHIN,
}


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "clear text"])
def test_no_request_within_a_rejected_body_is_served(serve: Serve, worker: str, tls: bool) -> None:
    """Nor one in clear text, sent when the server has ended TLS; a request behind a small body is served."""
    served = serve(worker, tls)
    for sent in BODIES.values():
        with connect(served) as connection, suppress(OSError):
            connection.sendall(sent)
            connection.recv(12)
            with socket.socket(fileno=connection.detach()) as beneath:
                beneath.settimeout(10)
                beneath.sendall(CLEAR_TEXT)
                read_to_the_end(beneath)
    with connect(served) as connection:
        connection.sendall(declared(3, b"123" + WITHIN.replace(b"within", b"behind")))
        wait_until(lambda: '"path":"/behind"' in served.log.read_text(), "the request behind a body that has arrived")
    assert '"path":"/within"' not in served.log.read_text()


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_a_client_that_sends_small_records(serve: Serve, worker: str) -> None:
    """Each record of 20 bytes has as much TLS overhead; the client still reads the response."""
    served = serve(worker, True)
    connection = http.client.HTTPSConnection("localhost", served.port, context=served.context, timeout=10)
    try:
        connection.request("POST", "/legacy", (b"1" * 20 for _ in range(10_000)), {"Content-Length": "200000"})
        assert connection.getresponse().status == 401
    finally:
        connection.close()
