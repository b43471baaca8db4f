"""Alerts of real workers: one post for all of them, under threads and under gevent, preloaded or not."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from alert_receiver import receiving
from certificates import Certificate
from flask_secure_ml.observe.alerts import verify_alert
from flask_secure_ml.observe.audit.keys import make_keys
from servers import WORKERS, Served, free_port, gunicorn, valkey, wait_until
from stored_keys import key_in_file
from support import OLDER_SECRET

INVALID = {"X-API-Key": "sml_AAAAAAAAAAAA_" + "A" * 43}
WORKER_COUNT = 3


def _add(served: Served, workers: set[int]) -> set[int]:
    workers.add(json.loads(served.call("GET", "/healthz")[2])["worker"])
    return workers


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_a_block(
    tmp_path: Path, certificate: Certificate, environ: dict[str, str], worker: str, options: tuple[str, ...]
) -> None:
    """One alert is sent for a network blocked by three workers; requests do not wait for the receiver."""
    settings = {
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
        "ALERT_SECRET": OLDER_SECRET,
        "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["5/minute"]',
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{tmp_path}/state.db",
    }
    with receiving() as receiver:
        settings["FLASK_SECURE_ML_ALERT_WEBHOOK"] = receiver.url
        receiver.answers.clear()
        options = ("--workers", str(WORKER_COUNT), *WORKERS[worker], *options)
        with gunicorn(tmp_path, certificate, environ | settings, *options) as served:
            statuses = [served.call("GET", "/whoami", headers=INVALID)[0] for _ in range(40)]
            assert statuses.count(429) > 30
            assert receiver.arrived.acquire(timeout=30)
            receiver.answers.set()
            (alert,) = receiver.wait(1)
            # gunicorn does not stop a worker that is told to before it has started.
            workers: set[int] = set()
            wait_until(lambda: len(_add(served, workers)) == WORKER_COUNT, "every worker")
    ((headers, body),) = receiver.posts
    assert verify_alert(OLDER_SECRET.encode(), headers, body)
    assert (alert["event"], alert["network"], alert["app"]) == ("network_blocked", "127.0.0.1", "served")


@pytest.mark.parametrize("worker", WORKERS)
def test_a_receiver_that_hangs(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    worker: str,
) -> None:
    """The worker serves others meanwhile, and ends on a signal."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    key = key_in_file(environ["FLASK_SECURE_ML_API_KEYS"])
    settings = {
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
        "ALERT_SECRET": OLDER_SECRET,
        "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["5/minute"]',
    }
    with receiving() as receiver:
        settings["FLASK_SECURE_ML_ALERT_WEBHOOK"] = receiver.url
        receiver.answers.clear()
        with gunicorn(
            tmp_path, certificate, environ | settings, *WORKERS[worker], stop=subprocess.Popen.terminate
        ) as served:
            for _ in range(10):
                served.call("GET", "/whoami", headers=INVALID)
            assert receiver.arrived.acquire(timeout=30)
            assert [served.call("GET", "/whoami", headers={"X-API-Key": key})[0] for _ in range(5)] == [200] * 5
            pid = int(served.log.read_text().partition("Booting worker with pid: ")[2].split()[0])
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"worker {pid} of {os.getpid()} to end")


@pytest.mark.parametrize("worker", WORKERS)
def test_an_outage(tmp_path: Path, certificate: Certificate, environ: dict[str, str], worker: str) -> None:
    """Of a real store, and its end."""
    port = free_port()
    settings = {
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
        "ALERT_SECRET": OLDER_SECRET,
        "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["1000/minute"]',
        "FLASK_SECURE_ML_STORE_URI": f"valkey://127.0.0.1:{port}/0",
    }
    with receiving() as receiver, ExitStack() as store:
        settings["FLASK_SECURE_ML_ALERT_WEBHOOK"] = receiver.url
        store.enter_context(valkey(tmp_path, port))
        with gunicorn(tmp_path, certificate, environ | settings, *WORKERS[worker]) as served:

            def found(count: int) -> bool:
                served.call("GET", "/healthz")
                return len(receiver.posts) >= count

            served.call("GET", "/healthz")
            store.close()
            wait_until(lambda: found(1), "the outage")
            with valkey(tmp_path, port):
                wait_until(lambda: found(2), "its end")
    # A busy machine can have more than one.
    assert [each["event"] for each in receiver.alerts[:2]] == ["limit_store_down", "limit_store_up"]


@pytest.mark.parametrize("worker", WORKERS)
def test_a_degraded_audit_log(tmp_path: Path, certificate: Certificate, environ: dict[str, str], worker: str) -> None:
    """Its beginning and its end are each posted once by two workers that share a store; requests are served."""
    log = tmp_path / "audit"
    make_keys(log, tmp_path / "verification.key", "tests/alerts")
    settings = {
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
        "ALERT_SECRET": OLDER_SECRET,
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{tmp_path}/state.db",
        "FLASK_SECURE_ML_AUDIT_LOG": str(log),
        # So that each record needs a new file.
        "FLASK_SECURE_ML_AUDIT_ROTATE_BYTES": "4096",
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SECONDS": "3600",
    }
    with receiving() as receiver:
        settings["FLASK_SECURE_ML_ALERT_WEBHOOK"] = receiver.url
        with gunicorn(tmp_path, certificate, environ | settings, "--workers", "2", *WORKERS[worker]) as served:
            workers: set[int] = set()
            wait_until(lambda: len(_add(served, workers)) == 2, "both workers")

            def served_until(count: int) -> bool:
                assert [served.call("GET", "/healthz")[0] for _ in range(10)] == [200] * 10
                return len(receiver.posts) >= count

            (log / "streams").rename(tmp_path / "moved")
            wait_until(lambda: served_until(1), "the outage")
            for _ in range(10):
                served_until(1)
            (tmp_path / "moved").rename(log / "streams")
            wait_until(lambda: served_until(2), "its end")
            for _ in range(10):
                served_until(2)
    assert [(each["event"], each["summary"]) for each in receiver.alerts] == [
        ("audit_degraded", "The audit log cannot be written: No such file or directory."),
        ("audit_restored", "The audit log is written again."),
    ]
