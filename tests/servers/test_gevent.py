"""gevent workers that patch after the app is loaded."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from certificates import Certificate
from flask_secure_ml.authentication.revocation import Revocations
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
from servers import PATIENCE, Served, gunicorn, valkey, wait_until
from stored_keys import key_in_file

CALLERS = 16
GEVENT = ["--worker-class", "gevent", "--preload"]


@pytest.fixture(params=["sqlite", "valkey"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/state.db"
    else:
        with valkey(tmp_path) as server:
            yield f"valkey://127.0.0.1:{server.port}/0"


def make_key(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    return key_in_file(environ["FLASK_SECURE_ML_API_KEYS"])


def burst(served: Served, key: str) -> list[int]:
    """Call from many threads at once; return the statuses."""
    start = Barrier(CALLERS)

    def call(_: int) -> int:
        start.wait()
        return served.call("GET", "/whoami", headers={"X-API-Key": key})[0]

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(call, range(CALLERS)))


def seemed_down(served: Served) -> bool:
    """Return True if the worker logged a timeout of the store, as can happen on a busy machine."""
    # Not said again for another outage within a minute.
    return re.search(r" (is down|are not up to date): ", served.log.read_text()) is not None


def first_bursts(served: Served, key: str) -> None:
    """Call until the worker has read the revocations: until then, where the store seems down, it responds with 503."""

    def is_served() -> bool:
        found = set(burst(served, key))
        assert found == {200} or (found <= {200, 503} and seemed_down(served))
        return 200 in found

    wait_until(is_served, "the callers are not served")
    assert burst(served, key) == [200] * CALLERS


def is_rejected(served: Served, key: str) -> bool:
    """Call after a revocation: a caller is accepted only if the store seems down; none gets 503."""
    found = set(burst(served, key))
    assert found == {401} or (found <= {200, 401} and seemed_down(served))
    return found == {401}


def test_many_at_once(
    uri: str, tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first callers of a worker wait for each other without a deadlock, over TLS; a revoked one is rejected."""
    key = make_key(environ, monkeypatch)
    shared = environ | {"FLASK_SECURE_ML_STORE_URI": uri}
    with gunicorn(tmp_path, certificate, shared, *GEVENT) as served:
        first_bursts(served, key)
        patient = f"{uri}?socket_timeout={PATIENCE}" if uri.startswith("valkey") else uri
        revocations = Revocations(open_store(patient, None, SystemClock()), SystemClock())
        revocations.revoke_principal(f"api_key:{key[4:16]}")
        revoked = time.monotonic()
        wait_until(lambda: time.monotonic() > revoked + 1, "a second")
        wait_until(lambda: is_rejected(served, key), "the revoked caller is not rejected")


def test_server_that_hangs(
    tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that stops while greenlets wait for it does not block any of them for long."""
    key = make_key(environ, monkeypatch)
    with valkey(tmp_path) as server:
        shared = environ | {"FLASK_SECURE_ML_STORE_URI": f"valkey://127.0.0.1:{server.port}/0"}
        with gunicorn(tmp_path, certificate, shared, *GEVENT) as served:
            first_bursts(served, key)
            os.kill(server._process.pid, signal.SIGSTOP)
            try:
                stopped = time.monotonic()
                wait_until(lambda: time.monotonic() > stopped + 1, "a second")
                began = time.monotonic()
                assert burst(served, key) == [200] * CALLERS
                assert time.monotonic() - began < 3
            finally:
                os.kill(server._process.pid, signal.SIGCONT)
