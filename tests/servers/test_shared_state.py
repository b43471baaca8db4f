"""State shared by real workers: a revocation applies in all processes, with a file and with a server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Barrier

import pytest
from joserfc.jwk import Key

from certificates import Certificate
from flask_secure_ml.authentication.revocation import Revocations
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
from flask_secure_ml.testing import make_token
from servers import Served, gunicorn, valkey, wait_until
from site_under_test import AUDIENCE, ISSUER
from workers import Worker, all_workers

WITHIN = 1.0


@pytest.fixture(scope="module", params=["sqlite", "valkey"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]
) -> Iterator[dict[str, str]]:
    """The environment of servers and commands: the usual one, and a store."""
    folder = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        if request.param == "valkey":
            uri = f"valkey://127.0.0.1:{stack.enter_context(valkey(folder)).port}/0"
        else:
            uri = f"sqlite:{folder}/state.db"
        yield environ | {"FLASK_SECURE_ML_STORE_URI": uri}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, shared: dict[str, str]
) -> Iterator[Served]:
    options = ["--workers", "2", "--threads", "4", "--keep-alive", "60"]
    if "sqlite" in shared["FLASK_SECURE_ML_STORE_URI"]:
        # A file must not be open across the fork that this makes.
        options.append("--preload")
    with gunicorn(tmp_path_factory.mktemp("gunicorn"), certificate, shared, *options) as running:
        yield running


@pytest.fixture
def workers(served: Served) -> Iterator[list[Worker]]:
    with all_workers(served) as found:
        yield found


@pytest.fixture
def token(signing_key: Key) -> Callable[..., dict[str, str]]:
    """Make a token; return the headers that present it."""

    def make(jti: str, subject: str = "ada", issued: float | None = None) -> dict[str, str]:
        now = time.time() if issued is None else issued
        claims = {"jti": jti, "sub": subject}
        token = make_token(signing_key, issuer=ISSUER, audience=AUDIENCE, now=now, claims=claims)
        return {"Authorization": f"Bearer {token}"}

    return make


@pytest.fixture
def revoke(shared: dict[str, str]) -> Callable[..., str]:
    """Run the command in a new process; return the last word of its output."""

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "served_app:create_app", "secure-ml", "revocations", *words]
        folder = Path(__file__).parents[1] / "shared"
        done = subprocess.run(command, env=shared, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr).split()[-1]

    return run


def seconds_until(workers: list[Worker], token: dict[str, str], status: int) -> float:
    """Ask every worker over and over until each gives that response; return how long any gave another."""
    began = last = time.monotonic()
    settled: set[int] = set()

    def ask() -> bool:
        nonlocal last
        for each in workers:
            started = time.monotonic()
            if each.status(token) == status:
                settled.add(each.number)
            else:
                last = started
                settled.discard(each.number)
        return len(settled) == len(workers)

    wait_until(ask, f"every worker answers {status}")
    return last - began


def test_revoked_token(workers: list[Worker], token: Callable[..., dict[str, str]], revoke: Callable[..., str]) -> None:
    """C10: the command of another process is obeyed by every worker within a second, and its undoing too."""
    good, bad = token("t-good"), token("t-bad")
    assert [each.status(token) for each in workers for token in (good, bad)] == [200] * 4
    key = revoke("token", "t-bad", "--issuer", ISSUER)
    assert seconds_until(workers, bad, 401) < WITHIN
    assert [each.status(good) for each in workers] == [200] * 2
    revoke("undo", key)
    assert seconds_until(workers, bad, 200) < WITHIN


def test_revoked_principal(
    workers: list[Worker], token: Callable[..., dict[str, str]], revoke: Callable[..., str]
) -> None:
    """Every token of a subject, also one that is issued later."""
    key = revoke("principal", f"{ISSUER}#eve")
    assert seconds_until(workers, token("t1", "eve"), 401) < WITHIN
    assert [each.status(token("t2", "eve")) for each in workers] == [401] * 2
    assert [each.status(token("t3", "ada")) for each in workers] == [200] * 2
    revoke("undo", key)


def test_everything_before_now(
    workers: list[Worker], token: Callable[..., dict[str, str]], revoke: Callable[..., str]
) -> None:
    """Tokens issued before the command are rejected; later ones are accepted."""
    old = token("t-old", issued=time.time() - 60)
    assert [each.status(old) for each in workers] == [200] * 2
    key = revoke("before", "now", "--issuer", ISSUER)
    assert seconds_until(workers, old, 401) < WITHIN
    new = token("t-new", issued=time.time() + 1)
    assert [each.status(new) for each in workers] == [200] * 2
    revoke("undo", key)
    assert seconds_until(workers, old, 200) < WITHIN


def test_burst_after_a_quiet_time(
    served: Served, shared: dict[str, str], token: Callable[..., dict[str, str]], workers: list[Worker]
) -> None:
    """A second after a revocation, eight simultaneous callers of idle workers are all rejected."""
    revocations = Revocations(open_store(shared["FLASK_SECURE_ML_STORE_URI"], None, SystemClock()), SystemClock())
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        callers = [stack.enter_context(closing(Worker(served))) for _ in range(8)]
        for number in range(3):
            bad = token(f"quiet {number}")
            assert [each.status(bad) for each in workers] == [200] * len(workers)
            revocations.revoke_token(ISSUER, f"quiet {number}")
            revoked = time.monotonic()
            wait_until(lambda revoked=revoked: time.monotonic() > revoked + WITHIN, "a second")  # type: ignore[misc]
            start = Barrier(8)

            def status(caller: Worker, bad: dict[str, str] = bad, start: Barrier = start) -> int:
                start.wait()
                return caller.status(bad)

            assert list(pool.map(status, callers)) == [401] * 8
