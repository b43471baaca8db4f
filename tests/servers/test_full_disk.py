"""A disk of 3 MB with both logs that fills while a server is under load, and has space again."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flask_secure_ml.observe.audit.keys import load_verification_key, make_keys
from flask_secure_ml.observe.audit.reading import records_of
from flask_secure_ml.observe.audit.verify import verify_log
from servers import WORKERS, gunicorn, wait_until
from stored_keys import key_in_file

MEGABYTE = 1_000_000
BALLAST = MEGABYTE
WHEN_FULL = 400
"""How many requests are sent when the disk is full."""

CLIENTS = 4
# Each takes ten seconds, so "make prove" runs all.
KINDS = [*WORKERS] if os.environ.get("EVERY_WORKER") else ["gthread"]


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 3 MB, with a file of 1 MB that can be removed, where that is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed")
    try:
        (folder / "ballast").write_bytes(bytes(BALLAST))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Load:
    """Clients that send requests one after the other, with their responses."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"X-API-Key": key}
        self._lock = threading.Lock()
        self.got: list[tuple[int, str]] = []
        """Status and request id of each response, in the order of arrival."""

    def send(self, until: Callable[[], bool]) -> None:
        """Let all clients send requests until a condition is met.

        :raises OSError: a request was not responded to.
        """
        failures: list[Exception] = []
        threads = [threading.Thread(target=self._run, args=[until, failures]) for _ in range(CLIENTS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        assert not failures, failures
        assert not any(each.is_alive() for each in threads), "a request hangs"

    def get(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            body = response.read()
            with self._lock:
                self.got.append((response.status, response.headers["X-Request-ID"]))
            return response.status, body
        finally:
            connection.close()

    def _run(self, until: Callable[[], bool], failures: list[Exception]) -> None:
        try:
            while not until():
                self.get("/whoami")
        except Exception as error:  # noqa: BLE001 - for the test
            failures.append(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("required", [False, True], ids=["", "required"])
def test_a_disk_that_fills_under_load(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, kind: str, required: bool
) -> None:
    """No request waits or gets 500; each is recorded or counted as lost, and both logs are valid afterwards."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    key_file, outside = tmp_path / "verification.key", tmp_path / "outside"
    (tmp_path / "metrics").mkdir()
    with disk(tmp_path / "disk") as small:
        log, audit = small / "requests.log", small / "audit"
        make_keys(audit, key_file, "tests/full")
        settings = {
            "API_KEYS": str(tmp_path / "keys.json"),
            "REQUIRE_TLS": "false",
            "REQUEST_LOG": str(log),
            "PLANS": '{"default": {"requests": ["1000000/minute"]}}',
            "AUDIT_LOG": str(audit),
            "AUDIT_REQUIRED": json.dumps(required),
            "AUDIT_CHECKPOINT_SINKS": f'["file:{outside}"]',
            "AUDIT_CHECKPOINT_SECONDS": "1",
            "AUDIT_ROTATE_BYTES": "300000",
            "METRICS": "/metrics",
        }
        key = key_in_file(settings["API_KEYS"], scopes=("metrics",))
        given = environ | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
        given["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "metrics")
        options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "2", *WORKERS[kind])
        with gunicorn(tmp_path, None, given, *options) as served:
            load = Load(served.port, key)
            load.send(lambda: not free(small))
            filled = len(load.got)
            load.send(lambda: len(load.got) >= filled + WHEN_FULL)
            full = Counter(status for status, _ in load.got[filled:])
            (small / "ballast").unlink()
            emptied = len(load.got)
            load.send(lambda: len(load.got) >= emptied + WHEN_FULL)
            last = Counter(status for status, _ in load.got[emptied + CLIENTS :])
            _, metrics = load.get("/metrics")
            dropped = value_of(metrics.decode(), "secure_ml_log_dropped_lines_total")
            wait_until(outside.exists, "a checkpoint")
        records = [each for each in records_of(audit) if each["action"] == "request"]
        lost = sum(each["lost"] for each in records_of(audit) if each["action"] == "gap")
        report = verify_log(audit, load_verification_key(key_file), outside=outside.read_text(), now=time.time())
        lines = log.read_bytes().splitlines()
    assert report.ok, [str(each) for each in report.findings]
    assert filled > 500
    assert {status for status, _ in load.got} <= ({200, 503} if required else {200})
    assert full[503] > WHEN_FULL * 0.9 if required else full[200] >= WHEN_FULL
    assert set(last) == {200}
    recorded = {each["request_id"] for each in records}
    if required:
        assert not {request_id for status, request_id in load.got if status == 200} - recorded
    # Each response has its record, or is counted as missing.
    assert len(records) + lost == len(load.got)
    # Each line is whole, and each request has one or is counted; that of the metrics was written after they were read.
    found = [json.loads(line) for line in lines]
    assert len(found) + dropped == len(load.got)
    assert dropped > WHEN_FULL / 2
    assert {each["request_id"] for each in found} <= {request_id for _, request_id in load.got}


def free(folder: Path) -> bool:
    """Return True while a file there can grow."""
    return os.statvfs(folder).f_bavail > 0


def value_of(metrics: str, name: str) -> float:
    families = text_string_to_metric_families(metrics)
    return sum(float(sample.value) for family in families for sample in family.samples if sample.name == name)
