"""Requests that each go to a given worker of a server, which its connection stays with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection

from servers import Served, wait_until


class Worker:
    """A connection to one of the workers of served_app."""

    def __init__(self, served: Served) -> None:
        self._connection = HTTPSConnection("localhost", served.port, context=served.context, timeout=10)
        self._connection.request("GET", "/healthz")
        self.number: int = json.load(self._connection.getresponse())["worker"]

    def status(self, headers: dict[str, str], path: str = "/whoami") -> int:
        self._connection.request("GET", path, headers=headers)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        self._connection.close()


@contextmanager
def all_workers(served: Served, count: int = 2) -> Iterator[list[Worker]]:
    """Connect until each worker was met."""
    met: dict[int, Worker] = {}

    def meet() -> bool:
        worker = Worker(served)
        if met.setdefault(worker.number, worker) is not worker:
            worker.close()
        return len(met) == count

    try:
        wait_until(meet, f"all {count} workers respond")
        yield list(met.values())
    finally:
        for each in met.values():
            each.close()
