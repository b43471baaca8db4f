"""Counts in the memory of one process: bounded, without a thread, at a cost independent of the number of callers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from ..principal import Clock
from ..refresh import process_lock
from .backoff import NO_PENALTY, Penalty, forgiven, penalty_ends, rejected
from .bounded import Bounded
from .counters import Backoff, Charge, Count, Settlement, Verdict
from .rules import Kind, Rule, RuleSet
from .usage import Used
from .windows import State, counted, expires, rolled, settled, taken

MAX_KEYS = 200_000

# A state (three numbers), its expiry, and the time until which it rejected the last request.
_ENTRY = Struct("<5d")
_NEVER = -math.inf
_LEASES = Kind.LEASES
# Takes half the time of calling the named tuple, whose constructor is a Python function.
_new = tuple.__new__
_NOBODY: frozenset[bytes] = frozenset()


class MemoryCounters:
    """Counts in this process.

    Windows use the monotonic clock, so changes of the system time do not affect them. When the memory is full, a new
    counter replaces one that was not used recently. Counters that are used up are kept until their window moves on.
    When no counter can be replaced, new callers share a fixed number of counters, so that a flood of IP addresses
    neither lifts limits nor locks out every caller.

    :param clock: measures the windows.
    :param max_keys: the maximum number of counters, of about 200 bytes each.
    :param backoff: the penalties for callers that keep sending requests beyond a limit; None for no penalties.
    :param uniform: returns a random number from 0 to 1.
    """

    shared = False

    def __init__(
        self,
        clock: Clock,
        max_keys: int = MAX_KEYS,
        backoff: Backoff | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._now = clock.monotonic
        self._backoff = backoff
        self._uniform = uniform
        self._lock = process_lock()
        self._entries: Bounded[bytes] = Bounded(max_keys, lambda entry: _ENTRY.unpack(entry)[3:])
        self._penalties: Bounded[Penalty] = Bounded(max(1, max_keys // 8), self._ends)
        self._leases: dict[bytes, set[bytes]] = {}
        # No caller has a penalty before the first rejection.
        self._penalizes = False

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Make all charges, or none if one price does not fit."""
        with self._lock.get():
            now = self._now()
            verdicts = [self._charge(charge, now) for charge in charges]
            if len(charges) > 1 and not all(verdict.allowed for verdict in verdicts):
                for charge, verdict in zip(charges, verdicts, strict=True):
                    if verdict.allowed:
                        self._settle(undone(charge, verdict), now)
            return verdicts

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases."""
        with self._lock.get():
            now = self._now()
            for settlement in settlements:
                self._settle(settlement, now)

    def settle_later(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases; there is no server to wait for."""
        self.settle(settlements)

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        """Do nothing, because the leases end with this process."""

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Return the counts of a key without charging it; ``prices`` as in :class:`Counters`."""
        nothing = Charge(key, rules, tuple(prices) or (0,) * len(rules.rules))
        with self._lock.get():
            now = self._now()
            counts = tuple(count for count, _ in self._evaluated(nothing, now))
            penalty = self._penalty(nothing)
        allowed = not any(count.wait for count in counts)
        return Verdict(allowed, counts, max(0.0, penalty.until - now), self._strikes(penalty, now))

    def clear(self, key: bytes) -> bool:
        """Remove the counts, leases and penalties of a key; return False if there were none."""
        with self._lock.get():
            return self._entries.discard_all(key) | self._penalties.discard_all(key) | self._drop_leases(key)

    def callers(self) -> dict[bytes, str]:
        """Return an empty dict: a command runs in another process, and cannot read this memory."""
        return {}

    def used(self, since: int, until: int) -> Iterator[Used]:
        """Return an empty iterator, because usage is not counted in memory."""
        return iter(())

    def _charge(self, charge: Charge, now: float) -> Verdict:
        key, rules, prices, lease = charge[:4]
        penalty = self._penalty(charge) if self._penalizes else NO_PENALTY
        if penalty.until > now:
            return self._reject(charge, penalty, now)
        entries, counts, changes = self._entries, [], []
        for rule, price in zip(rules.rules, prices, strict=True):
            name = key + rule.tag
            if rule.kind is _LEASES:
                holders = self._leases.get(name, _NOBODY)
                held = len(holders) + (price and lease not in holders)
                if price and held > rule.amount and lease not in holders:
                    return self._reject(charge, penalty, now)
                counts.append(_new(Count, (held, 0.0, 0.0, 0.0)))
                continue
            entry = entries.young.get(name) or entries.get(name)
            found = taken(rule, (now, 0.0, 0.0) if entry is None else _ENTRY.unpack(entry)[:3], now, price)
            if found is None:
                return self._reject(charge, penalty, now)
            (start, current, previous), count = found
            counts.append(count)
            if price:
                changes.append((name, _ENTRY.pack(start, current, previous, start + rule.lifetime, _NEVER)))
        self._write(charge, changes, now)
        return _new(Verdict, (True, tuple(counts), 0.0, self._strikes(penalty, now) if penalty.strikes else 0))

    def _write(self, charge: Charge, changes: Sequence[tuple[bytes, bytes]], now: float) -> None:
        entries = self._entries
        for name, packed in changes:
            if name in entries.young:
                entries.young[name] = packed
            else:
                entries.put(name, packed, now)
        if charge.rules.leases:
            for rule, price in zip(charge.rules.rules, charge.prices, strict=True):
                if price and rule.kind is _LEASES:
                    self._leases.setdefault(charge.key + rule.tag, set()).add(charge.lease)

    def _evaluated(self, charge: Charge, now: float) -> list[tuple[Count, State | None]]:
        key, rules, prices, lease = charge[:4]
        found: list[tuple[Count, State | None]] = []
        get, unpack = self._entries.get, _ENTRY.unpack
        for rule, price in zip(rules.rules, prices, strict=True):
            if rule.kind is _LEASES:
                held = self._leases.get(key + rule.tag, ())
                over = price and lease not in held and len(held) >= rule.amount
                found.append((Count(len(held), 1.0 if over else 0.0, 0.0, 0.0), None))
                continue
            entry = get(key + rule.tag)
            state = (now, 0.0, 0.0)
            if entry is not None:
                start, current, previous, _, _ = unpack(entry)
                state = rolled(rule, (start, current, previous), now)
            found.append((counted(rule, state, now, price), state))
        return found

    def _reject(self, charge: Charge, penalty: Penalty, now: float) -> Verdict:
        found = self._evaluated(charge, now)
        for rule, (count, state) in zip(charge.rules.rules, found, strict=True):
            if state is not None and 0 < count.wait < math.inf:
                self._put(charge.key, rule, state, now, over=now + count.wait)
        wait = max((count.wait for count, state in found if state is not None), default=0.0)
        at_fault = wait < math.inf and (wait > 0 or penalty.until > now)
        if charge.rules.backs_off and self._backoff is not None and at_fault:
            penalty = rejected(penalty, now, wait, self._backoff, self._uniform())
            self._penalties.put(charge.key, penalty, now)
            self._penalizes = True
        counts = tuple(count for count, _ in found)
        return Verdict(False, counts, max(0.0, penalty.until - now), self._strikes(penalty, now))

    def _penalty(self, charge: Charge) -> Penalty:
        if self._backoff is None or not charge.rules.backs_off:
            return NO_PENALTY
        found = self._penalties.get(charge.key)
        return NO_PENALTY if found is None else found

    def _strikes(self, penalty: Penalty, now: float) -> int:
        if not penalty.strikes or self._backoff is None:
            return 0
        return int(forgiven(penalty, now, self._backoff).strikes)

    def _settle(self, settlement: Settlement, now: float) -> None:
        key, rules, deltas, starts, lease = settlement[:5]
        for tag in rules.leases:
            held = self._leases.get(key + tag)
            if held is not None:
                held.discard(lease)
                if not held:
                    del self._leases[key + tag]
        if not any(deltas):
            return
        for rule, delta, start in zip(rules.rules, deltas, starts, strict=True):
            if delta and rule.kind is not _LEASES and (entry := self._entries.get(key + rule.tag)) is not None:
                began, current, previous, _, _ = _ENTRY.unpack(entry)
                state = rolled(rule, (began, current, previous), now)
                after = settled(rule, state, delta, start)
                if after != state:
                    self._put(key, rule, after, now)

    def _put(self, key: bytes, rule: Rule, state: State, now: float, *, over: float = _NEVER) -> None:
        start, current, previous = state
        self._entries.put(key + rule.tag, _ENTRY.pack(start, current, previous, expires(rule, state), over), now)

    def _drop_leases(self, key: bytes) -> bool:
        found = [name for name in self._leases if name.startswith(key)]
        for name in found:
            del self._leases[name]
        return bool(found)

    def _ends(self, penalty: Penalty) -> tuple[float, float]:
        return penalty_ends(penalty, self._backoff or Backoff()), penalty.until


def undone(charge: Charge, verdict: Verdict) -> Settlement:
    """Return the settlement that refunds a whole charge."""
    deltas = tuple(-price for price in charge.prices)
    starts = tuple(count.start for count in verdict.counts)
    usage = None if charge.usage is None else charge.usage.undone()
    return Settlement(charge.key, charge.rules, deltas, starts, charge.lease, usage)
