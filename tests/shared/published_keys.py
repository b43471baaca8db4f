"""A server on loopback that publishes a key set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from certificates import Certificate
from http_servers import QuietHandler, in_thread


class Published:
    """The document at a URL.

    :param document: the key set; None for a status of 500.
    """

    def __init__(self, document: bytes | None) -> None:
        self.document = document
        self.uri = ""


@contextmanager
def published(document: str, certificate: Certificate | None = None) -> Iterator[Published]:
    """Serve a document until the block ends, over TLS if there is a certificate."""
    found = Published(document.encode())

    class KeySet(QuietHandler):
        def do_GET(self) -> None:
            status = 500 if found.document is None else 200
            self.respond(status, found.document or b"", {"Content-Type": "application/json"})

    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), KeySet), certificate) as server:
        site = f"http://127.0.0.1:{server.server_port}"
        if certificate is not None:
            site = f"https://localhost:{server.server_port}"
        found.uri = f"{site}/jwks"
        yield found
