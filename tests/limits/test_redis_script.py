"""The script of a server counts as ``windows.py`` and ``backoff.py`` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting import Model, ServerClock, on_time_of
from flask_secure_ml.limits.counters import Backoff, Charge, Counters, Settlement, Verdict
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.principal import SystemClock
from waits import HANG

KEYS = (key_of("caller", "bob"), key_of("route", "/predict"))
LEASES = (b"lease--1", b"lease--2", b"lease--3")
FORWARDS = (0.0, 0.0, 0.01, 0.7, 1.3, 9.9999999, 10.0, 15.0, 20.0, 33.0, 60.0, 100.0, 301.0, 4000.0)
BACKWARDS = (-0.3, -7.0, -50.0, -5000.0)
BACKOFF = Backoff(tolerance=1, base=4.0, factor=2.5, maximum=30.0, decay=50.0, jitter=0.3, block_after=4, block=100.0)
ACTIONS = (*["charge"] * 6, "settle", "settle", "renew", "clear")


@st.composite
def windows(draw: st.DrawFn, name: str) -> Rule:
    kind = draw(st.sampled_from([Kind.FIXED, Kind.SLIDING, Kind.GCRA]))
    amount, burst = draw(st.sampled_from([1, 2, 3, 7, 10, 1000])), draw(st.sampled_from([0, 1, 2, 5]))
    return Rule(name, kind, amount, draw(st.sampled_from([0.5, 1.0, 10.0, 60.0])), burst=burst)


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    rules = [draw(windows(f"limit \N{GREEK SMALL LETTER ALPHA}{number}")) for number in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        rules.append(Rule("flight", Kind.LEASES, draw(st.integers(1, 2)), 0.0))
    return RuleSet(rules, backs_off=draw(st.booleans()))


@st.composite
def charges(draw: st.DrawFn, key: bytes, rules: RuleSet) -> Charge:
    prices = [
        draw(st.integers(0, 1) if rule.kind is Kind.LEASES else st.sampled_from([0, 1, 1, 2, 5]))
        for rule in rules.rules
    ]
    return Charge(key, rules, tuple(prices), draw(st.sampled_from(LEASES)))


@st.composite
def settlements(draw: st.DrawFn, charge: Charge, verdict: Verdict) -> Settlement:
    deltas = tuple(draw(st.integers(-3, 3)) for _ in charge.prices)
    starts = tuple(count.start for count in verdict.counts)
    return Settlement(charge.key, charge.rules, deltas, starts, draw(st.sampled_from(LEASES)))


def numbers(verdicts: Sequence[Verdict]) -> list[float]:
    return [
        float(number)
        for verdict in verdicts
        for number in (verdict.allowed, verdict.penalty, verdict.strikes, *chain.from_iterable(verdict.counts))
    ]


@pytest.fixture
def counters(address: str) -> RedisCounters:
    """Without chance: each penalty gets half of its jitter."""
    made = RedisCounters(address, None, SystemClock(), connect_timeout=HANG, backoff=BACKOFF, uniform=lambda: 0.5)
    return on_time_of(made)


class Both:
    """The counters of a server and those of the model, which are asked the same."""

    def __init__(self, counters: RedisCounters, admin: Any) -> None:
        admin.flushall()
        self.clock = ServerClock(admin)
        self._stores: tuple[Any, Any] = (counters, Model(self.clock, BACKOFF, 10.0, 0.5))
        self.made: list[tuple[Charge, Verdict]] = []

    def charge(self, asked: Sequence[Charge], times: int = 1) -> None:
        """Charge again and again: beyond a limit that is a strike."""
        for _ in range(times):
            found, expected = [store.charge(asked) for store in self._stores]
            assert numbers(found) == pytest.approx(numbers(expected), rel=1e-9, abs=1e-6)
            self.made += zip(asked, found, strict=True)
            self.clock.step(1.1 if times > 1 else 0.0)

    def tell(self, action: Callable[[Counters], object]) -> None:
        for store in self._stores:
            action(store)

    def compare(self, charge: Charge) -> None:
        found, expected = [store.peek(charge.key, charge.rules, charge.prices) for store in self._stores]
        assert numbers([found]) == pytest.approx(numbers([expected]), rel=1e-9, abs=1e-6)


# A sequence has many commands, so that fewer of them will do.
@settings(max_examples=max(25, settings().max_examples // 5))
@given(data=st.data())
def test_script_counts_as_python_does(data: st.DataObject, counters: RedisCounters, admin: Any) -> None:
    """Any sequence of charges, settlements and renewals, while the server's clock goes forwards and backwards."""
    both = Both(counters, admin)
    sets = {key: data.draw(rule_sets()) for key in KEYS}
    steps = st.sampled_from(FORWARDS + BACKWARDS * data.draw(st.integers(0, 1)))
    for _ in range(data.draw(st.integers(1, 25))):
        both.clock.step(data.draw(steps))
        action = data.draw(st.sampled_from(ACTIONS))
        keys = data.draw(st.sampled_from([KEYS[:1], KEYS[1:], KEYS]))
        if action == "charge":
            times = data.draw(st.sampled_from([1, 1, 1, 5, 9]))
            both.charge([data.draw(charges(key, sets[key])) for key in keys], times)
        elif action == "settle" and both.made:
            settlement = data.draw(settlements(*data.draw(st.sampled_from(both.made))))
            both.tell(lambda store: store.settle([settlement]))  # noqa: B023
        elif action == "renew":
            leases = [(key, sets[key], data.draw(st.sampled_from(LEASES))) for key in keys]
            both.tell(lambda store: store.renew(leases))  # noqa: B023
        elif action == "clear":
            both.tell(lambda store: store.clear(keys[0]))  # noqa: B023
        for key in KEYS:
            both.compare(data.draw(charges(key, sets[key])))
