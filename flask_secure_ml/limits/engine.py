"""The limiter: charges requests by rules, in a store that may be down."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..errors import DependencyUnavailable
from ..policy.limits import Limit
from ..principal import Clock
from ..refresh import Outage
from ..stores.base import StoreUnavailable
from .counters import Backoff, Charge, Count, Counters, Settlement, Verdict
from .leases import Lease, Leases
from .memory import MemoryCounters
from .plans import Tariffs
from .rules import Kind, Rule, RuleSet, key_of

log: logging.Logger = logging.getLogger(__name__)

MAX_RECENT = 10_000
"""The maximum number of callers over a limit that one process caches."""

FRESH = 1.0
"""Seconds for which a caller is rejected without querying the store again."""

_UNBOUNDED = 2**53
_LONGEST_NAME = 256
_BATCH = 100


class Outcome(NamedTuple):
    """The result of charges, and where they were made.

    :param charges: the charges that were made; while the store is down, some rules may be omitted.
    :param local: whether this process counted, because the store is down.
    """

    charges: Sequence[Charge]
    verdicts: Sequence[Verdict]
    local: bool = False

    @property
    def allowed(self) -> bool:
        """Whether every price fits."""
        for verdict in self.verdicts:  # noqa: SIM110  a generator takes longer than the work
            if not verdict.allowed:
                return False
        return True


class Limiter:
    """Charges requests, with a policy for outages of the store.

    :param counters: the store.
    :param clock: measures the age of what this process caches.
    :param tariffs: creates the rules of a request.
    :param backoff: the penalties for callers that keep sending requests beyond a limit, or None.
    :param workers: how many workers share the store.
    :param max_keys: the maximum number of counters in this process while the store is down.
    :param usage: whether the store counts the usage of callers.
    :param place: identifies the store: equal for limiters that share counts; by default the counters themselves.
    :param changed: called with False when the store goes down, and with True when it is up again.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        tariffs: Tariffs,
        *,
        backoff: Backoff | None = None,
        workers: int = 1,
        max_keys: int = 200_000,
        usage: bool = False,
        place: object = None,
        changed: Callable[[bool], object] | None = None,
    ) -> None:
        self.tariffs = tariffs
        self.counters = counters
        self.caller_key: Callable[[str], bytes] = lru_cache(MAX_RECENT)(partial(key_of, "caller"))
        self.usage = usage
        self.place: object = place or counters
        self.leases: Leases = Leases(clock, counters.renew if counters.shared else None, self._free)
        self._clock = clock
        self._here = counters if not counters.shared else MemoryCounters(clock, max_keys, backoff)
        self._workers = workers
        self._changed = changed
        self._block_after = math.inf if backoff is None else backoff.block_after
        # When the block of a caller ends, on the monotonic clock.
        self._blocked: dict[bytes, float] = {}
        self._down = False
        self._recent: dict[tuple[bytes, int], tuple[float, float, Outcome]] = {}
        self._single: dict[tuple[str, int, float], RuleSet] = {}
        self._outage = Outage("the limit store is down", "the limit store is up again", clock.monotonic)

    def charge(self, charges: Sequence[Charge]) -> Outcome:
        """Make all charges, or none if one price does not fit.

        :raises DependencyUnavailable: the store is down, and a limit has the outage policy ``closed``.
        """
        try:
            verdicts = self.counters.charge(charges)
        except DependencyUnavailable as error:
            self._failed(error)
            return self._degraded(charges)
        if self._down:
            self._works()
        return Outcome(charges, verdicts)

    def settle(self, settlements: Sequence[Settlement], *, local: bool) -> Callable[[], None] | None:
        """Correct charges and release leases; while the store is down, leases expire by themselves.

        :returns: a function to be called after the response was sent, or None.
        """
        if local and self.counters.shared:
            self.leases.release_later([(each.key, each.rules, each.lease) for each in settlements if each.lease])
        try:
            return (self._here if local else self.counters).settle_later(settlements)
        except DependencyUnavailable as error:
            self._failed(error)
            return None

    def remember(self, outcome: Outcome) -> None:
        """Cache which callers are over a limit that each of their requests would exceed."""
        now = self._clock.monotonic()
        for charge, verdict in zip(outcome.charges, outcome.verdicts, strict=True):
            name = (charge.key, id(charge.rules))
            wait = _wait_of_any(charge, verdict)
            if wait:
                if len(self._recent) >= MAX_RECENT:
                    self._recent.clear()
                self._recent[name] = (now, now + wait, outcome)
            elif verdict.allowed and self._recent:
                self._recent.pop(name, None)

    def note_blocks(self, caller: str, outcome: Outcome) -> None:
        """Log the block of a caller when it begins, in one of the workers that share the store."""
        for charge, verdict in zip(outcome.charges, outcome.verdicts, strict=True):
            if not verdict.penalty or verdict.strikes < self._block_after:
                continue
            now = self._clock.monotonic()
            known = now < self._blocked.get(charge.key, -math.inf)
            if not known and len(self._blocked) >= MAX_RECENT:
                self._blocked.clear()
            # Further requests extend the block.
            self._blocked[charge.key] = now + verdict.penalty
            if not known and self._is_first(charge.key, verdict.penalty):
                message = "%r blocked for %d seconds: more requests before Retry-After than tolerated (penalty %d)"
                log.warning(message, caller[:_LONGEST_NAME], math.ceil(verdict.penalty), verdict.strikes)

    def _is_first(self, key: bytes, seconds: float) -> bool:
        try:
            return self.count(key_for("caller-block", key.hex()), max(1, int(seconds))) == 1
        except DependencyUnavailable:
            return True

    @property
    def knows_any(self) -> bool:
        """Whether any caller is known to be over a limit."""
        return bool(self._recent)

    def recent(self, key: bytes, rules: RuleSet) -> tuple[Outcome, float] | None:
        """Return the cached rejection of a caller and the seconds that are left of it, or None."""
        found = self._recent.get((key, id(rules)))
        if found is None:
            return None
        now = self._clock.monotonic()
        noted, ends, outcome = found
        return (outcome, ends - now) if noted <= now < min(ends, noted + FRESH) else None

    def ready(self) -> None:
        """Raise the error that :meth:`charge` would raise for every caller.

        :raises DependencyUnavailable: the store is down, and the outage policy is ``closed``.
        """
        self.counted("ready", 1)

    # A single limit and key, for the throttle of failed authentication.

    def hit(self, limit: Limit, key: str, cost: int = 1) -> bool:
        """Charge ``cost``; return False, without charging, if it does not fit.

        :raises DependencyUnavailable: the store is down and the outage policy is ``closed``.
        """
        return self.charge([Charge(key.encode(), self._rules_of(limit), (cost,))]).allowed

    def test(self, limit: Limit, key: str) -> bool:
        """Return True if one more would fit, without charging it."""
        rules = self._rules_of(limit)
        return self._peek(key, rules).used + 1 <= rules.rules[0].capacity

    def retry_after(self, limit: Limit, key: str) -> int:
        """Return the whole seconds, at least 1, until one more fits."""
        rules = self._rules_of(limit)
        return max(1, math.ceil(round(self._peek(key, rules, price=1).wait, 3)))

    def count(self, key: str, seconds: int, amount: int = 1) -> int:
        """Add to a plain counter and return the sum; it expires ``seconds`` after its first use."""
        outcome = self.charge([Charge(key.encode(), self._counter(seconds), (amount,))])
        return round(outcome.verdicts[0].counts[0].used) if outcome.verdicts[0].counts else 0

    def counted(self, key: str, seconds: int) -> int:
        """Return the value of a plain counter; 0 if it was never used or has expired."""
        return round(self._peek(key, self._counter(seconds)).used)

    def remaining(self, key: str, seconds: int) -> int:
        """Return the whole seconds until a plain counter expires; 0 if it was never used or has expired."""
        count = self._peek(key, self._counter(seconds))
        return math.ceil(round(count.reset, 3)) if count.used else 0

    def _peek(self, key: str, rules: RuleSet, price: int = 0) -> Count:
        """Return the count of a single rule, and with ``price`` how long it would have to wait."""
        try:
            verdict = self.counters.peek(key.encode(), rules, (price,))
        except DependencyUnavailable as error:
            self._failed(error)
            rules = self._share(rules)
            if not rules.rules:
                return Count(0.0, 0.0, 0.0, 0.0)
            verdict = self._here.peek(key.encode(), rules, (price,))
        else:
            self._works()
        return verdict.counts[0]

    def _rules_of(self, limit: Limit) -> RuleSet:
        name = (str(limit), limit.amount, float(limit.seconds))
        found = self._single.get(name)
        if found is None:
            found = self._single[name] = RuleSet([self.tariffs.rule(limit, f"failed-{limit.amount}")])
        return found

    def _counter(self, seconds: int) -> RuleSet:
        name = ("", 0, float(seconds))
        found = self._single.get(name)
        if found is None:
            rule = Rule("count", Kind.FIXED, _UNBOUNDED, float(seconds), outage=self.tariffs.outage)
            found = self._single[name] = RuleSet([rule])
        return found

    def _free(self, leases: Sequence[Lease]) -> None:
        for first in range(0, len(leases), _BATCH):
            self.counters.settle(
                [
                    Settlement(key, rules, (0,) * len(rules.rules), (0.0,) * len(rules.rules), lease)
                    for key, rules, lease in leases[first : first + _BATCH]
                ]
            )

    # Used while the store is down:

    def _degraded(self, charges: Sequence[Charge]) -> Outcome:
        here = [self._shared(charge) for charge in charges]
        return Outcome(here, self._here.charge(here), local=True)

    def _shared(self, charge: Charge) -> Charge:
        rules = self._share(charge.rules)
        prices = [price for rule, price in zip(charge.rules.rules, charge.prices, strict=True) if rule.outage != "open"]
        return charge._replace(rules=rules, prices=tuple(prices))

    def _share(self, rules: RuleSet) -> RuleSet:
        if any(rule.outage == "closed" for rule in rules.rules):
            raise DependencyUnavailable("the limit store is down", headers=[("Retry-After", "1")])
        return rules.share(self._workers)

    def _failed(self, error: DependencyUnavailable) -> None:
        if not isinstance(error, StoreUnavailable):
            self._outage.failed(error.reason)
        if not self._down:
            self._down = True
            if self._changed is not None:
                self._changed(False)

    def _works(self) -> None:
        if self._down:
            self._down = False
            self._outage.ended()
            if self._changed is not None:
                self._changed(True)


def _wait_of_any(charge: Charge, verdict: Verdict) -> float:
    """Return the seconds for which every request of a caller is rejected, regardless of its rows."""
    waits = [
        count.wait
        for rule, count in zip(charge.rules.rules, verdict.counts, strict=True)
        if rule.unit == "requests" and count.wait < math.inf
    ]
    return max((verdict.penalty, *waits), default=0.0)


def key_for(*parts: str) -> str:
    """Return one key from several parts, for :meth:`Limiter.hit` and similar; see :func:`~.rules.key_of`."""
    return key_of(*parts).hex()
