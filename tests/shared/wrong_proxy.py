"""A small proxy that terminates TLS in front of an app, correct by default, with optional faults."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from typing import Any

from certificates import Certificate
from http_servers import QuietHandler, in_thread

HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
FORWARDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}
Headers = list[tuple[str, str]]


@dataclass
class Faults:
    """The faults of the proxy.

    :param keeps: client headers that it forwards, in lower case.
    :param address_from: the client header from which it takes the IP address.
    :param largest_body: the maximum size of a body in bytes; larger ones get its own 413.
    :param longest_header: the maximum size of a header in bytes.
    :param replaces: the statuses whose responses it replaces with its own page.
    :param methods: the methods that it does not forward.
    :param removes: the response headers that it removes, in lower case.
    :param adds: response headers that it adds.
    :param itself: paths to which it responds itself.
    :param caches: it caches responses for all clients alike.
    :param any_host: it forwards requests for other hosts.
    :param echoes: it responds to TRACE.
    :param repeats_host: its responses contain the host that a client claims.
    :param tls: changes the TLS context.
    :param scheme: the scheme that it forwards for every request.
    :param credential: the API key that it adds to requests without one.
    :param header_timeout: the time limit for the head of a request in seconds.
    """

    keeps: frozenset[str] = frozenset()
    address_from: str = ""
    largest_body: int = 10**9
    longest_header: int = 10**6
    replaces: frozenset[int] = frozenset()
    methods: frozenset[str] = frozenset()
    removes: frozenset[str] = frozenset()
    adds: Headers = field(default_factory=list)
    itself: frozenset[str] = frozenset()
    caches: bool = False
    any_host: bool = False
    echoes: bool = False
    repeats_host: bool = False
    tls: Callable[[ssl.SSLContext], object] = lambda _context: None
    scheme: str = ""
    credential: str = ""
    header_timeout: float = 30.0


class Proxy(ThreadingHTTPServer):
    """Forwards requests to an app on loopback."""

    request_queue_size = 64

    def __init__(self, upstream: int, faults: Faults, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.faults = faults
        self.context = context
        self.cache: dict[str, tuple[int, Headers, bytes]] = {}
        self.connections = 0
        self.agents: set[str] = set()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Perform the handshake in the thread of the connection."""
        self.connections += 1
        request.settimeout(self.faults.header_timeout)
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                request.close()
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that disconnect."""


class Handler(QuietHandler):
    """Handles one connection."""

    server: Proxy
    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        return "proxy"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.server.agents.add(self.headers["User-Agent"] or "")
        self.pass_on()
        self.close_connection = True

    def pass_on(self) -> None:
        faults = self.server.faults
        size = int(self.headers["Content-Length"] or 0)
        hosts = {f"localhost:{self.server.server_port}", f"127.0.0.1:{self.server.server_port}"}
        if size > faults.largest_body:
            self.page(413)
        elif any(len(value) > faults.longest_header for value in self.headers.values()):
            self.page(400)
        elif self.command == "TRACE":
            self.answer(200, [], str(self.headers).encode()) if faults.echoes else self.page(405)
        elif self.command in faults.methods:
            self.page(403)
        elif self.headers["Host"] not in hosts and not faults.any_host:
            self.page(421)
        elif self.path in faults.itself:
            self.answer(200, [("Content-Type", "text/html")], b"itself")
        elif faults.caches and self.path in self.server.cache:
            status, headers, body = self.server.cache[self.path]
            self.answer(status, [*headers, ("Age", "1")], body)
        else:
            self.fetch(self.rfile.read(size))

    def fetch(self, body: bytes) -> None:
        faults = self.server.faults
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in HOP | FORWARDED]
        kept = [(name, value) for name, value in self.headers.items() if name.lower() in faults.keeps]
        taken = {name.lower() for name, _ in kept}
        address = (self.headers[faults.address_from] if faults.address_from else "") or self.client_address[0]
        scheme = faults.scheme or ("http" if self.server.context is None else "https")
        own = {"x-forwarded-for": address, "x-forwarded-proto": scheme, "x-forwarded-host": self.headers["Host"]}
        headers += [*kept, *((name, value) for name, value in own.items() if name not in taken)]
        if faults.credential and "X-API-Key" not in self.headers:
            headers.append(("X-API-Key", faults.credential))
        connection = HTTPConnection("127.0.0.1", self.server.upstream, timeout=10)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            connection.send(body)
            response = connection.getresponse()
            self.deliver(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def deliver(self, status: int, headers: Headers, body: bytes) -> None:
        faults = self.server.faults
        if faults.caches and status == 200 and self.command == "GET":
            self.server.cache[self.path] = (status, headers, body)
        if status in faults.replaces:
            self.page(status)
            return
        headers = [(name, value) for name, value in headers if name.lower() not in faults.removes]
        if faults.repeats_host:
            headers.append(("X-Canonical", self.headers["X-Forwarded-Host"] or ""))
        self.answer(status, [*headers, *faults.adds], body)

    def page(self, status: int) -> None:
        self.answer(status, [("Content-Type", "text/html")], b"<h1>proxy</h1>")

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def proxying(upstream: int, certificate: Certificate | None, faults: Faults | None = None) -> Iterator[Proxy]:
    """Run a proxy in front of an app on a loopback port; without a certificate, in clear text."""
    faults = faults or Faults()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            faults.tls(context)
    with in_thread(Proxy(upstream, faults, context)) as proxy:
        yield proxy
