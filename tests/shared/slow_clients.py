"""Clients that begin a request and then send almost nothing, for as long as the server allows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from servers import Served, wait_until

PACE = 0.2
RECORD = b"\x17\x03\x03\x40\x00"
"""The header of a TLS record of 16 KiB."""


class SlowClient:
    """A thread with one connection, which it reopens whenever the server closes it.

    :param head: the bytes that are sent at once.
    :param drip: the bytes that are then sent repeatedly; empty to only keep the connection open.
    :param pace: the interval between these in seconds.
    :param record: send the bytes after the head below TLS, as one record that does not end.
    """

    def __init__(self, served: Served, head: bytes, drip: bytes, pace: float = PACE, *, record: bool = False) -> None:
        self._served = served
        self._head = head
        self._drip = drip
        self._pace = pace
        self._record = record
        self._stop = threading.Event()
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(PACE if self.started.is_set() else 0):
            with suppress(OSError):
                self._connect()

    def _connect(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self._served.port), timeout=5) as plain,
            self._served.context.wrap_socket(plain, server_hostname="localhost") as channel,
        ):
            channel.sendall(self._head)
            self.started.set()
            if self._record:
                with socket.socket(fileno=channel.detach()) as beneath:
                    self._go_on(beneath, RECORD)
            self._go_on(channel, b"")

    def _go_on(self, channel: socket.socket, first: bytes) -> None:
        channel.sendall(first)
        while not self._stop.wait(self._pace):
            channel.sendall(self._drip)

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def slow_clients(
    served: Served, head: str, drip: str, pace: float = PACE, *, record: bool = False, count: int = 16
) -> Iterator[None]:
    """Keep slow clients connected for the duration of the block, which begins when all have started.

    :raises TimeoutError: a client cannot start, because the others block the server.
    """
    clients = [SlowClient(served, head.encode(), drip.encode(), pace, record=record) for _ in range(count)]
    for client in clients:
        client.thread.start()
    try:
        wait_until(lambda: all(client.started.is_set() for client in clients), "the slow clients")
        yield
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.thread.join()
