"""The contract of all counter stores: in memory, in a file and on a server."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from counting import ServerClock, on_time_of
from flask_secure_ml.limits.counters import Backoff, Charge, Counters, Settlement, Verdict
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.testing import FakeClock
from waits import HANG

KEY, OTHER = key_of("caller", "bob"), key_of("route", "/predict")
WINDOWS = [Kind.FIXED, Kind.SLIDING, Kind.GCRA]
BACKOFF = Backoff(tolerance=2, base=10.0, maximum=60.0, decay=300.0, jitter=0.1, block_after=3, block=3600.0)


class Store(NamedTuple):
    """Counters, and the clock that they follow."""

    counters: Counters
    clock: FakeClock

    def charge(self, rules: RuleSet, *prices: int, key: bytes = KEY, lease: bytes = b"") -> Verdict:
        (verdict,) = self.counters.charge([Charge(key, rules, prices, lease)])
        return verdict

    def allowed(self, rules: RuleSet, times: int, *prices: int) -> int:
        """Return how many of so many charges fit."""
        return sum(self.charge(rules, *prices).allowed for _ in range(times))

    def used(self, rules: RuleSet, key: bytes = KEY) -> list[float]:
        return [count.used for count in self.counters.peek(key, rules).counts]


def in_memory(_request: pytest.FixtureRequest) -> Store:
    clock = FakeClock()
    return Store(MemoryCounters(clock, backoff=BACKOFF, uniform=lambda: 0.5), clock)


def in_a_file(request: pytest.FixtureRequest) -> Store:
    clock = FakeClock()
    path = request.getfixturevalue("tmp_path") / "counts.db"
    return Store(SqliteCounters(str(path), clock, BACKOFF, uniform=lambda: 0.5), clock)


def on_a_server(request: pytest.FixtureRequest) -> Store:
    clock = ServerClock(request.getfixturevalue("admin"))
    address = request.getfixturevalue("address")
    counters = RedisCounters(address, None, SystemClock(), connect_timeout=HANG, backoff=BACKOFF, uniform=lambda: 0.5)
    return Store(on_time_of(counters), clock)


STORES: Mapping[str, Callable[[pytest.FixtureRequest], Store]] = {
    "memory": in_memory,
    "sqlite": in_a_file,
    "redis": on_a_server,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    return STORES[request.param](request)


def one(kind: Kind, amount: int = 10, seconds: float = 60.0, **options: Any) -> RuleSet:
    return RuleSet([Rule("limit", kind, amount, seconds, **options)])


# --- windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WINDOWS)
def test_window(store: Store, kind: Kind) -> None:
    """The limit is accepted, then nothing until time has passed; another key has a separate count."""
    rules = one(kind)
    assert store.allowed(rules, 20, 1) == 10
    assert store.allowed(rules, 5, 1) == 0
    assert store.charge(rules, 10, key=OTHER).allowed
    store.clock.advance(121)
    assert store.allowed(rules, 20, 1) == 10


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("price", [1, 3, 10])
@pytest.mark.parametrize("later", [0.0, 20.0, 59.0, 70.0])
def test_price_fits_after_the_wait(store: Store, kind: Kind, price: int, later: float) -> None:
    """Not a millisecond earlier, for any earlier usage."""
    rules = one(kind)
    assert store.charge(rules, 6).allowed
    store.clock.advance(later)
    while (verdict := store.charge(rules, price)).allowed:
        pass
    wait = verdict.counts[0].wait
    store.clock.advance(wait - 0.001)
    assert not store.charge(rules, price).allowed
    store.clock.advance(0.002)
    assert store.charge(rules, price).allowed


def test_fixed_window_begins_with_its_first_request(store: Store) -> None:
    """And ends so many seconds later."""
    rules = one(Kind.FIXED)
    store.clock.advance(17)
    assert store.charge(rules, 4).counts[0][:3] == (4, 0, 60)
    store.clock.advance(40)
    assert store.charge(rules, 7).counts[0][:3] == (4, 20, 20)
    store.clock.advance(20)
    assert store.charge(rules, 7).counts[0][:3] == (7, 0, 60)


def test_burst_at_the_boundary_of_sliding_windows(store: Store) -> None:
    """Recent usage counts in the next window, with a decreasing weight."""
    rules = one(Kind.SLIDING)
    assert store.allowed(rules, 1, 1) == 1
    store.clock.advance(59.9)
    assert store.allowed(rules, 20, 1) == 9
    store.clock.advance(0.1)
    assert store.allowed(rules, 20, 1) <= 1
    store.clock.advance(30)
    assert 4 <= store.allowed(rules, 20, 1) <= 6


def test_steady_rate(store: Store) -> None:
    """One comes back every six seconds, whenever the burst was."""
    rules = one(Kind.GCRA, burst=3)
    assert store.allowed(rules, 20, 1) == 3
    for _ in range(5):
        store.clock.advance(6.001)
        assert store.allowed(rules, 20, 1) == 1


@pytest.mark.parametrize("kind", WINDOWS)
def test_price_above_the_limit(store: Store, kind: Kind) -> None:
    """It never fits, and charges nothing."""
    rules = one(kind)
    store.charge(rules, 1)
    verdict = store.charge(rules, 11)
    assert (verdict.allowed, verdict.counts[0].wait) == (False, math.inf)
    assert store.allowed(rules, 20, 1) == 9


def test_price_of_nothing(store: Store) -> None:
    """The rule is reported, and does not reject."""
    rules = one(Kind.FIXED)
    store.charge(rules, 10)
    verdict = store.charge(rules, 0)
    assert (verdict.allowed, verdict.counts[0].used) == (True, 10)


# --- several rules ---------------------------------------------------------------------------------------


def test_all_rules_or_none(store: Store) -> None:
    """A charge rejected by one rule does not change the others, and reports each."""
    rules = RuleSet(
        [
            Rule("second", Kind.SLIDING, 100, 1.0),
            Rule("minute", Kind.FIXED, 200, 60.0),
            Rule("rows", Kind.GCRA, 50, 86_400.0, unit="rows"),
            Rule("flight", Kind.LEASES, 9, 0.0, unit="concurrent-requests"),
        ]
    )
    assert store.charge(rules, 1, 1, 40, 1, lease=b"lease--1").allowed
    before = store.used(rules)
    verdict = store.charge(rules, 1, 1, 11, 1, lease=b"lease--2")
    assert [count.wait > 0 for count in verdict.counts] == [False, False, True, False]
    assert store.used(rules) == before == [1, 1, pytest.approx(40), 1]
    assert store.charge(rules, 1, 1, 10, 1, lease=b"lease--2").allowed


def test_all_keys_or_none(store: Store) -> None:
    """If another key rejects, the charge is returned, including its leases."""
    flight = Rule("flight", Kind.LEASES, 5, 0.0, unit="concurrent-requests")
    caller = RuleSet([Rule("minute", Kind.FIXED, 10, 60.0), Rule("rate", Kind.GCRA, 10, 60.0), flight])
    route = one(Kind.SLIDING, 2)

    def call() -> list[bool]:
        both = [Charge(KEY, caller, (1, 1, 1), os.urandom(8)), Charge(OTHER, route, (1,))]
        return [verdict.allowed for verdict in store.counters.charge(both)]

    assert [call() for _ in range(4)] == [[True, True], [True, True], [True, False], [True, False]]
    assert store.used(caller) == [2, pytest.approx(2), 2]


# --- settlement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WINDOWS)
def test_settlement(store: Store, kind: Kind) -> None:
    """An excess charge can be used again, and a missing charge is deducted."""
    rules = one(kind)
    start = store.charge(rules, 8).counts[0].start
    store.counters.settle([Settlement(KEY, rules, (-3,), (start,))])
    assert store.used(rules) == [pytest.approx(5)]
    store.counters.settle([Settlement(KEY, rules, (4,), (start,)), Settlement(OTHER, rules, (4,), (start,))])
    assert [store.allowed(rules, 20, 1), store.used(rules, OTHER)] == [1, [0]]


@pytest.mark.parametrize(("kind", "used"), [(Kind.FIXED, 4), (Kind.SLIDING, 4 + 3)])
def test_settlement_in_the_next_window(store: Store, kind: Kind, used: int) -> None:
    """It corrects the window that was charged, and is dropped when that is over."""
    rules = one(kind, 20)
    start = store.charge(rules, 10).counts[0].start
    store.clock.advance(75)
    late = store.charge(rules, 4)
    store.counters.settle([Settlement(KEY, rules, (-5,), (start,))])
    assert store.used(rules) == [used]
    assert late.counts[0].start >= start + 60


def test_settlement_of_more_than_was_charged(store: Store) -> None:
    """No caller gets more than the limit."""
    rules = one(Kind.FIXED)
    start = store.charge(rules, 1).counts[0].start
    store.counters.settle([Settlement(KEY, rules, (-5,), (start,))])
    assert store.allowed(rules, 20, 1) == 10


# --- leases ----------------------------------------------------------------------------------------------


def test_leases(store: Store) -> None:
    """So many at once; one lease taken twice counts once, and only its own name releases it."""
    rules = one(Kind.LEASES, 2, 0.0, unit="concurrent-requests")
    assert [store.charge(rules, 1, lease=name).allowed for name in (b"lease--1", b"lease--1", b"lease--2")] == [1, 1, 1]
    rejected = store.charge(rules, 1, lease=b"lease--3")
    assert (rejected.allowed, rejected.counts[0].used, rejected.counts[0].wait > 0) == (False, 2, True)
    store.counters.renew([(KEY, rules, b"lease--1")])
    store.counters.settle([Settlement(KEY, rules, (0,), (0.0,), b"lease--9")])
    assert not store.charge(rules, 1, lease=b"lease--3").allowed
    store.counters.settle([Settlement(KEY, rules, (0,), (0.0,), b"lease--1")])
    assert store.charge(rules, 1, lease=b"lease--3").allowed


# --- penalties -------------------------------------------------------------------------------------------


def test_penalty(store: Store) -> None:
    """A caller that continues beyond a limit waits longer each time, is finally blocked, and is released later."""
    rules = RuleSet([Rule("limit", Kind.FIXED, 1, 100.0)], backs_off=True)
    assert store.charge(rules, 1).allowed
    penalties = []
    for strikes in (1, 2, 3):
        while (verdict := store.charge(rules, 1)).strikes < strikes:
            store.clock.advance(1.5)
        penalties.append(verdict.penalty)
    assert penalties == [pytest.approx(10 * 1.05), pytest.approx(20 * 1.05), 3600]
    store.clock.advance(200)
    verdict = store.charge(rules, 1)
    assert (verdict.allowed, verdict.counts[0].wait, verdict.strikes) == (False, 0, 3)
    assert store.counters.peek(KEY, rules).penalty == pytest.approx(verdict.penalty)
    store.clock.advance(3400 + 300 + 1)
    assert store.counters.peek(KEY, rules).strikes == 2
    store.clock.advance(600)
    verdict = store.charge(rules, 1)
    assert (verdict.allowed, verdict.strikes) == (True, 0)


def test_requests_in_flight_are_no_fault(store: Store) -> None:
    """A client cannot know when its requests end, so trying is not penalized; an existing penalty continues."""
    flight = Rule("flight", Kind.LEASES, 1, 0.0, unit="concurrent-requests")
    rules = RuleSet([Rule("limit", Kind.FIXED, 2, 1000.0), flight], backs_off=True)
    assert store.charge(rules, 1, 1, lease=b"lease--1").allowed
    for _ in range(30):
        store.clock.advance(1.2)
        verdict = store.charge(rules, 1, 1, lease=b"lease--2")
        assert (verdict.allowed, verdict.penalty, verdict.strikes) == (False, 0, 0)
        store.counters.renew([(KEY, rules, b"lease--1")])
    assert store.charge(rules, 1, 0).allowed
    while not (verdict := store.charge(rules, 1, 1, lease=b"lease--2")).strikes:
        store.clock.advance(1.5)
        store.counters.renew([(KEY, rules, b"lease--1")])
    assert verdict.penalty
    # What can never fit tells a caller nothing about when to come, in a penalty either.
    store.charge(rules, 9, 0)
    store.clock.advance(1100)
    assert store.charge(rules, 1, 0).allowed


# --- reports ---------------------------------------------------------------------------------------------


def test_peek(store: Store) -> None:
    """It charges nothing, and returns the wait for given prices."""
    rules = one(Kind.FIXED)
    store.charge(rules, 8)
    for _ in range(3):
        assert store.counters.peek(KEY, rules).counts[0][:3] == (8, 0, 60)
        assert [store.counters.peek(KEY, rules, (price,)).allowed for price in (2, 3)] == [True, False]
    assert store.used(rules, OTHER) == [0]


def test_clear(store: Store) -> None:
    """Counts, leases and penalties of a key are gone."""
    rules = RuleSet([Rule("limit", Kind.FIXED, 1, 100.0), Rule("flight", Kind.LEASES, 1, 0.0)], backs_off=True)
    assert not store.counters.clear(KEY)
    store.charge(rules, 1, 1, lease=b"lease--1")
    for _ in range(10):
        store.clock.advance(1.5)
        store.charge(rules, 1, 1, lease=b"lease--2")
    assert store.counters.peek(KEY, rules).penalty
    assert store.counters.clear(KEY)
    assert not store.counters.clear(KEY)
    assert store.charge(rules, 1, 1, lease=b"lease--2").allowed


def test_threads_race(store: Store) -> None:
    """Eight threads get exactly the limits, at any prices."""
    rules = RuleSet([Rule("requests", Kind.SLIDING, 300, 3600.0), Rule("rows", Kind.GCRA, 1000, 1e9, unit="rows")])

    def spend(number: int) -> list[int]:
        return [price for price in range(1, 9) if store.charge(rules, 1, price).allowed]

    with ThreadPoolExecutor(8) as pool:
        made = [price for prices in pool.map(spend, range(40)) for price in prices]
    assert store.used(rules) == [len(made), pytest.approx(sum(made))]
    assert 1000 - 8 < sum(made) <= 1000 or len(made) == 300
