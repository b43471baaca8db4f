"""URL checks of a service that never ends its response: each exchange has a time limit."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from flask_secure_ml.checks.url.client import Client
from flask_secure_ml.checks.url.exposure import silent_clients
from flask_secure_ml.checks.url.site import Site
from http_servers import in_thread

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
ENDLESS = {
    "a body of single bytes": (HEAD + b"\r\n", b"x"),
    "a head of single bytes": (HEAD + b"X-Long: ", b"x"),
    "a status line of single bytes": (b"HTTP/1.1 200 ", b"x"),
    "one head after the other": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunks of one byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}
LIMIT = 0.5


class Endless(socketserver.BaseRequestHandler):
    """Sends a prefix, then the same bytes endlessly."""

    server: Any

    def handle(self) -> None:
        begin, more = self.server.sends
        with suppress(OSError):
            self.request.sendall(begin)
            while not self.server.ended.wait(0.02):
                self.request.sendall(more)


@contextmanager
def endless(sends: tuple[bytes, bytes]) -> Iterator[int]:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads, server.sends, server.ended = True, sends, threading.Event()
    with in_thread(server):
        try:
            yield server.server_address[1]
        finally:
            server.ended.set()


@pytest.mark.parametrize("name", ENDLESS)
def test_one_exchange(name: str) -> None:
    """The exchange ends at the time limit, and is reported as a fault."""
    with endless(ENDLESS[name]) as port:
        begun = time.monotonic()
        reply = Client(f"http://127.0.0.1:{port}", timeout=LIMIT).send("GET", "/")
        assert time.monotonic() - begun < 10 * LIMIT
    assert (reply.status, reply.body) == (0, b"")
    assert reply.fault


def test_a_handshake(tmp_path: Path) -> None:
    """The time limit includes a TLS handshake that is sent byte by byte."""
    with endless((b"\x16\x03\x03\x40\x00", b"\x00")) as port:
        begun = time.monotonic()
        authorities = str(make_certificate(tmp_path).certificate)
        reply = Client(f"https://localhost:{port}", ca_file=authorities, timeout=LIMIT).send("GET", "/")
        assert time.monotonic() - begun < 10 * LIMIT
    assert reply.fault


@pytest.mark.parametrize("more", [b"x", b"X-Endless: x\r\n"])
def test_who_talks_for_ever_is_connected(more: bytes) -> None:
    """A server that keeps sending to a silent client is reported within the time limit."""
    with endless((b"HTTP/1.1 200 OK\r\n", more)) as port:
        site = Site(Client(f"http://127.0.0.1:{port}", timeout=LIMIT), patience=LIMIT)
        (found,) = silent_clients(site)
    assert "still connected after 0.5 seconds" in found.what
