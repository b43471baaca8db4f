"""The arithmetic of windows: how much fits, and when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.limits.rules import STRATEGIES, Kind, Rule, RuleSet
from flask_secure_ml.limits.windows import State, charged, counted, expires, rolled, settled

KINDS = sorted(set(STRATEGIES.values()))
START = 1_000_000.0


def rule_of(kind: Kind, amount: int = 10, seconds: float = 60.0, burst: int = 0) -> Rule:
    return Rule("r", kind, amount, seconds, burst=burst)


class Window:
    """One counter, charged as a store does it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.state: State = (START, 0.0, 0.0)

    def charge(self, now: float, price: int = 1) -> bool:
        state = rolled(self.rule, self.state, now)
        fits = not counted(self.rule, state, now, price).wait
        self.state = charged(self.rule, state, price) if fits else state
        return fits

    def wait(self, now: float, price: int = 1) -> float:
        return counted(self.rule, rolled(self.rule, self.state, now), now, price).wait

    def used(self, now: float) -> float:
        return counted(self.rule, rolled(self.rule, self.state, now), now, 0).used


@pytest.mark.parametrize("kind", KINDS)
def test_as_much_as_the_amount(kind: Kind) -> None:
    """Then none, until the wait is over."""
    window = Window(rule_of(kind))
    assert [window.charge(START) for _ in range(11)] == [True] * 10 + [False]
    wait = window.wait(START)
    assert 0 < wait <= 60
    assert not window.charge(START + wait * 0.99)
    assert window.charge(START + wait)


@pytest.mark.parametrize("kind", KINDS)
def test_prices(kind: Kind) -> None:
    """A price that does not fit is not charged; one that can never fit waits for ever; 0 always fits."""
    window = Window(rule_of(kind))
    assert [window.charge(START, price) for price in (6, 5, 4, 0, 1)] == [True, False, True, True, False]
    assert window.wait(START, 11) == math.inf
    assert window.used(START) == pytest.approx(10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_a_minute(kind: Kind) -> None:
    """The smallest limit accepts one request each minute, not only every second minute."""
    window = Window(rule_of(kind, amount=1))
    assert [window.charge(START + 60 * minute) for minute in range(10)] == [True] * 10


def test_burst() -> None:
    """With GCRA, so much at once, then evenly."""
    window = Window(rule_of(Kind.GCRA, amount=60, burst=5))
    assert [window.charge(START) for _ in range(6)] == [True] * 5 + [False]
    assert window.wait(START) == pytest.approx(1)
    assert [window.charge(START + second) for second in (1, 1, 2, 3)] == [True, False, True, True]
    assert rule_of(Kind.GCRA, amount=60, burst=5).capacity == 5


STEPS = st.lists(st.tuples(st.floats(0, 90), st.integers(0, 12)), max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS)
def test_the_wait_is_true(kind: Kind, steps: list[tuple[float, int]]) -> None:
    """After the reported wait a charge succeeds, and after half of it, it does not."""
    window, now = Window(rule_of(kind)), START
    for seconds, price in steps:
        now += seconds
        wait = window.wait(now, price)
        if price > 10:
            assert wait == math.inf
            continue
        assert window.charge(now, price) is (wait == 0)
        if wait > 0.01:
            assert window.wait(now + wait / 2, price) > 0
            assert window.wait(now + wait, price) == 0


@given(steps=STEPS)
def test_a_fixed_window_is_exact(steps: list[tuple[float, int]]) -> None:
    """Windows begin with the first request, and never allow more."""
    window, now = Window(rule_of(Kind.FIXED)), START
    began, used = START, 0
    for seconds, price in steps:
        now += seconds
        if now - began >= 60 - 1e-6:
            began, used = now, 0
        fits = used + price <= 10 or not price
        assert window.charge(now, price) is fits
        used += price if fits else 0


@given(steps=STEPS)
def test_a_sliding_window_is_at_most_half_too_much(steps: list[tuple[float, int]]) -> None:
    """In any minute at most twice the limit passes, also at the boundary of windows, and the limit on average."""
    window, now, passed = Window(rule_of(Kind.SLIDING)), START, list[tuple[float, int]]()
    for seconds, price in steps:
        now += seconds
        if window.charge(now, price):
            passed.append((now, price))
        assert sum(price for at, price in passed if at > now - 60) <= 20


@given(steps=STEPS)
def test_gcra_never_allows_more_than_the_rate(steps: list[tuple[float, int]]) -> None:
    """At most a burst, plus the rate since."""
    window, now, total = Window(rule_of(Kind.GCRA)), START, 0
    for seconds, price in steps:
        now += seconds
        if window.charge(now, price):
            total += price
        assert total <= 10 + (now - START) / 6 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [-86_400.0, -30.0])
def test_a_clock_that_is_set_back(kind: Kind, step: float) -> None:
    """It does not lift a limit, and extends one by at most a window."""
    window = Window(rule_of(kind))
    assert [window.charge(START) for _ in range(10)] == [True] * 10
    assert not window.charge(START + step)
    assert window.wait(START + step) <= 121
    assert window.charge(START + step + 121)


@pytest.mark.parametrize("kind", KINDS)
def test_settlement(kind: Kind) -> None:
    """An excess charge is returned, and a missing one is added, also beyond the limit."""
    rule = rule_of(kind)
    state = charged(rule, (START, 0.0, 0.0), 8)
    assert counted(rule, settled(rule, state, -5, START), START, 0).used == pytest.approx(3)
    assert counted(rule, settled(rule, state, +7, START), START, 0).used == pytest.approx(15)
    assert counted(rule, settled(rule, state, +7, START), START, 1).wait > 0


def test_settlement_in_the_next_window() -> None:
    """It corrects the charged window, and drops the part of a past one."""
    sliding, fixed = rule_of(Kind.SLIDING), rule_of(Kind.FIXED)
    later = rolled(sliding, (START, 8.0, 0.0), START + 61)
    assert later == (START + 60, 0.0, 8.0)
    assert settled(sliding, later, -5, START) == (START + 60, 0.0, 3.0)
    assert settled(sliding, rolled(sliding, (START, 8.0, 0.0), START + 200), -5, START)[1:] == (0.0, 0.0)
    fresh = charged(fixed, rolled(fixed, (START, 8.0, 0.0), START + 61), 2)
    assert settled(fixed, fresh, -5, START) == fresh


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_at_the_end(kind: Kind) -> None:
    """A store may drop a state from the reported time."""
    rule = rule_of(kind)
    state = charged(rule, (START, 0.0, 0.0), 10)
    ends = expires(rule, state)
    assert counted(rule, rolled(rule, state, ends), ends, 0).used == pytest.approx(0)
    assert counted(rule, rolled(rule, state, ends - 1), ends - 1, 0).used >= (0 if kind is Kind.SLIDING else 0.1)


@pytest.mark.parametrize(("amount", "workers"), [(100, 4), (10, 4), (3, 4), (1, 8), (7, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_shares(kind: Kind, amount: int, workers: int) -> None:
    """The shares of all workers together allow no higher rate."""
    rule = rule_of(kind, amount)
    share = rule.share(workers)
    assert share.amount >= 1
    assert workers * share.amount / share.seconds <= rule.amount / rule.seconds + 1e-9


def test_what_opens_has_no_share() -> None:
    """A limit that is lifted while the store is down is not counted."""
    rules = RuleSet([rule_of(Kind.FIXED), Rule("open", Kind.FIXED, 10, 60.0, outage="open")])
    assert [rule.name for rule in rules.share(2).rules] == ["r"]
    assert rules.share(2) is rules.share(2)
