"""The limit storage of one process: the strategies of the library over it, and the clock."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.strategies import STRATEGIES

from flask_secure_ml.limits.engine import Limiter, build_limiter
from flask_secure_ml.limits.memory import ProcessStorage
from flask_secure_ml.testing import FakeClock

NAMES = sorted(STRATEGIES)
MINUTE = parse("10/minute")


def limiter_of(strategy: str, clock: FakeClock) -> Limiter:
    return build_limiter({"RATELIMIT_STRATEGY": strategy}, clock, "memory")


@pytest.mark.parametrize("strategy", NAMES)
def test_window(strategy: str, clock: FakeClock) -> None:
    """As many as the limit, then none until the window moves on; a cost that does not fit charges nothing."""
    limiter = limiter_of(strategy, clock)
    assert [limiter.hit(MINUTE, "a", 4), limiter.test(MINUTE, "a", 7), limiter.test(MINUTE, "a", 6)] == [1, 0, 1]
    assert limiter.hit(MINUTE, "a", 6)
    assert not limiter.hit(MINUTE, "a")
    assert limiter.hit(MINUTE, "b")
    assert 1 <= limiter.retry_after(MINUTE, "a") <= 60
    clock.advance(121)
    assert limiter.hit(MINUTE, "a", 10)


@pytest.mark.parametrize("strategy", NAMES)
def test_cost_above_the_limit(strategy: str, clock: FakeClock) -> None:
    """It never fits."""
    assert not limiter_of(strategy, clock).hit(MINUTE, "a", 11)


class SteppedClock(FakeClock):
    """A clock whose time of day can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0.0

    def now(self) -> float:
        return super().now() + self.step


@pytest.mark.parametrize("step", [-86_400, -30, 30, 86_400])
@pytest.mark.parametrize("strategy", NAMES)
def test_time_of_day_that_is_set(strategy: str, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten, no window lasts longer, and Retry-After says how long it is."""
    clock = SteppedClock()
    monkeypatch.setattr(time, "time", clock.now)
    limiter = limiter_of(strategy, clock)
    assert limiter.hit(MINUTE, "a", 10)
    clock.step = step
    assert not limiter.hit(MINUTE, "a")
    wait = limiter.retry_after(MINUTE, "a")
    assert 1 <= wait <= 60
    clock.advance(wait - 1)
    assert limiter.retry_after(MINUTE, "a") <= 60
    clock.advance(121)
    assert limiter.hit(MINUTE, "a", 10)


def test_fixed_window_says_when_it_ends(clock: FakeClock) -> None:
    """To the second."""
    limiter = limiter_of("fixed-window", clock)
    limiter.hit(MINUTE, "a", 10)
    clock.advance(20.5)
    assert limiter.retry_after(MINUTE, "a") == 40


def test_moving_window_says_when_its_first_entry_leaves(clock: FakeClock) -> None:
    """To the second."""
    limiter = limiter_of("moving-window", clock)
    limiter.hit(MINUTE, "a", 5)
    clock.advance(20)
    limiter.hit(MINUTE, "a", 5)
    assert limiter.retry_after(MINUTE, "a") == 40
    clock.advance(41)
    assert limiter.hit(MINUTE, "a", 5)
    assert not limiter.hit(MINUTE, "a")


STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 40)), max_size=40)


@given(STEPS)
def test_moving_window_against_a_model(steps: list[tuple[str, int, int]]) -> None:
    """Never more than the limit in any minute, and never less than would fit."""
    clock = FakeClock(0.0)
    limiter = limiter_of("moving-window", clock)
    charged: dict[str, list[tuple[float, int]]] = {"a": [], "b": []}
    for key, amount, seconds in steps:
        clock.advance(seconds)
        now = clock.monotonic()
        used = sum(each for at, each in charged[key] if at >= now - 60)
        assert limiter.hit(MINUTE, key, amount) is (used + amount <= 10)
        if used + amount <= 10:
            charged[key].append((now, amount))


@pytest.mark.parametrize("strategy", NAMES)
def test_threads_cannot_overshoot(strategy: str, clock: FakeClock) -> None:
    """The storage counts in one step."""
    limiter = limiter_of(strategy, clock)
    hundred = parse("100/hour")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: limiter.hit(hundred, "a"), range(400))) == 100


def test_memory_does_not_grow_with_callers_of_the_past(clock: FakeClock) -> None:
    """What has expired is evicted."""
    storage = ProcessStorage(clock)
    for number in range(1000):
        storage.incr(str(number), 60)
        storage.acquire_entry(str(number), 10, 60)
        clock.advance(10)
    assert len(storage._counters) <= 7
    assert len(storage._windows) <= 8
    assert len(storage._expiries) <= 16


def test_counter(clock: FakeClock) -> None:
    """It starts again some seconds after its first use, and says when."""
    limiter = limiter_of("fixed-window", clock)
    assert [limiter.count("k", 60), limiter.count("k", 60, 5), limiter.counted("k")] == [1, 6, 6]
    clock.advance(59.5)
    assert (limiter.remaining("k"), limiter.counted("k")) == (1, 6)
    clock.advance(0.5)
    assert (limiter.remaining("k"), limiter.counted("k"), limiter.count("k", 60)) == (0, 0, 1)
    assert limiter.remaining("other") == 0


def test_clear_and_reset(clock: FakeClock) -> None:
    """What operators of the library call."""
    storage = ProcessStorage(clock)
    for strategy in STRATEGIES.values():
        made = strategy(storage)
        made.hit(MINUTE, "a", cost=10)
        made.clear(MINUTE, "a")
        # Early releases of limits clear no sliding window.
        storage.clear_sliding_window(MINUTE.key_for("a"), MINUTE.get_expiry())
        assert made.hit(MINUTE, "a", cost=10)
    assert storage.check()
    assert (storage.reset() > 0, storage.reset()) == (True, 0)


FORK = """
import os, signal
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.limits.memory import ProcessStorage
storage = ProcessStorage(SystemClock())
with storage._lock.get():
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if storage.incr("k", 60) == 1 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_fork() -> None:
    """A child does not wait for a thread that it does not have."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, check=True)
