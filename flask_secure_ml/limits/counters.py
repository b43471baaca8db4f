"""The protocol of what counts: in memory, in a file or on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from .rules import RuleSet
from .usage import Usage, Used

LEASE_SECONDS = 10.0
"""How long a lease outlives the worker that took it."""


class Charge(NamedTuple):
    """What one request is charged by the rules of one key.

    :param key: of the caller or the route, see :func:`~flask_secure_ml.limits.rules.key_of`.
    :param prices: one for each rule; 0 to report a rule and charge nothing. A rule of leases takes one lease if its
        price is 1.
    :param lease: 8 random bytes that name the leases of this request; empty without a rule of leases.
    :param name: of the caller, for operators.
    :param usage: what is counted for a bill if the charge is made; None for nothing.
    """

    key: bytes
    rules: RuleSet
    prices: tuple[int, ...]
    lease: bytes = b""
    name: str = ""
    usage: Usage | None = None


class Count(NamedTuple):
    """The state of one rule after an evaluation.

    :param used: how much of the rule is used, with the charge if it was made.
    :param wait: seconds until the price fits, if nobody else is charged meanwhile; 0 if it fits, infinite if it is more
        than the rule can ever allow.
    :param reset: seconds until the window ends or, for ``GCRA``, until nothing is used.
    :param start: when the window began, which :class:`Settlement` needs.
    """

    used: float
    wait: float
    reset: float
    start: float


class Verdict(NamedTuple):
    """What became of one charge.

    :param allowed: whether every price fits, and was charged.
    :param counts: one for each rule.
    :param penalty: seconds for which the caller is rejected because it went on beyond a limit; 0 for none.
    :param strikes: how often it did so lately.
    """

    allowed: bool
    counts: tuple[Count, ...]
    penalty: float = 0.0
    strikes: int = 0


class Settlement(NamedTuple):
    """A correction of what was charged, and the release of leases.

    :param deltas: what is added to each rule, or given back if negative.
    :param starts: when the windows began that were charged; what belongs to a window that is over is dropped.
    :param lease: the leases to release; empty for none.
    :param usage: what is added to the usage that was counted with the charge; None for nothing.
    """

    key: bytes
    rules: RuleSet
    deltas: tuple[int, ...]
    starts: tuple[float, ...]
    lease: bytes = b""
    usage: Usage | None = None


class Backoff(NamedTuple):
    """How long whoever goes on beyond a limit has to wait, see :mod:`~flask_secure_ml.limits.backoff`.

    :param tolerance: how many requests may come within the time that a caller was told to wait; then it is a strike.
    :param base: seconds of the first penalty.
    :param factor: by how much each further one is longer.
    :param maximum: seconds of the longest penalty.
    :param decay: seconds without a strike after which one is forgiven.
    :param jitter: the share by which a penalty varies.
    :param block_after: how many strikes block the caller.
    :param block: seconds of a block.
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
    """Counts by key and rule. Every method is atomic for the rules of one key, between threads and processes.

    A store that fails raises :class:`~flask_secure_ml.errors.DependencyUnavailable`.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes see the same counts."""

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Charge all of them, or none if one price does not fit. Each verdict reports its own rules."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases."""

    def settle_later(self, settlements: Sequence[Settlement]) -> Callable[[], None] | None:
        """Do the same without waiting for a server.

        :returns: a function that reads its replies, to be called when the response was sent; None if there are none.
        """

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        """Let leases last for another :data:`LEASE_SECONDS`: each a key, its rules, and the name of the lease."""

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Return the counts of a key, and with prices how long they would have to wait; nothing is charged."""

    def clear(self, key: bytes) -> bool:
        """Remove everything of a key: counts, leases, penalties. Return False if there was nothing. Usage stays."""

    def callers(self) -> dict[bytes, str]:
        """Return the keys that have a name, with it."""

    def used(self, since: int, until: int) -> Iterator[Used]:
        """Yield what callers used, from one day to another, both included."""
