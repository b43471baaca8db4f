"""The deployed app behind a real proxy with the generated configuration."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import proxied_app
from certificates import Certificate
from deployed_app import SETTINGS
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.files import Output
from flask_secure_ml.deploy.targets import targets
from plain_http import Answer
from proxied_place import HOST, Place, make_place
from servers import PATIENCE, Served, accepts, free_port, gunicorn, started
from support import RANDOM_SECRET

CLIENT, NEIGHBOUR = "127.0.0.5", "127.0.0.6"
"""The IP addresses of clients. The proxy is 127.0.0.1, the only one that the app trusts."""

TIMEOUT = 4
"""The ``request_timeout`` of the deployment, in seconds."""


@dataclass(frozen=True)
class Program:
    """A proxy program and its properties.

    :param target: the name of its target.
    :param command: returns the command line, for the directory of the generated files and one for files that the
        program writes.
    :param can: its features beyond the table: ``cache``, ``http2``, ``hides server``, and ``own 400`` (responses to
        requests that it cannot parse are problem documents). And its deviations: ``html`` responses to such requests,
        ``unbuffered`` responses, a word left in ``connection``, ``late`` (requests to a stopped server fail until that
        is detected), and ``cancels`` (over HTTP/2, it resets the stream of an unread body with an error after its
        response).
    :param reframes: the attacks of ``SMUGGLED`` that it forwards with a single length, as RFC 9112 section 6.3 allows.
    :param upstream: the host name of the servers, against which the proxy verifies their certificates.
    :param options: returns the options of ``SECURE_ML_DEPLOY`` for this program at a place.
    """

    target: str
    command: Callable[[Path, Path], Sequence[str]]
    can: frozenset[str] = frozenset()
    reframes: frozenset[str] = frozenset()
    options: Callable[[Place], Mapping[str, Any]] = lambda _: {}
    upstream: str = "127.0.0.1"


@dataclass(frozen=True)
class Proxied:
    """A running proxy with two servers of the app behind it."""

    place: Place
    program: Program
    served: Served
    clear_port: int
    status_port: int
    log: Path
    access_log: Path
    upstreams: tuple[ExitStack, ...]
    logs: tuple[Path, ...] = field(repr=False)

    @property
    def key(self) -> dict[str, str]:
        """The header with an API key."""
        return {"X-API-Key": self.place.key}

    def context(self, client: Certificate | None = None) -> ssl.SSLContext:
        """Return a context that trusts the service and uses a client certificate, if one is given."""
        context = ssl.create_default_context(cafile=str(self.place.trusted))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    @contextmanager
    def connected(
        self, client: Certificate | None = None, source: str = CLIENT, protocol: str = "http/1.1"
    ) -> Iterator[ssl.SSLSocket]:
        """Yield a TLS connection that negotiates a protocol (ALPN)."""
        context = self.context(client)
        context.set_alpn_protocols([protocol])
        with (
            socket.create_connection(("127.0.0.1", self.served.port), PATIENCE, (source, 0)) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as channel,
        ):
            yield channel

    @contextmanager
    def asked(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        client: Certificate | None = None,
        host: str = HOST,
        source: str = CLIENT,
    ) -> Iterator[HTTPResponse]:
        """Yield the response to one request; its body may be incomplete.

        A request body that is not bytes is sent as JSON, an iterator of bytes as chunked. A server may respond and
        close the connection before it has read the body.
        """
        sent = {"Host": host} | dict(headers or {})
        if body is not None and not isinstance(body, (bytes, Iterator)):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if isinstance(body, bytes):
            sent["Content-Length"] = str(len(body))
        elif body is not None:
            sent["Transfer-Encoding"] = "chunked"
        connection = HTTPSConnection(HOST, timeout=PATIENCE)
        with self.connected(client, source=source) as channel:
            connection.sock = channel
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            with suppress(OSError):
                for piece in _pieces(body):
                    channel.sendall(piece)
            yield connection.getresponse()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        client: Certificate | None = None,
        host: str = HOST,
        source: str = CLIENT,
    ) -> Answer:
        """Send one request over TLS and return the whole response; see :meth:`asked`."""
        with self.asked(method, path, body, headers, client=client, host=host, source=source) as response:
            return Answer(response.status, response.headers, response.read())

    def raw(self, data: bytes) -> bytes:
        """Send bytes over TLS, and return all bytes of the response."""
        with self.connected() as channel:
            channel.sendall(data)
            return _everything(channel)

    def clear(self, data: bytes, port: int | None = None) -> bytes:
        """Send bytes in clear text, by default to the clear-text port."""
        with socket.create_connection(("127.0.0.1", port or self.clear_port), PATIENCE, (CLIENT, 0)) as channel:
            channel.sendall(data)
            return _everything(channel)

    def status(self, path: str) -> bytes:
        """Return the response of the proxy's local listener for metrics."""
        return self.clear(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), self.status_port
        )

    def reached(self, text: str) -> list[str]:
        """Return the request lines that contain a text and that a server of the app has responded to."""
        lines = (line for log in self.logs for line in log.read_text().splitlines())
        return [line for line in lines if text in line]

    def open(self, name: str) -> None:
        """Open the gate for which a view of the app waits."""
        (self.place.gates / name).touch()


def _pieces(body: bytes | Iterator[bytes] | None) -> Iterator[bytes]:
    if body is None:
        return
    if isinstance(body, bytes):
        yield body
        return
    for piece in body:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _everything(channel: socket.socket) -> bytes:
    received = bytearray()
    with suppress(OSError):
        while piece := channel.recv(65_536):
            received += piece
    return bytes(received)


def proxied_facts(settings: Mapping[str, Any], **options: Any) -> Facts:
    """Return the facts of the app; ``options`` override those of its ``SECURE_ML_DEPLOY``."""
    deploy = SETTINGS["SECURE_ML_DEPLOY"] | {"streams": proxied_app.STREAMS} | options
    return facts_of(proxied_app.described(**settings, SECURE_ML_DEPLOY=deploy))


def write_target(name: str, facts: Facts, folder: Path) -> Path:
    """Write the files of a target as the command does, and return their directory."""
    wanted = {f"{name}/{path}": content for path, content in targets()[name].make(facts).items()}
    Output(folder, wanted, frozenset({name})).write(force=False)
    return folder / name


@dataclass(frozen=True)
class Backend:
    """Two running servers of the app, with the settings for their clients."""

    place: Place
    tls: bool
    ports: tuple[int, ...]
    running: tuple[ExitStack, ...]

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files with the request lines to which each server has responded."""
        return tuple(_requests(self.place, number) for number in range(len(self.ports)))


@contextmanager
def backend(folder: Path, *, tls: bool = False, **settings: Any) -> Iterator[Backend]:
    """Run two servers with the generated configuration, for use behind several proxies in turn."""
    place = make_place(folder, **settings)
    with ExitStack() as running:
        servers = tuple(running.enter_context(ExitStack()) for _ in range(2))
        served = [_serve(place, server, number, tls) for number, server in enumerate(servers)]
        yield Backend(place, tls, tuple(each.port for each in served), servers)


@contextmanager
def proxied(
    folder: Path,
    program: Program,
    *,
    upstream_tls: bool = False,
    behind: Backend | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Proxied]:
    """Run a proxy with the generated files in front of two servers, which are new ones unless a backend is given.

    ``options`` override those of ``SECURE_ML_DEPLOY``, and ``settings`` those of the app for which files are generated.
    """
    with ExitStack() as running:
        found = behind or running.enter_context(backend(folder, tls=upstream_tls, **(settings or {})))
        place = found.place
        scratch = folder / "scratch"
        scratch.mkdir()
        port, clear_port, status_port = free_port(), free_port(), free_port()
        options = {
            "hosts": [HOST, "localhost"],
            "listen": ["127.0.0.1"],
            "port": port,
            "clear_text_port": clear_port,
            "status_port": status_port,
            "upstreams": [f"{program.upstream}:{each}" for each in found.ports],
            "certificate": str(place.server.certificate),
            "certificate_key": str(place.server.key),
            "client_ca": str(place.client_authority),
            "proxy_directory": str(scratch),
            "proxy_user": "root",
            "access_log": str(scratch / "access.log"),
            "request_timeout": TIMEOUT,
            **({"upstream_ca": str(place.trusted)} if found.tls else {}),
            **program.options(place),
        } | options
        files = write_target(
            program.target, proxied_facts(place.settings | dict(settings or {}), **options), folder / "deploy"
        )
        log = folder / f"{program.target}.log"
        running.enter_context(started(program.command(files, scratch), partial(accepts, port), log))
        yield Proxied(
            place,
            program,
            Served(port, Certificate(place.trusted, place.server.key), log),
            clear_port,
            status_port,
            log,
            Path(options["access_log"]),
            found.running,
            found.logs,
        )


def _requests(place: Place, number: int) -> Path:
    return place.folder / f"requests-{number}.log"


def _serve(place: Place, running: ExitStack, number: int, tls: bool) -> Served:
    facts = proxied_facts(place.settings, request_timeout=TIMEOUT)
    config = write_target("gunicorn", facts, place.folder / f"server-{number}")
    requests = _requests(place, number)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    environ |= {f"FLASK_{name}": json.dumps(value) for name, value in place.settings.items()}
    environ |= {"PEPPER": RANDOM_SECRET, proxied_app.GATES: str(place.gates)}
    command = ["--config", str(config / "gunicorn.conf.py"), "--workers", "1", "--threads", "8"]
    command += ["--graceful-timeout", "1", "--access-logfile", str(requests), "--access-logformat", "%(r)s"]
    requests.touch()
    certificate = place.server if tls else None
    return running.enter_context(gunicorn(place.folder, certificate, environ, *command, app="proxied_app:create_app()"))
