"""The settings of limits: outage policy, penalties and memory of counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..policy.fields import Boolean, Choice, Integer, Number, Options
from ..policy.limits import OUTAGES
from ..policy.schema import Check, Problem, option
from .fields import setting


def check_penalties(options: BackoffOptions) -> Iterator[Problem]:
    """Yield a problem if the first penalty is longer than the maximum."""
    if options.base > options.maximum:
        yield ("base",), "is greater than maximum"


@dataclass(frozen=True)
class BackoffOptions:
    """Penalties of callers that keep sending requests beyond a limit."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_penalties,)

    tolerance: int = option(
        Integer(1), 20, "Number of requests before ``Retry-After`` has passed that are tolerated after a 429."
    )
    base: float = option(Number(0.1, 86_400, unit="seconds"), 10.0, "Seconds of the first penalty.")
    factor: float = option(Number(1, 100), 2.0, "The factor by which each further penalty is longer.")
    maximum: float = option(Number(0.1, 86_400, unit="seconds"), 600.0, "Seconds of the longest penalty.")
    decay: float = option(
        Number(1, 2_592_000, unit="seconds"), 300.0, "Seconds without an early request until a penalty is forgiven."
    )
    jitter: float = option(
        Number(0, 1),
        0.1,
        "The maximum random extension of a penalty, as a fraction, so that clients do not return at the same time.",
    )
    block_after: int = option(Integer(1), 6, "The number of the penalty that becomes a block.")
    block: float = option(Number(1, 2_592_000, unit="seconds"), 3600.0, "Seconds of a block.")


class BackoffSetting(Options):
    """The options of penalties; false turns them off."""

    def __init__(self) -> None:
        super().__init__(BackoffOptions)
        self.takes = 'an object such as {"base": 10, "factor": 2}, or false'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return None if value is False else super()._deserialize(value, attr, data, **kwargs)


@dataclass(frozen=True)
class LimitSettings:
    """Counting of limits."""

    limit_outage: str = setting(
        Choice(*OUTAGES),
        "degrade",
        """The policy while the limit store is down: ``degrade`` counts in each worker, which then allows its share of a
        limit (see ``SECURE_ML_LIMIT_WORKERS``); ``closed`` responds with 503; ``open`` does not enforce limits. A limit
        can have its own ``outage``.""",
    )
    limit_workers: int = setting(
        Integer(0, 100_000),
        0,
        """The number of workers on all machines that share the store; each allows its share of a limit while the store
        is down. 0 means ``WEB_CONCURRENCY``, or 1 without it.""",
    )
    limit_backoff: BackoffOptions | None = setting(
        BackoffSetting(),
        {},
        """Penalties of callers that keep sending requests beyond their limits, such as ``{"base": 10, "factor": 2}``;
        false turns them off. See :doc:`/howto/limits`.""",
    )
    limit_headers: bool = setting(
        Boolean(),
        True,
        """Send ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers) with every response to a
        request that was charged.""",
    )
    memory_max_keys: int = setting(
        Integer(1000, 10_000_000),
        200_000,
        """Maximum number of counters in the memory of each worker, of at most 320 bytes each. Beyond it, the least
        recently used counter is evicted, and counters of callers over a limit only after all others.""",
    )
    usage_days: int = setting(
        Integer(0, 4000),
        0,
        """The number of days to keep the usage of callers for ``flask secure-ml limits usage``; 0 turns counting off.
        See :doc:`/howto/limits`.""",
    )
    store_timeout: float = setting(
        Number(0.005, 5, unit="seconds"),
        0.05,
        """The timeout of one command to the limit store, in seconds. After a timeout, the store counts as down for
        about a second. A new connection may take a quarter of a second.""",
    )
