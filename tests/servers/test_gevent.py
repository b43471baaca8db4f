"""gevent, whose workers are patched after the app was loaded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from certificates import Certificate
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.revocation import Revocations
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores import open_store
from flask_secure_ml.testing import make_api_key
from servers import Served, gunicorn, valkey, wait_until

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
    store = FileKeyStore(environ["FLASK_SECURE_ML_API_KEYS_FILE"])
    return make_api_key(store, SecretRing(Secret("env:PEPPER")), SystemClock())


def burst(served: Served, key: str) -> list[int]:
    """Call from many threads at once; return the statuses."""
    start = Barrier(CALLERS)

    def call(_: int) -> int:
        start.wait()
        return served.call("GET", "/whoami", headers={"X-API-Key": key})[0]

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(call, range(CALLERS)))


def test_many_at_once(
    uri: str, tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first callers of a worker wait for each other and not for ever, over TLS; who is revoked is out."""
    key = make_key(environ, monkeypatch)
    shared = environ | {"FLASK_SECURE_ML_STORE_URI": uri}
    with gunicorn(tmp_path, certificate, shared, *GEVENT) as served:
        assert burst(served, key) == [200] * CALLERS
        revocations = Revocations(open_store(uri, None, SystemClock()), SystemClock())
        revocations.revoke_principal(f"api_key:{key[4:16]}")
        revoked = time.monotonic()
        wait_until(lambda: time.monotonic() > revoked + 1, "a second")
        assert burst(served, key) == [401] * CALLERS


def test_server_that_hangs(
    tmp_path: Path, certificate: Certificate, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that stops while greenlets wait for it holds none of them up for long."""
    key = make_key(environ, monkeypatch)
    with valkey(tmp_path) as server:
        shared = environ | {"FLASK_SECURE_ML_STORE_URI": f"valkey://127.0.0.1:{server.port}/0"}
        with gunicorn(tmp_path, certificate, shared, *GEVENT) as served:
            assert burst(served, key) == [200] * CALLERS
            os.kill(server._process.pid, signal.SIGSTOP)
            try:
                stopped = time.monotonic()
                wait_until(lambda: time.monotonic() > stopped + 1, "a second")
                began = time.monotonic()
                assert burst(served, key) == [200] * CALLERS
                assert time.monotonic() - began < 3
            finally:
                os.kill(server._process.pid, signal.SIGCONT)
