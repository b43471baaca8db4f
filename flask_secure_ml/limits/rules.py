"""Limits in the form in which they are counted: rules, and sets of rules for one charge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from hashlib import blake2b

import orjson

DIGEST = 16
_TAG = 4


class Kind(IntEnum):
    """How a rule counts."""

    FIXED = 0
    """A fixed window that begins with its first request."""
    SLIDING = 1
    """Two such windows; the previous one is weighted by the part of it that is still within one window."""
    GCRA = 2
    """A steady rate: capacity is restored evenly (the generic cell rate algorithm of ITU-T I.371)."""
    LEASES = 3
    """The number of requests in flight."""


STRATEGIES = {"fixed-window": Kind.FIXED, "sliding-window-counter": Kind.SLIDING, "gcra": Kind.GCRA}


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one caller or one route.

    :param name: the name of its counter; unique for a key.
    :param amount: how much is allowed in a window, or in flight.
    :param seconds: the length of the window; 0 for leases.
    :param unit: what is counted: ``requests``, ``rows`` or ``concurrent-requests``.
    :param burst: for ``GCRA``, how much is allowed at once.
    :param outage: the policy while the store is down: ``degrade``, ``closed`` or ``open``.
    :param label: its name in ``RateLimit-Policy``, which callers see.
    """

    name: str
    kind: Kind
    amount: int
    seconds: float
    unit: str = "requests"
    burst: int = 0
    outage: str = "degrade"
    label: str = ""
    tag: bytes = field(init=False, repr=False, compare=False)
    capacity: int = field(init=False, repr=False, compare=False)
    """The highest price that can ever fit."""
    lifetime: float = field(init=False, repr=False, compare=False)
    """Seconds from the start of a window until its state can be deleted; 0 for ``GCRA``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "burst", self.burst or self.amount)
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "tag", blake2b(self.name.encode(), digest_size=_TAG).digest())
        object.__setattr__(self, "capacity", self.burst if self.kind is Kind.GCRA else self.amount)
        windows = {Kind.FIXED: 1, Kind.SLIDING: 2}
        object.__setattr__(self, "lifetime", self.seconds * windows.get(self.kind, 0))

    def share(self, workers: int) -> Rule:
        """Return the share of one worker, for workers that cannot count together.

        Together, the shares of all workers do not allow a higher rate than the rule.
        """
        if workers <= 1:
            return self
        if self.amount >= workers or self.kind is Kind.LEASES:
            return replace(self, amount=max(1, self.amount // workers), burst=max(1, self.burst // workers))
        return replace(self, amount=1, burst=1, seconds=self.seconds * workers / self.amount)


class RuleSet:
    """Rules that are evaluated together, for one key.

    They are created at start-up or when a plan is first used. ``leases`` has the tags of the rules that limit requests
    in flight; ``in_rows`` is True if a rule counts rows.

    :param backs_off: whether callers that keep sending requests beyond a limit get penalties.
    """

    def __init__(self, rules: Iterable[Rule], *, backs_off: bool = False) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self.backs_off = backs_off
        self.leases: tuple[bytes, ...] = tuple([rule.tag for rule in self.rules if rule.kind is Kind.LEASES])
        self.in_rows: bool = any(rule.unit == "rows" for rule in self.rules)
        self._simple = tuple([int(rule.unit != "rows") for rule in self.rules])
        self._shares: dict[int, RuleSet] = {}

    @cached_property
    def packed(self) -> bytes:
        """The rules as JSON, for a script on a server."""
        return orjson.dumps([[rule.name, int(rule.kind), rule.amount, rule.seconds, rule.burst] for rule in self.rules])

    def prices(self, rows: int = 0, *, lease: bool = True) -> tuple[int, ...]:
        """Return the price of a request for each rule.

        :param lease: whether it takes a lease of the rules that limit requests in flight.
        """
        if lease and (not rows or not self.in_rows):
            return self._simple
        price = {"requests": 1, "rows": rows, "concurrent-requests": int(lease)}
        return tuple([price[rule.unit] for rule in self.rules])

    def share(self, workers: int) -> RuleSet:
        """Return one worker's share of the rules whose outage policy is ``degrade``."""
        found = self._shares.get(workers)
        if found is None:
            kept = [rule.share(workers) for rule in self.rules if rule.outage != "open"]
            found = self._shares[workers] = RuleSet(kept, backs_off=self.backs_off)
        return found


def key_of(*parts: str) -> bytes:
    """Return one key from several parts.

    It is a digest of the length-prefixed parts, so that no part can forge another key.
    """
    joined = "\x00".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=DIGEST).digest()


def numbered(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return rules with unique names: the second rule of a name gets the suffix ``-2``, and so on."""
    seen: dict[str, int] = {}
    found = []
    for rule in rules:
        number = seen[rule.name] = seen.get(rule.name, 0) + 1
        suffix = f"-{number}" if number > 1 else ""
        found.append(replace(rule, name=rule.name + suffix, label=rule.label + suffix))
    return tuple(found)
