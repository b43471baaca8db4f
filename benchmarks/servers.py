"""Processor time per request by server: gunicorn for Flask, uvicorn for the peer, with one worker each, alternating.

Processor time of the server and its children is read from the kernel, so waiting for the client does not count. All
use plain HTTP on loopback. Each server is started as in its documentation: gunicorn's default worker is ``sync``, which
needs a connection per request; uvicorn keeps connections open and parses with httptools. gunicorn's threaded worker
saves connections, but spends as much on passing requests to threads.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from .apps import access_token, bearer, signing_key
from .bodies import as_json, numbers
from .served import COLUMNS, FOLDER
from .timing import Times, check_same, verdict

ROUNDS = 11
# The kernel counts processor time in hundredths of a second.
SECONDS_PER_ROUND = 0.3
SHAPES = ((1, 4), (100, 20), (1000, 100))
MOST_OF_PEER = 0.5
MOST_WITH_EVERYTHING = 1.0
_PATIENCE = 30.0
_GUNICORN = ("gunicorn", "--workers", "1", "--worker-class", "sync", "--no-control-socket", "--bind")
UVICORN = (
    *("uvicorn", "--factory", "--no-access-log", "--log-level", "warning"),
    *("--host", "127.0.0.1", "--port", "{port}", "benchmarks.served:peer_app"),
)
NAMES = ("bare app, gunicorn", "flask-secure-ml, gunicorn", "the same, everything on", "FastAPI peer, uvicorn")
_SECURED, _OBSERVED, _PEER = 1, 2, 3


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table."""
    yield f"{'batch':>10}  {'server':<28}{'CPU us':>10}{'of bare':>10}{'of peer':>10}  target"
    headers = bearer(access_token(signing_key(folder))) | {"Content-Type": "application/json"}
    for rows, columns in SHAPES:
        print(f"serving {rows}x{columns} ...", end="\r", file=sys.stderr)
        times = _measured(folder, columns, as_json(numbers(rows, columns)), headers)
        for place, name in enumerate(NAMES):
            most = MOST_OF_PEER if place == _SECURED and rows > 1 else None
            most = MOST_WITH_EVERYTHING if place == _OBSERVED else most
            ratio = times.ratio(place, _PEER)
            yield (
                f"{'' if place else f'{rows}x{columns}':>10}  {name:<28}{times.microseconds(place):>10,.0f}"
                f"{times.ratio(place):>10.2f}{ratio:>10.2f}  {verdict(ratio, most)}"
            ).rstrip()


def _measured(folder: Path, columns: int, data: bytes, headers: dict[str, str]) -> Times:
    """Return the processor time of one request, by server."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running(command, columns, folder)) for command in _commands()]
        calls = [Caller(port, process, data, headers) for port, process in servers]
        check_same([each.response() for each in calls])
        counts = [max(3, int(SECONDS_PER_ROUND / each.cpu_seconds(60))) for each in calls]
        return Times(
            [[each.cpu_seconds(count) for each, count in zip(calls, counts, strict=True)] for _ in range(ROUNDS)]
        )


def _commands() -> Iterator[tuple[str, ...]]:
    yield (*_GUNICORN, "127.0.0.1:{port}", "benchmarks.served:bare_app()")
    yield (*_GUNICORN, "127.0.0.1:{port}", "benchmarks.served:secured_app()")
    yield (*_GUNICORN, "127.0.0.1:{port}", "benchmarks.served:observed_app()")
    yield UVICORN


@contextmanager
def running(command: Sequence[str], columns: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Run a server on loopback, and yield its port and process id."""
    port = free_port()
    words = [sys.executable, "-m", *(word.format(port=port) for word in command)]
    environ = os.environ | {COLUMNS: str(columns), FOLDER: str(folder)}
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait(port, process)
            yield port, process.pid
        finally:
            process.terminate()


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"a server did not start: {process.communicate()[1][-2000:]}")
        time.sleep(0.05)


class Caller:
    """A client with one connection, which is kept open during a round if the server allows it."""

    def __init__(self, port: int, process: int, data: bytes, headers: dict[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        self._process = process
        self._data = data
        self._headers = headers

    def response(self) -> bytes:
        """Send one request.

        :raises RuntimeError: the response is not 200.
        """
        self._connection.request("POST", "/predict", self._data, self._headers)
        response = self._connection.getresponse()
        found = response.read()
        if response.status != 200:  # noqa: PLR2004  the only response that is compared
            raise RuntimeError(f"a server responded with {response.status}: {found[:200]!r}")
        return found

    def cpu_seconds(self, count: int) -> float:
        """Return the mean processor time of the server per request, in seconds."""
        # The server may have closed the idle connection while the others were measured.
        self._connection.close()
        before = cpu_seconds(self._process)
        for _ in range(count):
            self.response()
        return (cpu_seconds(self._process) - before) / count

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()


def cpu_seconds(process: int) -> float:
    """Return the processor time, user and system, of a process with all threads, and of its children."""
    status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum(map(int, status[11:13])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, map(int, children)))
