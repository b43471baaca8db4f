"""A model of the counters in plain Python, servers with a controlled clock, and callers in other processes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import redis

from flask_secure_ml.limits.backoff import NO_PENALTY, Penalty, forgiven, rejected
from flask_secure_ml.limits.counters import Backoff, Charge, Count, Counters, Settlement, Verdict
from flask_secure_ml.limits.memory import undone
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.redis_scripts import CHARGE, NOW, RENEW, SETTLE
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.limits.usage import Usage
from flask_secure_ml.limits.windows import State, charged, counted, rolled, settled
from flask_secure_ml.principal import Clock, SystemClock
from flask_secure_ml.stores.redis_protocol import Script
from flask_secure_ml.testing import FakeClock
from waits import HANG

_TESTED = "local now = tonumber(redis.call('GET', 'now'))\n"


class Model:
    """Counts according to ``windows.py`` and ``backoff.py``, without bounds and expiry.

    :param chance: the random number for the jitter of penalties.
    """

    shared = True

    def __init__(self, clock: FakeClock, backoff: Backoff | None, lease_seconds: float, chance: float) -> None:
        self._clock = clock
        self._backoff = backoff
        self._lease_seconds = lease_seconds
        self._chance = chance
        self._states: dict[tuple[bytes, str], State] = {}
        self._leases: dict[tuple[bytes, str], dict[bytes, float]] = {}
        self._penalties: dict[bytes, Penalty] = {}
        self._names: dict[bytes, str] = {}

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        verdicts = [self._charged(charge) for charge in charges]
        if not all(verdict.allowed for verdict in verdicts):
            self.settle([undone(*pair) for pair in zip(charges, verdicts, strict=True) if pair[1].allowed])
        return verdicts

    def settle(self, settlements: Sequence[Settlement]) -> None:
        for key, rules, deltas, starts, lease, _usage in settlements:
            for rule, delta, start in zip(rules.rules, deltas, starts, strict=True):
                if rule.kind is Kind.LEASES:
                    held = self._held(key, rule.name)
                    if held.pop(lease, None) is not None:
                        self._leases[key, rule.name] = held
                elif delta and (key, rule.name) in self._states:
                    state = self._state(key, rule)
                    corrected = settled(rule, state, delta, start)
                    if corrected != state:
                        self._states[key, rule.name] = corrected

    def settle_later(self, settlements: Sequence[Settlement]) -> None:
        self.settle(settlements)

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        for key, rules, lease in leases:
            for rule in rules.rules:
                if rule.kind is Kind.LEASES and lease in (held := self._held(key, rule.name)):
                    self._leases[key, rule.name] = held | {lease: self._clock.now() + self._lease_seconds}

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        states, leases = dict(self._states), dict(self._leases)
        counts = self._counts(Charge(key, rules, tuple(prices) or (0,) * len(rules.rules)))
        self._states, self._leases = states, leases
        penalty = self._penalty(key, rules)
        wait = max(0.0, penalty.until - self._clock.now())
        return Verdict(not any(count.wait for count in counts), counts, wait, int(penalty.strikes))

    def clear(self, key: bytes) -> bool:
        found = key in self._penalties
        self._penalties.pop(key, None)
        for kept in (self._states, self._leases):
            for name in [each for each in kept if each[0] == key]:
                found |= bool(kept.pop(name))
        return found

    def callers(self) -> dict[bytes, str]:
        return self._names

    def _held(self, key: bytes, name: str) -> dict[bytes, float]:
        now = self._clock.now()
        found, longest = self._leases.get((key, name), {}), now + self._lease_seconds
        held = {lease: min(ends, longest) for lease, ends in found.items() if ends > now}
        if any(ends > longest for ends in found.values()):
            self._leases[key, name] = held
        return held

    def _state(self, key: bytes, rule: Any) -> State:
        now = self._clock.now()
        found = self._states.get((key, rule.name))
        if found is None:
            return (now, 0.0, 0.0)
        state = rolled(rule, found, now)
        # If a window begins after now, the clock was set back; store the corrected state once.
        if found[0] > now and state[0] < found[0]:
            self._states[key, rule.name] = state
        return state

    def _counts(self, charge: Charge) -> tuple[Count, ...]:
        key, rules, prices, lease = charge[:4]
        counts = []
        for rule, price in zip(rules.rules, prices, strict=True):
            if rule.kind is Kind.LEASES:
                held = self._held(key, rule.name)
                over = price and lease not in held and len(held) >= rule.amount
                counts.append(Count(len(held), float(bool(over)), 0.0, 0.0))
            elif price > rule.capacity:
                counts.append(counted(rule, self._state(key, rule), self._clock.now(), 0)._replace(wait=float("inf")))
            else:
                counts.append(counted(rule, self._state(key, rule), self._clock.now(), price))
        return tuple(counts)

    def _penalty(self, key: bytes, rules: RuleSet) -> Penalty:
        if self._backoff is None or not rules.backs_off:
            return NO_PENALTY
        return forgiven(self._penalties.get(key, NO_PENALTY), self._clock.now(), self._backoff)

    def _charged(self, charge: Charge) -> Verdict:
        key, rules, prices, lease, name = charge[:5]
        now, counts, penalty = self._clock.now(), self._counts(charge), self._penalty(key, rules)
        wait = max((count.wait for count in counts), default=0.0)
        if wait or penalty.until > now:
            windows = zip(rules.rules, counts, strict=True)
            wait = max((count.wait for rule, count in windows if rule.kind is not Kind.LEASES), default=0.0)
            at_fault = wait < float("inf") and (wait > 0 or penalty.until > now)
            if self._backoff is not None and rules.backs_off and at_fault:
                kept = self._penalties.get(key, NO_PENALTY)
                penalty = self._penalties[key] = rejected(kept, now, wait, self._backoff, self._chance)
            return Verdict(False, counts, max(0.0, penalty.until - now), int(penalty.strikes))
        for rule, price in zip(rules.rules, prices, strict=True):
            if price and rule.kind is Kind.LEASES:
                self._leases[key, rule.name] = self._held(key, rule.name) | {lease: now + self._lease_seconds}
            elif price:
                self._states[key, rule.name] = charged(rule, self._state(key, rule), price)
        if name:
            self._names[key] = name
        after = self._counts(Charge(key, rules, (0,) * len(prices)))
        return Verdict(True, after, 0.0, int(penalty.strikes))


class ServerClock(FakeClock):
    """A clock that a server follows, for counters that :func:`on_time_of` made."""

    def __init__(self, admin: Any) -> None:
        super().__init__()
        self._admin = admin
        self._offset = 0.0
        self.step(0)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.step(0)

    def step(self, seconds: float) -> None:
        """Change the wall-clock time, but not the monotonic time."""
        self._offset += seconds
        self._admin.set("now", repr(self.now()))

    def now(self) -> float:
        return super().now() + self._offset


def on_time_of(counters: RedisCounters) -> RedisCounters:
    """Let the scripts of counters read the time of a :class:`ServerClock`, and keep what they write."""
    for name, code in (("_charge", CHARGE), ("_settle", SETTLE), ("_renew", RENEW)):
        assert NOW in code
        tested = code.replace(NOW, _TESTED).replace("redis.call('PEXPIRE', key, lasts)", "redis.call('PERSIST', key)")
        setattr(counters, name, Script(tested))
    return counters


def hammer(uri: str, key: bytes, rules: RuleSet, prices: Sequence[tuple[int, ...]], refund: int = 0) -> int:
    """Charge a key once per price in two threads of this process; return the granted amount.

    :param refund: the amount that is refunded of each charge.
    """
    counters = RedisCounters(uri, None, SystemClock(), connect_timeout=HANG)

    def granted(price: tuple[int, ...]) -> int:
        (verdict,) = counters.charge([Charge(key, rules, price, os.urandom(8))])
        if not verdict.allowed:
            return 0
        if refund:
            starts = tuple(count.start for count in verdict.counts)
            counters.settle([Settlement(key, rules, (-refund,) * len(price), starts)])
        return price[0] - refund

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(granted, prices))


def in_flight(uri: str, key: bytes, rules: RuleSet, times: int) -> int:
    """Take and release leases in two threads; return the maximum held by all processes at once, counted separately."""
    counters = RedisCounters(uri, None, SystemClock(), connect_timeout=HANG)

    def held(_number: int) -> int:
        lease = os.urandom(8)
        (verdict,) = counters.charge([Charge(key, rules, (1,), lease)])
        if not verdict.allowed:
            return 0
        most = int(beside.incr("held"))
        beside.decr("held")
        counters.settle([Settlement(key, rules, (0,), (0.0,), lease)])
        return most

    with redis.Redis.from_url(uri) as beside, ThreadPoolExecutor(2) as pool:
        return max(pool.map(held, range(times)))


def die_in_flight(uri: str, key: bytes, rules: RuleSet, leases: int) -> None:
    """Take leases, and kill this process."""
    counters = RedisCounters(uri, None, SystemClock(), connect_timeout=HANG)
    counters.charge([Charge(key, rules, (1,), os.urandom(8)) for _ in range(leases)])
    os.kill(os.getpid(), signal.SIGKILL)


class CountedIn:
    """Opens counters with usage in a file or a server.

    :param clock: the clock for a file; a server has its own.
    """

    def __init__(self, where: str, clock: Clock | None = None) -> None:
        self._where = where
        self._clock = clock or SystemClock()

    def __call__(self, days: int) -> Counters:
        if self._where.startswith("sqlite:"):
            path = self._where.removeprefix("sqlite:")
            return SqliteCounters(path, self._clock, usage_days=days, timeout=HANG)
        return RedisCounters(self._where, None, SystemClock(), connect_timeout=HANG, usage_days=days)


def use(where: str, number: int, times: int) -> dict[tuple[str, str, str, int], int]:
    """Charge in two threads, correct some charges, and return the sums by plan, route, kind and day."""
    counters = CountedIn(where)(400)
    rules = RuleSet([Rule("requests", Kind.FIXED, 10**9, 1e9), Rule("rows", Kind.GCRA, 10**9, 1e9, unit="rows")])

    def once(index: int) -> Counter[tuple[str, str, str, int]]:
        plan, route, day, rows = f"plan{index % 2}", f"route{index % 3}", 20_000 + index % 2, index % 17 + 3
        used = Usage(day, plan, route, 1, rows, rows)
        (verdict,) = counters.charge([Charge(_USER, rules, (1, rows), b"", "bob", used)])
        assert verdict.allowed
        delta = (0, -rows, number - 2, 7)[index % 4]
        starts = tuple(count.start for count in verdict.counts)
        counters.settle([Settlement(_USER, rules, (0, delta), starts, b"", used.corrected(delta))])
        numbers = {"requests": 1, "rows": rows, "cost": rows + delta}
        return Counter({(plan, route, name, day): value for name, value in numbers.items()})

    sums: Counter[tuple[str, str, str, int]] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for each in pool.map(once, range(times)):
            sums.update(each)
    return dict(sums)


def use_until_killed(where: str, told: Connection) -> None:
    """Charge, and report each charge that was made, until the process is killed."""
    counters = CountedIn(where)(400)
    rules = RuleSet([Rule("requests", Kind.FIXED, 10**9, 1e9)])
    while True:
        counters.charge([Charge(_USER, rules, (1,), b"", "bob", Usage(20_000, "gold", "predict", 1, 5, 5))])
        told.send(1)


_USER = key_of("caller", "bob")
