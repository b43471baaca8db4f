"""HTTP servers on loopback that run in a thread of the test process."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from threading import Thread
from typing import TypeVar

from certificates import Certificate

Server = TypeVar("Server", bound=TCPServer)


class QuietHandler(BaseHTTPRequestHandler):
    """A handler without a log."""

    def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Suppress the log."""


@contextmanager
def in_thread(server: Server, certificate: Certificate | None = None) -> Iterator[Server]:
    """Run a server until the block ends, over TLS if there is a certificate."""
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        # In the thread of a connection, so that a client that does not finish its handshake delays no other.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with server:
        # shutdown() waits for the next poll, half a second by default.
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
