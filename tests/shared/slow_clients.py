"""Clients that begin a request and then send next to nothing, for as long as the server lets them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from servers import Served

PACE = 0.2


class SlowClient:
    """One connection, opened again whenever the server ends it.

    :param head: what is sent at once.
    :param drip: what is sent every 0.2 seconds after it; nothing, to hold the connection only.
    """

    def __init__(self, served: Served, head: bytes, drip: bytes) -> None:
        self._served = served
        self._head = head
        self._drip = drip
        self._channel: ssl.SSLSocket | None = None

    def step(self) -> None:
        """Send the next bytes, or connect."""
        try:
            if self._channel is None:
                plain = socket.create_connection(("127.0.0.1", self._served.port), timeout=5)
                self._channel = self._served.context.wrap_socket(plain, server_hostname="localhost")
                self._channel.sendall(self._head)
            elif self._drip:
                self._channel.sendall(self._drip)
        except OSError:
            self.close()

    def close(self) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.close()
            self._channel = None


@contextmanager
def slow_clients(served: Served, count: int, head: bytes, drip: bytes) -> Iterator[None]:
    """Keep some slow clients connected while the block runs; all have sent their head when it begins."""
    clients = [SlowClient(served, head, drip) for _ in range(count)]
    stop = threading.Event()
    for client in clients:
        client.step()

    def run() -> None:
        while not stop.wait(PACE):
            for client in clients:
                client.step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for client in clients:
            client.close()
