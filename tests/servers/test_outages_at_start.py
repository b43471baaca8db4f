"""Workers that start while their store is down: the server stays up, says when to retry, and recovers."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from certificates import Certificate
from flask_secure_ml.authentication.api_keys.shared_store import SharedKeyStore
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores import open_store
from servers import Served, free_port, gunicorn, valkey, wait_until
from stored_keys import stored_key
from workers import all_workers


def with_store(environ: dict[str, str], uri: str) -> dict[str, str]:
    """Return the environment of a server whose API keys are in the store."""
    return environ | {"FLASK_SECURE_ML_STORE_URI": uri, "FLASK_SECURE_ML_API_KEYS": "store"}


def make_key(uri: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    store = SharedKeyStore(open_store(uri, None, SystemClock()), SystemClock())
    return stored_key(store, SecretRing(Secret("env:PEPPER")), SystemClock())


def whoami(served: Served, key: str) -> tuple[int, str | None]:
    status, headers, _ = served.call("GET", "/whoami", headers={"X-API-Key": key})
    return status, headers["Retry-After"]


def test_full_disk(
    tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for the store: 503 with Retry-After, and 200 as soon as there is room."""
    path = tmp_path / "state.db"
    settings = with_store(environ, f"sqlite:{path}")
    with gunicorn(tmp_path, certificate, settings, app="served_app:create_app_on_a_full_disk()") as served:
        status, retry_after = whoami(served, "sml_" + "a" * 12 + "_" + "b" * 49)
        assert status == 503
        assert retry_after is not None
        worker = json.loads(served.call("GET", "/healthz")[2])["worker"]
        _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (hard, hard))
        key = make_key(f"sqlite:{path}", environ, monkeypatch)
        wait_until(lambda: whoami(served, key)[0] == 200, "a worker that recovers")


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["workers load", "preload"])
def test_server_that_is_down(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """The same for a server, whose beginning and end of the outage are logged once by each worker."""
    port = free_port()
    uri = f"valkey://127.0.0.1:{port}/0"
    with gunicorn(tmp_path, certificate, with_store(environ, uri), *options) as served:
        for _ in range(5):
            assert whoami(served, "sml_" + "a" * 12 + "_" + "b" * 49)[0] == 503
        with valkey(tmp_path, port):
            key = make_key(uri, environ, monkeypatch)
            wait_until(lambda: whoami(served, key)[0] == 200, "a worker that recovers")
        log = served.log.read_text()
    assert log.count("the shared store is down") == log.count("the shared store is up again") == 1


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """Stop a process for a while."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["workers load", "preload"])
def test_worker_without_credentials(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """In an outage, a worker that only served health checks accepts keys like one that accepted keys before."""
    with valkey(tmp_path) as server:
        uri = f"valkey://127.0.0.1:{server.port}/0"
        key = make_key(uri, environ, monkeypatch)
        settings = with_store(environ, uri)
        with (
            gunicorn(
                tmp_path, certificate, settings, "--workers", "2", "--threads", "2", "--keep-alive", "60", *options
            ) as served,
            all_workers(served) as (busy, idle),
        ):
            assert busy.status({"X-API-Key": key}) == 200
            with stopped(server._process.pid):
                assert [each.status({"X-API-Key": key}) for each in (busy, idle)] == [200, 200]


HOOK = """
from flask_secure_ml import SecureML


def post_worker_init(worker):
    SecureML.load(worker.wsgi)
"""


def test_worker_without_requests(
    tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hook of the documentation, a worker has keys and revocations before its first request."""
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(HOOK)
    with valkey(tmp_path) as server, redis.Redis(port=server.port) as admin:
        uri = f"valkey://127.0.0.1:{server.port}/0"
        key = make_key(uri, environ, monkeypatch)
        admin.config_resetstat()
        with gunicorn(tmp_path, certificate, with_store(environ, uri), "--config", str(config)) as served:

            def reads() -> int:
                commands: dict[str, dict[str, int]] = admin.info("commandstats")
                return commands.get("cmdstat_evalsha", {"calls": 0})["calls"]

            wait_until(lambda: reads() >= 2, "keys and revocations are read")
            with stopped(server._process.pid):
                assert whoami(served, key)[0] == 200
