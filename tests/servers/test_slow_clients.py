"""Sixteen clients that got a complete response and keep sending slowly, to a server with two workers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from servers import Served, wait_until
from site_under_test import Site
from slow_clients import slow_clients
from waits import HANG

LINES = "Host: localhost\r\nContent-Type: application/octet-stream"
CHUNKED = f"{LINES}\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = f"{LINES}\r\nContent-Length: 36000000\r\n\r\n"
CLOSE = f"{LINES}\r\nConnection: close\r\n\r\n"

Serve = Callable[[str, bool], Served]

# A response that is complete while its request may go on: of either framing, status, version and kind of closing.
KINDS = [
    pytest.param(f"POST /legacy HTTP/1.1\r\n{LARGE}", "1", id="401"),
    pytest.param(f"POST /nowhere HTTP/1.0\r\n{LARGE}", "1", id="401, HTTP/1.0"),
    pytest.param(f"POST /legacy HTTP/1.1\r\nExpect: 100-continue\r\n{LARGE}", "1", id="401, Expect"),
    pytest.param(f"HEAD /legacy HTTP/1.1\r\n{LARGE}", "1", id="401, HEAD"),
    pytest.param(f"GET /legacy HTTP/1.1\r\nUpgrade: websocket\r\n{LINES}\r\n\r\n", "1", id="401, Upgrade"),
    pytest.param(f"POST /legacy HTTP/1.1\r\n{CHUNKED}", "1\r\n1\r\n", id="401, chunked"),
    pytest.param(f"POST /legacy HTTP/1.1\r\n{CHUNKED}not hexadecimal\r\n", "1", id="401, a malformed chunk"),
    pytest.param(f"POST /legacy HTTP/1.1\r\n{CHUNKED}1;a=", "a", id="401, an endless chunk extension"),
    pytest.param(f"POST /legacy HTTP/1.1\r\n{CHUNKED}0\r\n", "a", id="401, an endless trailer"),
    pytest.param(f"GET /healthz HTTP/1.1\r\n{LARGE}", "1", id="200"),
    pytest.param(f"GET /healthz HTTP/1.1\r\n{LINES}\r\nContent-Length: 2\r\n\r\n", "", id="200, small, nothing comes"),
    pytest.param(f"GET /healthz HTTP/1.1\r\n{CLOSE}", "", id="200, Connection: close, held open"),
    pytest.param(f"GET /healthz HTTP/1.1\r\n{CLOSE}", "1", id="200, Connection: close, sends on"),
    pytest.param(100 * f"POST / HTTP/1.1\r\n{LINES}\r\nContent-Length: 1\r\n\r\n1", "", id="pipelined, never read"),
]


def slowest(served: Served, seconds: float) -> float:
    """Return how long the slowest of the requests took that an honest client sends for some seconds."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        assert served.call("GET", "/healthz")[0] == 200
        times.append(time.monotonic() - started)
    return max(times)


def assert_quick(served: Served, head: str, drip: str, seconds: float = 0.5, **options: Any) -> None:
    """Check that slow clients delay a legitimate GET by at most 0.3 s.

    Where they hold the threads, none does. A machine that does other things beside these tests gets three tries.
    """
    usual = slowest(served, 0.2)
    with slow_clients(served, head, drip, **options):
        assert any(slowest(served, seconds) <= 0.3 + usual for _ in range(3))


@pytest.mark.parametrize(("head", "drip"), KINDS)
def test_sixteen_slow_clients(serve: Serve, head: str, drip: str) -> None:
    """Two workers with four threads: a legitimate GET takes at most 0.3 s."""
    served = serve("gthread", True)
    assert_quick(served, head, drip)


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_sixteen_slow_clients_that_come_again(serve: Serve, worker: str) -> None:
    """Each begins again when the server has ended its connection."""
    served = serve(worker, True)
    assert_quick(served, f"POST /legacy HTTP/1.1\r\n{LARGE}", "1", 2.5)


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_sixteen_records_that_do_not_end(serve: Serve, worker: str) -> None:
    """A TLS record cannot be read before its last byte; gevent starts its timeout again with each byte of it."""
    served = serve(worker, True)
    assert_quick(served, f"POST /legacy HTTP/1.1\r\n{LARGE}", "1", 1.5, record=True)


def test_sixteen_malformed_bodies_that_a_view_reads(serve: Serve, site: Site) -> None:
    """The connection is closed; gunicorn would wait for each client in the accepting thread."""
    served = serve("gthread", True)
    head = f"POST /legacy HTTP/1.1\r\nX-API-Key: {site.api_key}\r\n{CHUNKED}not hexadecimal\r\n"
    assert_quick(served, head, "1")


def test_sixteen_clients_that_send_as_fast_as_they_must(serve: Serve) -> None:
    """A quarter of the threads reads them, for five seconds each; the others serve."""
    served = serve("gthread", True)
    assert_quick(served, f"POST /legacy HTTP/1.1\r\n{LARGE}", "1" * 66_000, 1.5, pace=0.0625)


@pytest.mark.parametrize("head", [f"GET /healthz HTTP/1.1\r\n{LINES}\r\nX-Slow: ", "GARBAGE\r\n\r\n"])
def test_slow_requests_to_gevent(serve: Serve, head: str) -> None:
    """gunicorn with gevent handles requests that never reach the app; with threads it needs a proxy."""
    served = serve("gevent", True)
    assert_quick(served, head, "a")


def test_the_time_of_a_slow_client_is_not_that_of_its_request(serve: Serve) -> None:
    """The record is written before the rest is read, and the connection ends within the limits."""
    served = serve("gthread", True)
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain,
        served.context.wrap_socket(plain, server_hostname="localhost") as channel,
    ):
        channel.sendall(f"POST /slow HTTP/1.1\r\n{LARGE}".encode())
        started = time.monotonic()
        received = b"".join(iter(lambda: channel.recv(65536), b""))
        wait_until(lambda: not is_open(channel), "the end of the connection")
        seconds = time.monotonic() - started
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in received
    assert seconds < HANG
    wait_until(lambda: '"path":"/slow"' in served.log.read_text(), "the record")
    record = next(line for line in served.log.read_text().splitlines() if '"path":"/slow"' in line)
    assert json.loads(record)["ms"] < 500


def is_open(channel: socket.socket) -> bool:
    """Return whether the other side still takes bytes."""
    try:
        channel.send(b"1")
    except OSError:
        return False
    return True
