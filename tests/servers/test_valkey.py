"""Limits shared by several workers, also while the storage is unavailable."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from certificates import Certificate
from flask_secure_ml.testing import FakeClock
from servers import free_port, gunicorn, valkey
from stored_keys import key_in_file
from support import HTTPS, MakeApp, caller


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Any]:
    with valkey(tmp_path) as server:
        yield server


def uri(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


def statuses(app: Flask, count: int) -> list[int]:
    client = app.test_client()
    return [client.get("/x", base_url=HTTPS, headers=caller()).status_code for _ in range(count)]


def test_workers_share_one_count(
    storage: Any, tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers and eight threads of callers: exactly the limit passes (STANDARDS RL-11)."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    key = key_in_file(environ["FLASK_SECURE_ML_API_KEYS"], plan="few")
    shared = environ | {"FLASK_RATELIMIT_STORAGE_URI": uri(storage.port)}
    with gunicorn(tmp_path, certificate, shared, "--workers", "2", "--threads", "2") as served:

        def call(_: int) -> int:
            return served.call("GET", "/whoami", headers={"X-API-Key": key})[0]

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(call, range(60)))
    assert (found.count(200), found.count(429)) == (20, 40)


def test_two_apps_share_one_count(storage: Any, protected: MakeApp) -> None:
    """RATELIMIT_STORAGE_URI is the one place that is shared."""
    plans = {"default": {"requests": ["3/hour"]}}
    apps = [protected(PLANS=plans, RATELIMIT_STORAGE_URI=uri(storage.port)) for _ in range(2)]
    assert statuses(apps[0], 2) + statuses(apps[1], 2) == [404, 404, 404, 429]


def test_storage_down_counts_in_memory(protected: MakeApp) -> None:
    """SECURE_ML_LIMIT_OUTAGE = "memory": bounded by a local count, never unlimited, never 500."""
    app = protected(PLANS={"default": {"requests": ["2/hour"]}}, RATELIMIT_STORAGE_URI=uri(free_port()))
    assert statuses(app, 4) == [404, 404, 429, 429]


def test_storage_down_rejects_when_closed(protected: MakeApp) -> None:
    """SECURE_ML_LIMIT_OUTAGE = "closed": 503 with Retry-After."""
    app = protected(LIMIT_OUTAGE="closed", RATELIMIT_STORAGE_URI=uri(free_port()))
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json["code"]) == (503, "dependency_unavailable")  # type: ignore[index]
    assert response.headers["Retry-After"] == "1"


def test_the_storage_is_used_again_when_it_is_back(tmp_path: Path, protected: MakeApp, clock: FakeClock) -> None:
    """After the longest pause (1.2 seconds) the shared count applies again."""
    port = free_port()
    app = protected(LIMIT_OUTAGE="closed", RATELIMIT_STORAGE_URI=uri(port))
    assert statuses(app, 1) == [503]
    with valkey(tmp_path, port):
        assert statuses(app, 1) == [503]
        clock.advance(1.3)
        assert statuses(app, 1) == [404]


def test_a_hanging_storage_is_given_up(storage: Any, protected: MakeApp) -> None:
    """A stopped server delays requests at most by the socket timeout; the next ones are not delayed."""
    app = protected(PLANS={"default": {"requests": ["9/hour"]}}, RATELIMIT_STORAGE_URI=uri(storage.port))
    assert statuses(app, 1) == [404]
    os.kill(storage._process.pid, signal.SIGSTOP)
    try:
        assert statuses(app, 5) == [404] * 5
    finally:
        os.kill(storage._process.pid, signal.SIGCONT)
