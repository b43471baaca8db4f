"""A server behind a proxy that drops connections and records the requests that it received."""

from __future__ import annotations

import re
import socketserver
from email.utils import formatdate

_SERVED = re.compile(rb"POST /ok |GET /(?!broken)")


class _Handler(socketserver.StreamRequestHandler):
    """Reads each request, and closes the connection without a response unless it is ``/ok`` or a public GET."""

    server: BreakingServer

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline()).strip():
                name, _, value = header.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            self.rfile.read(length)
            # Health checks are HTTP/1.0.
            if b" HTTP/1.0" not in line:
                self.server.lines.append(line.decode().strip())
                if not _SERVED.match(line):
                    return
            now = formatdate(usegmt=True)
            # A response without Cache-Control could be stored heuristically.
            said = f'ETag: "1"\r\nLast-Modified: {now}' if b" /unsaid " in line else "Cache-Control: public, max-age=60"
            self.wfile.write(f"HTTP/1.1 200 OK\r\nDate: {now}\r\n{said}\r\nContent-Length: 2\r\n\r\nok".encode())


class BreakingServer(socketserver.ThreadingTCPServer):
    """The server; ``lines`` has the request lines that it has read, and ``place`` its address."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lines: list[str] = []
        self.place = f"127.0.0.1:{self.server_address[1]}"
