"""Clients that stop sending, send too slowly, or do not read: gunicorn closes their connections."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from certificates import Certificate
from servers import gunicorn, wait_until
from serving import serving
from tls_handshakes import connect
from waits import HANG

WAITS = {
    "TCP, then silence": None,
    "TLS, then silence": b"",
    "half a header": b"GET /wait/0 HTTP/1.1\r\nHost: local",
    "half a body": b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1",
}


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_clients_that_send_nothing_more(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """Their connections are closed after the time-out, without a traceback."""
    with (
        serving(tmp_path, certificate, WORKER_CLASS=worker, TIMEOUT=3, KEEPALIVE=3, WORKERS=1) as served,
        ExitStack() as stack,
    ):
        channels: list[socket.socket] = []
        for data in WAITS.values():
            if data is None:
                plain = socket.create_connection(("127.0.0.1", served.port), timeout=HANG)
                channels.append(stack.enter_context(plain))
            else:
                channels.append(stack.enter_context(connect(served.port, served.context)))
                channels[-1].sendall(data)
        for channel in channels:
            # TimeoutError means that the server still waits.
            with suppress(ConnectionError, ssl.SSLError):
                while channel.recv(65_536):
                    pass
        assert "Traceback" not in served.log.read_text()


def test_a_handshake_byte_by_byte(tmp_path: Path, certificate: Certificate) -> None:
    """Under gevent it has a time-out as a whole; the one for each wait would never be over."""
    config = tmp_path / "quick.py"
    config.write_text(
        "from flask_secure_ml.deploy import gunicorn_tls\n"
        "gunicorn_tls.HANDSHAKE_SECONDS = 1.0\n"
        "from flask_secure_ml.deploy.gunicorn import *\n"
    )
    hello = ssl.MemoryBIO()
    near = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        near.do_handshake()
    drops = iter(hello.read())
    options = ("-c", str(config), "--workers", "1")
    with (
        gunicorn(tmp_path, certificate, dict(os.environ), *options, app="slow_app:create_app()") as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=0.1) as plain,
    ):

        def is_closed() -> bool:
            try:
                plain.sendall(bytes([next(drops)]))
                return not plain.recv(100)
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, "the server waits for the client")
        assert served.call("GET", "/wait/0")[0] == 200
        assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_clients_that_do_not_read(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """The connection is closed before the response is complete, and its end is none of the errors of the server."""
    with serving(tmp_path, certificate, WORKER_CLASS=worker, TIMEOUT=3, WORKERS=1, LOG_LEVEL="debug") as served:
        with connect(served.port, served.context) as channel:
            channel.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            line = "closed after an idle timeout"
            wait_until(lambda: line in served.log.read_text(), "the server waits for the client")
            received = 0
            with suppress(ConnectionError, ssl.SSLError):
                while data := channel.recv(65_536):
                    received += len(data)
        assert 0 < received < 20_000_000
        assert served.call("GET", "/wait/0")[0] == 200
        assert "Traceback" not in served.log.read_text()
