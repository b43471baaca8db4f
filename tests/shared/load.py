"""Clients that send requests one after the other, each on a new connection, and record the outcome."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tls_handshakes import connect


class Load:
    """The outcomes of the requests: ``ok``, ``refused`` (no handshake, so no request was sent), ``lost`` or a status.

    ``reasons`` has the reason of each outcome other than ``ok``.

    :param path: the requested path.
    """

    def __init__(self, port: int, context: ssl.SSLContext, path: str) -> None:
        self._port = port
        self._context = context
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.reasons: list[tuple[str, str]] = []

    def run(self) -> None:
        """Send requests until the end."""
        while not self._stop.is_set():
            outcome, reason = self._one()
            with self._lock:
                self.counts[outcome] += 1
                if outcome != "ok":
                    self.reasons.append((outcome, reason))

    def lost(self) -> list[tuple[str, str]]:
        """Return the reasons of requests that were sent without getting a response."""
        return [each for each in self.reasons if each[0] != "refused"]

    def stop(self) -> None:
        """Stop sending requests."""
        self._stop.set()

    def _one(self) -> tuple[str, str]:
        try:
            channel = connect(self._port, self._context)
        except OSError as error:
            # Not in a loop that needs a processor while the server is away.
            self._stop.wait(0.05)
            return "refused", repr(error)
        with channel:
            try:
                channel.sendall(self._request)
                received = b"".join(iter(lambda: channel.recv(65_536), b""))
            except OSError as error:
                return "lost", repr(error)
        head, _, body = received.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 ") and body.endswith(b"}\n"):
            return "ok", ""
        return (head[9:12].decode() if head else "lost"), repr(received[:200])


@contextmanager
def load(port: int, context: ssl.SSLContext, path: str, clients: int) -> Iterator[Load]:
    """Run clients for the duration of the block; at its end, wait for their last requests."""
    running = Load(port, context, path)
    threads = [threading.Thread(target=running.run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.stop()
        for thread in threads:
            thread.join()
