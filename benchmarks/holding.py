"""Latency of other requests while clients are slow or a view computes, by worker class, over TLS."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from flask_secure_ml.deploy.dev_certificate import DevCertificate, ensure

from .apps import access_token, bearer, signing_key
from .servers import running
from .workers import GUNICORN, WORKERS

_APP = "benchmarks.served:computing_app()"
SLOW_CLIENTS = 60
BESIDE_SLOW_CLIENTS = 2.0
BESIDE_A_VIEW = 1.0
COMPUTING_CLIENTS = 2
_SECONDS = 4.0
_PACE = 0.2
_PATIENCE = 5.0
_HELD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
_BODY = b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
_LARGE = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table: the slowest of the other requests, in seconds."""
    headers = bearer(access_token(signing_key(folder)))
    files = ensure(folder, (), datetime.now(UTC))
    kinds = ["half a header", "half a body", "slow reading", "TLS, then silence", "computing: /livez", "computing: 401"]
    yield f"{'worker':>12}" + "".join(f"{kind:>20}" for kind in kinds)
    served = {name: (options, _APP) for name, options in WORKERS.items()}
    # With gevent, a view should compute in the thread pool, because otherwise it blocks all greenlets.
    served["gevent, pool"] = (WORKERS["gevent"], "benchmarks.served:computing_app(pool=True)")
    for name, (options, app) in served.items():
        print(f"holding {name} ...", end="\r", file=sys.stderr)
        tls = ("--certfile", str(files.certificate), "--keyfile", str(files.key))
        command = (*GUNICORN, *options, *tls, app)
        cells = []
        with running(command, 4, folder) as (port, _):
            site = _Site(port, files, headers)
            if site.seconds("GET", "/livez") >= _PATIENCE:
                raise RuntimeError(f"{name} does not respond")
            for kind in range(4):
                with _slow_clients(site, kind):
                    cells.append(_cell(site.slowest("GET", "/livez"), BESIDE_SLOW_CLIENTS))
                site.slowest("GET", "/livez", seconds=1.0)
            for method, path in (("GET", "/livez"), ("POST", "/predict")):
                with _computing(site):
                    cells.append(_cell(site.slowest(method, path), BESIDE_A_VIEW))
        yield f"{name:>12}" + "".join(f"{cell:>20}" for cell in cells)


def _cell(seconds: float, most: float) -> str:
    return f"{'none' if seconds >= _PATIENCE else f'{seconds:.2f} s'} {'met' if seconds <= most else 'MISSED'}"


class _Site:
    """A TLS server under test.

    :param headers: the headers of an authenticated caller.
    """

    def __init__(self, port: int, files: DevCertificate, headers: Mapping[str, str]) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(files.authority))
        self.headers = headers

    def connect(self) -> ssl.SSLSocket:
        """Return a connection after the handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def seconds(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> float:
        """Return the duration of one request on a new connection; the timeout if there is no response."""
        started = time.monotonic()
        connection = HTTPSConnection("localhost", self.port, timeout=_PATIENCE, context=self.context)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            connection.getresponse().read()
        except (OSError, HTTPException):
            return _PATIENCE
        finally:
            connection.close()
        return time.monotonic() - started

    def slowest(self, method: str, path: str, *, seconds: float = _SECONDS) -> float:
        """Return the duration of the slowest request that one client sends within some seconds."""
        ends, found = time.monotonic() + seconds, 0.0
        while time.monotonic() < ends and found < _PATIENCE:
            found = max(found, self.seconds(method, path))
        return found


@contextmanager
def _slow_clients(site: _Site, kind: int) -> Iterator[None]:
    """Keep slow clients of a kind connected; each reconnects when the server closes its connection."""
    credential = "".join(f"{name}: {value}\r\n" for name, value in site.headers.items()).encode()
    head, drip = ((_HELD, b"X"), (_HELD + credential + _BODY, b" "), (_LARGE, b""), (b"", b""))[kind]
    with ExitStack() as stack:
        stop = stack.enter_context(_set_at_the_end())
        for _ in range(SLOW_CLIENTS):
            thread = threading.Thread(target=_slow_client, args=(site, head, drip, stop), daemon=True)
            thread.start()
            stack.callback(stop.set)
        # Wait until the first clients have sent their initial bytes.
        stop.wait(1.0)
        yield


@contextmanager
def _set_at_the_end() -> Iterator[threading.Event]:
    stop = threading.Event()
    try:
        yield stop
    finally:
        stop.set()


def _slow_client(site: _Site, head: bytes, drip: bytes, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(OSError), site.connect() as channel:
            channel.sendall(head)
            while not stop.wait(_PACE):
                channel.sendall(drip)
        stop.wait(_PACE)


@contextmanager
def _computing(site: _Site) -> Iterator[None]:
    """Let clients call the computing view repeatedly."""
    with ExitStack() as stack:
        stop = stack.enter_context(_set_at_the_end())
        threads = [threading.Thread(target=_compute, args=(site, stop)) for _ in range(COMPUTING_CLIENTS)]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
            stack.callback(stop.set)
        yield


def _compute(site: _Site, stop: threading.Event) -> None:
    while not stop.is_set():
        site.seconds("GET", "/compute", site.headers)
