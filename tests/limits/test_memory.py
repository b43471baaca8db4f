"""Counting in the memory of one process: bounds, eviction, threads, forks and the clock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_secure_ml.limits.bounded import SMALLEST, Bounded
from flask_secure_ml.limits.counters import Backoff, Charge, Settlement
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.testing import FakeClock

MINUTE = RuleSet([Rule("m", Kind.SLIDING, 2, 60.0)])


def address(number: int) -> bytes:
    return number.to_bytes(16, "big")


def hit(counters: MemoryCounters, key: bytes, rules: RuleSet = MINUTE) -> bool:
    return counters.charge([Charge(key, rules, rules.prices())])[0].allowed


def test_a_million_addresses(clock: FakeClock) -> None:
    """Memory is bounded; a caller over its limit stays so, and an active one is not evicted."""
    counters = MemoryCounters(clock, max_keys=2000)
    greedy, steady = key_of("greedy"), key_of("steady")
    rules = RuleSet([Rule("h", Kind.SLIDING, 3000, 3600.0)])
    assert [hit(counters, greedy) for _ in range(3)] == [True, True, False]
    for number in range(20_000):
        hit(counters, address(number))
        if number % 10 == 0:
            assert hit(counters, steady, rules)
    assert not hit(counters, greedy)
    assert counters.peek(steady, rules).counts[0].used == 2000
    assert len(counters._entries) <= 2000


def test_full_of_callers_who_are_over(clock: FakeClock) -> None:
    """None of them is let in again; new callers share counters, so that neither all nor none of them get in."""
    counters = MemoryCounters(clock, max_keys=1000)
    over = [address(number) for number in range(1000)]
    for key in over:
        assert [hit(counters, key) for _ in range(3)] == [True, True, False]
    new = [address(number) for number in range(5000, 25_000)]
    allowed = sum(hit(counters, key) for key in new)
    assert not any(hit(counters, key) for key in over)
    assert 1000 < allowed <= 2 * 4096
    assert len(counters._entries) <= 1000 + 4096


def test_a_counter_takes_little_memory(clock: FakeClock) -> None:
    """At most 320 bytes, so that the default of 200,000 takes at most 64 MB."""
    rules = RuleSet([Rule(name, Kind.SLIDING, 100, 60.0) for name in "abc"])
    tracemalloc.start()
    counters = MemoryCounters(clock, max_keys=30_000)
    for number in range(20_000):
        hit(counters, address(number), rules)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 30_000 <= 320


def test_what_has_ended_is_dropped(clock: FakeClock) -> None:
    """Without a thread, as new callers come."""
    counters = MemoryCounters(clock)
    for number in range(20 * SMALLEST):
        hit(counters, address(number))
        clock.advance(1)
    assert len(counters._entries) <= 3 * SMALLEST


def test_no_thread() -> None:
    """Counting starts none."""
    counters = MemoryCounters(FakeClock())
    before = threading.active_count()
    for number in range(5000):
        hit(counters, address(number))
    assert threading.active_count() == before


def test_bounded_values() -> None:
    """Reading, writing, replacing and removing by prefix."""
    values: Bounded[tuple[float, float]] = Bounded(10, lambda value: value)
    values.put(b"a1", (10.0, 0.0), 0.0)
    values.put(b"a2", (10.0, 0.0), 0.0)
    values.put(b"a1", (20.0, 0.0), 0.0)
    assert (values.get(b"a1"), values.get(b"x"), len(values)) == ((20.0, 0.0), None, 2)
    assert values.discard_all(b"a")
    assert not values.discard_all(b"a")
    assert len(values) == 0


@pytest.mark.parametrize("kind", [Kind.FIXED, Kind.SLIDING, Kind.GCRA])
def test_threads_cannot_overshoot(kind: Kind, clock: FakeClock) -> None:
    """It counts in one step."""
    counters, rules = MemoryCounters(clock), RuleSet([Rule("h", kind, 100, 3600.0)])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: hit(counters, b"a", rules), range(800))) == 100
    finally:
        sys.setswitchinterval(interval)


def test_all_or_nothing(clock: FakeClock) -> None:
    """A rejected charge costs nothing under any other rule or key."""
    counters = MemoryCounters(clock)
    wide, narrow = RuleSet([Rule("w", Kind.FIXED, 10, 60.0)]), RuleSet([Rule("n", Kind.FIXED, 1, 60.0)])
    both = RuleSet([*wide.rules, *narrow.rules])
    assert [hit(counters, b"a", both) for _ in range(3)] == [True, False, False]
    assert counters.peek(b"a", wide).counts[0].used == 1
    charges = [Charge(b"b", wide, (1,)), Charge(b"c", narrow, (1,))]
    assert [all(verdict.allowed for verdict in counters.charge(charges)) for _ in range(2)] == [True, False]
    assert counters.peek(b"b", wide).counts[0].used == 1


def test_leases(clock: FakeClock) -> None:
    """So many at once; the same lease counts once; a release makes room; clearing removes all."""
    counters = MemoryCounters(clock)
    rules = RuleSet([Rule("f", Kind.LEASES, 2, 0.0, "concurrent-requests")])

    def take(lease: bytes) -> bool:
        return counters.charge([Charge(b"a", rules, (1,), lease)])[0].allowed

    assert [take(b"1"), take(b"2"), take(b"2"), take(b"3")] == [True, True, True, False]
    counters.settle([Settlement(b"a", rules, (0,), (0.0,), b"1")])
    assert [take(b"3"), take(b"4")] == [True, False]
    assert counters.clear(b"a")
    assert not counters.clear(b"a")
    assert take(b"4")


def test_clear_ends_a_penalty(clock: FakeClock) -> None:
    """An operator lifts everything of a caller."""
    counters = MemoryCounters(clock, backoff=Backoff(tolerance=1), uniform=lambda: 0.0)
    rules = RuleSet(MINUTE.rules, backs_off=True)
    for _ in range(8):
        hit(counters, b"a", rules)
        clock.advance(2)
    clock.advance(-1)
    assert counters.peek(b"a", rules).penalty > 0
    assert counters.clear(b"a")
    assert hit(counters, b"a", rules)


def test_time_of_day_changes_nothing(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the monotonic clock is read."""
    counters = MemoryCounters(clock)
    assert [hit(counters, b"a") for _ in range(3)] == [True, True, False]
    for step in (86_400, -86_400):
        monkeypatch.setattr(time, "time", lambda step=step: 1e9 + step)
        monkeypatch.setattr(clock, "now", lambda step=step: 1e9 + step)
        assert not hit(counters, b"a")
    clock.advance(121)
    assert hit(counters, b"a")


FORK = """
import os, signal
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.limits.counters import Charge
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet
counters, rules = MemoryCounters(SystemClock()), RuleSet([Rule("m", Kind.FIXED, 2, 60.0)])
with counters._lock.get():
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if counters.charge([Charge(b"k", rules, (1,))])[0].allowed else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_fork() -> None:
    """A child does not wait for a thread that it does not have."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, check=True)
