"""The audit log of real workers under load that are killed at any instant."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_secure_ml.observe.audit.keys import load_verification_key, make_keys
from flask_secure_ml.observe.audit.reading import records_of
from flask_secure_ml.observe.audit.verify import verify_log
from servers import gunicorn, wait_until
from stored_keys import key_in_file

SECONDS = float(os.environ.get("AUDIT_KILL_SECONDS", "3"))
"""How long all classes of workers together are killed."""

CLIENTS = 4
COUNT = 4
WORKERS = {
    "sync": (0.4, ("--workers", f"{COUNT}", "--preload")),
    "threads": (0.4, ("--workers", f"{COUNT}", "--threads", "4", "--preload")),
    "gevent": (1.2, ("--workers", f"{COUNT}", "--worker-class", "gevent", "--preload")),
}
"""The most seconds between two kills, which let workers of a class start, and the options of gunicorn."""


class Clients:
    """Clients that send requests with ids of their own, and note each one of whose response they got anything."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._stopped = threading.Event()
        self.received: list[str] = []
        self.sent = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=[number]) for number in range(CLIENTS)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self._stopped.set()
            for each in threads:
                each.join()

    def _run(self, client: int) -> None:
        count = 0
        while not self._stopped.is_set():
            count += 1
            name = f"client-{client}-request-{count:06d}"
            self.sent += 1
            with contextlib.suppress(OSError):
                self._call(name)

    def _call(self, name: str) -> None:
        body = b'{"instances": [[1, 2, 3, 4]]}'
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {name}\r\nX-API-Key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as channel:
            channel.sendall(head.encode() + body)
            if channel.recv(1):
                self.received.append(name)
            while channel.recv(65536):
                pass


def workers_of(master: int) -> list[int]:
    """Return the processes that serve, of those that the master has started."""
    return [int(each) for each in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def master_of(log: Path) -> int:
    """Return the process that starts the workers, as gunicorn logs it."""
    return int(
        next(line for line in log.read_text().splitlines() if "Starting gunicorn" in line).split("[")[2].split("]")[0]
    )


def started(log: Path) -> set[int]:
    """Return the processes that have recorded anything."""
    return {each["pid"] for each in records_of(log) if each["action"] == "start"}


@pytest.mark.parametrize("kind", WORKERS)
def test_workers_that_are_killed(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """No client got anything of a response that has no record, and the log verifies exactly."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    log, key, outside = tmp_path / "log", tmp_path / "verification.key", tmp_path / "outside"
    make_keys(log, key, "tests/audit")
    settings = {
        "API_KEYS": str(tmp_path / "keys.json"),
        "REQUIRE_TLS": "false",
        "REQUEST_LOG": "off",
        "TRUSTED_PROXIES": '["127.0.0.1/32"]',
        "PLANS": '{"default": {"requests": ["1000000/minute"]}}',
        "AUDIT_LOG": str(log),
        "AUDIT_REQUIRED": "true",
        "AUDIT_CHECKPOINT_SINKS": f'["file:{outside}"]',
        "AUDIT_CHECKPOINT_SECONDS": "1",
        "AUDIT_ROTATE_BYTES": "200000",
    }
    api_key = key_in_file(settings["API_KEYS"])
    served_with = environ | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    killed: set[int] = set()
    pause, options = WORKERS[kind]
    chosen = random.Random(7)
    with gunicorn(tmp_path, None, served_with, *options, stop=subprocess.Popen.terminate) as served:
        master = master_of(served.log)
        clients = Clients(served.port, api_key)
        with clients.running():
            wait_until(lambda: bool(clients.received), "nothing is served")
            ends = time.monotonic() + SECONDS / len(WORKERS)
            while time.monotonic() < ends:
                time.sleep(chosen.uniform(0.05, pause))
                with contextlib.suppress(ProcessLookupError, IndexError):
                    worker = chosen.choice(workers_of(master))
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)

            def are_replaced() -> bool:
                serving = set(workers_of(master))
                return len(serving) == COUNT and not serving & killed and serving <= started(log)

            # A worker that is asked to stop while it starts does not hear that.
            wait_until(are_replaced, "a worker serves nothing")
    recorded = [each["request_id"] for each in records_of(log) if each["action"] == "request"]
    assert killed
    assert sorted(set(clients.received) - set(recorded)) == []
    report = verify_log(log, load_verification_key(key), outside=outside.read_text(), now=time.time(), max_age=60)
    assert report.ok, [str(each) for each in report.findings]
    assert {each.kind for each in report.findings} <= {"torn", "uncovered"}
    assert report.records == sum(1 for _ in records_of(log))
    # Those that were asked to stop have recorded it.
    assert sum(each["action"] == "stop" for each in records_of(log)) == COUNT
    sys.stdout.write(f"{kind}: {len(killed)} killed, {clients.sent} sent, {len(clients.received)} received\n")
