"""The protocol of the stores that count: in memory, in a file or on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from .rules import RuleSet
from .usage import Usage, Used

LEASE_SECONDS = 10.0
"""Seconds after which a lease expires, unless its worker renews it."""


class Charge(NamedTuple):
    """The charge of one request against the rules of one key.

    :param key: the key of the caller or the route, see :func:`~flask_secure_ml.limits.rules.key_of`.
    :param prices: one for each rule; 0 to report a rule and charge nothing. A rule of leases takes one lease if its
        price is 1.
    :param lease: 8 random bytes that name the leases of this request; empty if no rule has leases.
    :param name: the name of the caller, for operators.
    :param usage: the usage to count for billing if the charge is made, or None.
    """

    key: bytes
    rules: RuleSet
    prices: tuple[int, ...]
    lease: bytes = b""
    name: str = ""
    usage: Usage | None = None


class Count(NamedTuple):
    """The state of one rule after an evaluation.

    :param used: how much of the rule is used, including the charge if it was made.
    :param wait: seconds until the price fits, without further charges; 0 if it fits, infinite if it is more than the
        rule can ever allow.
    :param reset: seconds until the window ends or, for ``GCRA``, until its whole burst is available.
    :param start: when the window began, for a :class:`Settlement`.
    """

    used: float
    wait: float
    reset: float
    start: float


class Verdict(NamedTuple):
    """The result of one charge.

    :param allowed: whether every price fits, and was charged.
    :param counts: one for each rule.
    :param penalty: seconds that are left of the caller's penalty; 0 for none.
    :param strikes: the caller's recent strikes.
    """

    allowed: bool
    counts: tuple[Count, ...]
    penalty: float = 0.0
    strikes: int = 0


class Settlement(NamedTuple):
    """A correction of a charge, and the release of its leases.

    :param deltas: the amount to add to each rule, negative to refund it.
    :param starts: the starts of the windows that were charged; corrections of windows that have ended are dropped.
    :param lease: the leases to release; empty for none.
    :param usage: the correction of the usage that was counted with the charge, or None.
    """

    key: bytes
    rules: RuleSet
    deltas: tuple[int, ...]
    starts: tuple[float, ...]
    lease: bytes = b""
    usage: Usage | None = None


class Backoff(NamedTuple):
    """The options of the backoff, see :mod:`~flask_secure_ml.limits.backoff`.

    :param tolerance: the number of requests before ``Retry-After`` that are tolerated; one more is a strike.
    :param base: the length of the first penalty in seconds.
    :param factor: by which the penalty grows with each strike.
    :param maximum: the maximum length of a penalty in seconds.
    :param decay: seconds without a strike after which one is forgiven.
    :param jitter: the maximum random extension of a penalty, as a fraction of it.
    :param block_after: the number of strikes that block the caller.
    :param block: the length of a block in seconds.
    """

    tolerance: int = 20
    base: float = 10.0
    factor: float = 2.0
    maximum: float = 600.0
    decay: float = 300.0
    jitter: float = 0.1
    block_after: int = 6
    block: float = 3600.0


class Counters(Protocol):
    """Counts by key and rule.

    Each method is atomic for the rules of one key, across threads and processes. If the store fails, each raises
    :class:`~flask_secure_ml.errors.DependencyUnavailable`.
    """

    @property
    def shared(self) -> bool:
        """Whether processes share the counts."""

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Make all charges, or none if one price does not fit.

        Each verdict reports its own rules.
        """

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases."""

    def settle_later(self, settlements: Sequence[Settlement]) -> Callable[[], None] | None:
        """Correct charges and release leases without waiting for a server.

        :returns: a function that reads its replies, to be called after the response was sent; None if there are none.
        """

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        """Extend leases by :data:`LEASE_SECONDS`; each is a key, its rules and the name of the lease."""

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Return the counts of a key without charging it.

        With ``prices``, they include how long each price would have to wait.
        """

    def clear(self, key: bytes) -> bool:
        """Remove the counts, leases and penalties of a key, but not its usage.

        Return False if there were none.
        """

    def callers(self) -> dict[bytes, str]:
        """Return the names of callers by key."""

    def used(self, since: int, until: int) -> Iterator[Used]:
        """Yield the usage of callers between two days, both inclusive."""
