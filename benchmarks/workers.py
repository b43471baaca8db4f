"""Processor time per request by gunicorn worker class."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from .apps import access_token, bearer, signing_key
from .bodies import LONG, SHORT, as_json, numbers
from .servers import ROUNDS, SECONDS_PER_ROUND, SHAPES, UVICORN, Caller, cpu_seconds, running
from .timing import Times, check_same

CONNECTIONS = 4
WORKERS = {
    "gthread(4)": ("--worker-class", "gthread", "--threads", "4"),
    "gevent": ("--worker-class", "gevent"),
    "sync": ("--worker-class", "sync"),
}
GUNICORN = ("gunicorn", "--workers", "1", "--keep-alive", "5", "--no-control-socket", "--bind", "127.0.0.1:{port}")


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table."""
    names = [*WORKERS, "FastAPI peer"]
    yield f"{'batch':>20}" + "".join(f"{name:>16}" for name in names) + "   CPU us (of the peer)"
    headers = bearer(access_token(signing_key(folder))) | {"Content-Type": "application/json"}
    for (rows, columns), digits in product(SHAPES, (SHORT, LONG)):
        batch = f"{rows}x{columns}, {digits} digits"
        print(f"workers {batch} ...", end="\r", file=sys.stderr)
        times = _measured(folder, columns, as_json(numbers(rows, columns, digits)), headers)
        cells = [f"{times.microseconds(place):,.0f} ({times.ratio(place, -1):.2f})" for place in range(len(names))]
        yield f"{batch:>20}" + "".join(f"{cell:>16}" for cell in cells)


def _measured(folder: Path, columns: int, data: bytes, headers: dict[str, str]) -> Times:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(CONNECTIONS))
        servers = [stack.enter_context(running(command, columns, folder)) for command in _commands()]
        calls = [_Clients(port, process, data, headers, pool) for port, process in servers]
        check_same([each.response() for each in calls])
        counts = [max(3, int(SECONDS_PER_ROUND / CONNECTIONS / each.cpu_seconds(20))) for each in calls]
        return Times(
            [[each.cpu_seconds(count) for each, count in zip(calls, counts, strict=True)] for _ in range(ROUNDS)]
        )


def _commands() -> Iterator[Sequence[str]]:
    for options in WORKERS.values():
        yield (*GUNICORN, *options, "benchmarks.served:secured_app()")
    yield UVICORN


class _Clients:
    """Four concurrent clients with one connection each, which is kept open during a round if the server allows it."""

    def __init__(self, port: int, process: int, data: bytes, headers: dict[str, str], pool: ThreadPoolExecutor) -> None:
        self._callers = [Caller(port, process, data, headers) for _ in range(CONNECTIONS)]
        self._process = process
        self._pool = pool

    def response(self) -> bytes:
        """Send one request, and return the body of the response."""
        return self._callers[0].response()

    def cpu_seconds(self, count: int) -> float:
        """Return the mean processor time of the server per request, in seconds.

        :param count: the number of requests of each client.
        """
        for each in self._callers:
            each.close()
        before = cpu_seconds(self._process)
        for sent in [self._pool.submit(_send, each, count) for each in self._callers]:
            sent.result()
        return (cpu_seconds(self._process) - before) / (count * CONNECTIONS)


def _send(caller: Caller, count: int) -> None:
    for _ in range(count):
        caller.response()
