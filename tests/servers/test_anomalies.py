"""Scores and penalties of real workers: they cover the whole traffic, all workers reject, and restarts lose nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from joserfc.jwk import Key

from certificates import Certificate
from flask_secure_ml.testing import make_token
from servers import gunicorn, valkey, wait_until
from site_under_test import AUDIENCE, ISSUER
from workers import all_workers


@pytest.fixture(params=["sqlite", "valkey"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of servers and commands: the usual one, a store, and a signal that blocks."""
    with ExitStack() as stack:
        if request.param == "valkey":
            uri = f"valkey://127.0.0.1:{stack.enter_context(valkey(tmp_path)).port}/0"
        else:
            uri = f"sqlite:{tmp_path}/state.db"
        yield environ | {
            "FLASK_SECURE_ML_STORE_URI": uri,
            "FLASK_SECURE_ML_ANOMALIES": '{"scanning": "block"}',
            # The limit of a test that asks until something changes.
            "FLASK_SECURE_ML_PLANS": '{"default": {"requests": ["100000/minute"]}}',
        }


def command(shared: dict[str, str], *words: str) -> str:
    line = [sys.executable, "-m", "flask", "--app", "served_app:create_app", "secure-ml", "anomalies", *words]
    folder = Path(__file__).parents[1] / "shared"
    done = subprocess.run(line, env=shared, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def token(key: Key, subject: str) -> dict[str, str]:
    """Return the headers that present a token."""
    value = make_token(key, issuer=ISSUER, audience=AUDIENCE, now=time.time(), claims={"sub": subject})
    return {"Authorization": f"Bearer {value}"}


def test_the_whole(tmp_path: Path, certificate: Certificate, shared: dict[str, str], signing_key: Key) -> None:
    """Each of two workers serves five unknown URLs: both reject, after a restart too, until an operator ends it."""
    ada, bob = (token(signing_key, subject) for subject in ("ada", "bob"))
    principal = f"{ISSUER}#ada"
    config = tmp_path / "quick.py"
    config.write_text("from flask_secure_ml.observe.anomalies import recorder\nrecorder.SYNC = 0.25\n")
    options = ["-c", str(config), "--workers", "2", "--threads", "4", "--keep-alive", "60", "--preload"]
    with gunicorn(tmp_path, certificate, shared, *options) as running, all_workers(running) as workers:
        for worker in workers:
            # Before the last of the ten: once both have written what they counted, they reject.
            assert worker.status(ada) == 200
            assert [worker.status(ada, f"/{worker.number}-{n}") for n in range(5)] == [404] * 5
        wait_until(lambda: all(each.status(ada) == 429 for each in workers), "both workers reject")
        assert [each.status(bob) for each in workers] == [200] * 2
        (line,) = [each for each in json.loads(command(shared, "list", "--json")) if each["penalty"]]
        assert (line["subject"], line["penalty"]["action"]) == (principal, "block")
    with gunicorn(tmp_path, certificate, shared, *options) as running, all_workers(running) as workers:
        assert [each.status(ada) for each in workers] == [429] * 2
        assert "scanning" in command(shared, "explain", principal)
        assert command(shared, "clear", principal) == f"cleared: {principal}\n"
        wait_until(lambda: all(each.status(ada) == 200 for each in workers), "both workers accept")
