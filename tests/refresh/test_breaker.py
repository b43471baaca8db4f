"""A circuit breaker: calls to a failed source, and log messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flask_secure_ml.refresh import Breaker, Outage
from flask_secure_ml.refresh.breaker import QUIET
from flask_secure_ml.testing import FakeClock

PAUSE = 10.0


def make(clock: FakeClock, **options: Any) -> Breaker:
    outage = Outage("the source is down", "the source is up again", clock.monotonic)
    return Breaker(clock, pause=PAUSE, outage=outage, **{"uniform": lambda _low, high: high, **options})


def test_source_that_works(clock: FakeClock) -> None:
    """Calls are not delayed."""
    breaker = make(clock)
    breaker.succeeded()
    assert breaker.wait() == 0


def test_pause(clock: FakeClock) -> None:
    """After a failure no call is made for the pause, with a jitter of a fifth; then one, and then all."""
    breaker = make(clock)
    breaker.failed("no route")
    assert breaker.wait() == 12
    clock.advance(11.5)
    assert breaker.wait() == 0.5
    clock.advance(0.5)
    assert [breaker.wait() for _ in range(3)] == [0, 12, 12]
    breaker.succeeded()
    assert [breaker.wait() for _ in range(3)] == [0, 0, 0]


def test_caller_that_never_reports(clock: FakeClock) -> None:
    """A thread that dies during its attempt only causes a pause."""
    breaker = make(clock)
    breaker.failed("no route")
    for _ in range(3):
        clock.advance(12)
        assert [breaker.wait(), breaker.wait()] == [0, 12]


def test_one_of_many_threads_tries(clock: FakeClock) -> None:
    """The others do not wait for its result."""
    breaker = make(clock)
    breaker.failed("no route")
    clock.advance(12)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: breaker.wait(), range(40))).count(0) == 1


def test_doubts(clock: FakeClock) -> None:
    """So many in a row are a failure; a success in between starts the count again."""
    breaker = make(clock, doubts=3)
    for succeeds in (False, False, True, False, False):
        if succeeds:
            breaker.succeeded()
        else:
            breaker.doubted("odd")
        assert breaker.wait() == 0
    breaker.doubted("odd")
    assert breaker.wait() == 12


@pytest.mark.parametrize("seconds", [-0.001, -86_400])
def test_clock_that_is_set_back(clock: FakeClock, seconds: float) -> None:
    """A pause is never longer than it was."""
    breaker = make(clock)
    breaker.failed("no route")
    clock.advance(seconds)
    assert breaker.wait() == 0


def test_jitter(clock: FakeClock) -> None:
    """Workers that failed together do not come back together."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    breaker = make(clock, uniform=uniform)
    breaker.failed("no route")
    assert (breaker.wait(), asked) == (8, [(0.8, 1.2)])


def test_outage_has_two_lines(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """One when it begins and one when it ends, however many calls fail."""
    breaker = make(clock)
    for _ in range(100):
        if not breaker.wait():
            breaker.failed("no route")
        clock.advance(1)
    breaker.succeeded()
    breaker.succeeded()
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
        (logging.ERROR, "the source is down: no route"),
        (logging.WARNING, "the source is up again"),
    ]


def test_source_that_flaps(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """At most one outage a minute is logged; one that lasts is logged when the minute is over."""
    outage = Outage("down", "up", clock.monotonic)
    for _ in range(29):
        outage.failed("flaps")
        clock.advance(1)
        outage.ended()
        clock.advance(1)
    outage.failed("lasts")
    assert [each.getMessage() for each in caplog.records] == ["down: flaps", "up"]
    clock.advance(QUIET)
    outage.failed("lasts")
    outage.ended()
    assert [each.getMessage() for each in caplog.records[2:]] == ["down: lasts", "up"]


FORK = """
import os, signal, threading
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.refresh import Breaker, Outage
breaker = Breaker(SystemClock(), pause=60, outage=Outage("down", "up"))
breaker.failed("x")
with breaker._lock.get():
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if breaker.wait() > 0 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_fork() -> None:
    """A child does not wait for a thread that it does not have."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, check=True)
