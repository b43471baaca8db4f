"""The limit storage when it is down: what is counted meanwhile, and what the log has of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from limits import parse
from limits.strategies import STRATEGIES, RateLimiter

from flask_secure_ml.errors import ConfigError, DependencyUnavailable
from flask_secure_ml.limits.engine import PAUSE, Limiter, build_limiter
from flask_secure_ml.limits.memory import ProcessStorage
from flask_secure_ml.testing import FakeClock
from servers import free_port, valkey

LIMIT = parse("2/day")
pytestmark = pytest.mark.usefixtures("no_jitter")


def remote(port: int, clock: FakeClock, outage: str = "memory") -> Limiter:
    return build_limiter({"RATELIMIT_STORAGE_URI": f"redis://127.0.0.1:{port}"}, clock, outage)


def test_outage_has_two_lines(tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """One when the storage goes down and one when it is back, not one a second."""
    port = free_port()
    limiter = remote(port, clock)
    for _ in range(20):
        limiter.hit(LIMIT, "a")
        clock.advance(PAUSE)
    with valkey(tmp_path, port):
        assert limiter.hit(LIMIT, "a")
    assert [each.getMessage() for each in caplog.records] == [
        "the limit storage is down (outage policy 'memory'): ConnectionError",
        "the limit storage is up again",
    ]


def test_outage_policies(clock: FakeClock) -> None:
    """``memory`` counts in this process, ``closed`` rejects with 503 and Retry-After."""
    port = free_port()
    limiter = remote(port, clock)
    assert [limiter.hit(LIMIT, "a") for _ in range(3)] == [True, True, False]
    with pytest.raises(DependencyUnavailable) as caught:
        remote(port, clock, "closed").hit(LIMIT, "a")
    assert dict(caught.value.extra_headers)["Retry-After"]


class Unreachable(Exception):
    """What the client of some storage raises when it connects."""


def test_storage_that_connects_at_start(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A cluster that is down when a worker starts is connected to later, and the worker starts."""
    down = True

    here = STRATEGIES["fixed-window"](ProcessStorage(clock))

    def connect() -> RateLimiter:
        if down:
            raise Unreachable
        return here

    limiter = Limiter(connect, here, clock, "closed")
    limiter.connect()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            limiter.hit(LIMIT, "a")
    down = False
    clock.advance(PAUSE)
    assert limiter.hit(LIMIT, "a")
    assert [each.getMessage() for each in caplog.records] == [
        "the limit storage is down (outage policy 'closed'): Unreachable",
        "the limit storage is up again",
    ]


def test_password_of_the_uri_is_not_shown(clock: FakeClock) -> None:
    """An unknown scheme is an error that does not quote the URI."""
    with pytest.raises(ConfigError) as caught:
        build_limiter({"RATELIMIT_STORAGE_URI": "cupboard://:hunter2@x"}, clock, "memory")
    assert "hunter2" not in str(caught.value)


FORK = """
import os, sys
from limits import parse
from flask_secure_ml.limits.engine import build_limiter
from flask_secure_ml.principal import SystemClock
limiter = build_limiter({"RATELIMIT_STORAGE_URI": sys.argv[1]}, SystemClock(), "closed")
limit = parse("300/day")
limiter.hit(limit, "a")
child = os.fork() == 0
hits = sum(limiter.hit(limit, "a") for _ in range(100))
sys.exit(hits != 100 or (not child and os.wait()[1] != 0))
"""


def test_fork(tmp_path: Path) -> None:
    """Parent and child have clients of their own."""
    with valkey(tmp_path) as server:
        command = [sys.executable, "-W", "ignore", "-c", FORK, f"redis://127.0.0.1:{server.port}"]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_counting_in_memory_needs_no_more(clock: FakeClock) -> None:
    """Flask-Limiter, which takes long to import, is for remote storages."""
    code = (
        "import sys; from flask_secure_ml.limits.engine import build_limiter; from flask_secure_ml.testing import "
        "FakeClock; build_limiter({}, FakeClock(), 'memory'); print('flask_limiter' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("settings", [{}, {"RATELIMIT_STORAGE_URI": "memory://"}], ids=str)
def test_default_storage(settings: dict[str, Any], clock: FakeClock) -> None:
    """The storage of the process is the default."""
    assert isinstance(build_limiter(settings, clock, "memory")._strategy.get().storage, ProcessStorage)
