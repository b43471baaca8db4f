"""The settings of limits: what holds during an outage, how callers back off, and how much memory counters take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..policy.fields import Boolean, Choice, Integer, Number, Options
from ..policy.limits import OUTAGES
from ..policy.schema import Check, Problem, option
from .fields import setting


def check_penalties(options: BackoffOptions) -> Iterator[Problem]:
    """Yield a problem if the first penalty is longer than the longest."""
    if options.base > options.maximum:
        yield ("base",), "is more than maximum"


@dataclass(frozen=True)
class BackoffOptions:
    """How long a caller waits that goes on beyond a limit."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_penalties,)

    tolerance: int = option(
        Integer(1), 20, "How many requests may come too early, after a 429 and before its ``Retry-After``."
    )
    base: float = option(Number(0.1, 86_400, unit="seconds"), 10.0, "Seconds of the first penalty.")
    factor: float = option(Number(1, 100), 2.0, "By how much each further penalty is longer.")
    maximum: float = option(Number(0.1, 86_400, unit="seconds"), 600.0, "Seconds of the longest penalty.")
    decay: float = option(Number(1, 2_592_000, unit="seconds"), 300.0, "Calm seconds until a penalty is forgiven.")
    jitter: float = option(Number(0, 1), 0.1, "The share by which a penalty may be longer, so that clients spread.")
    block_after: int = option(Integer(1), 6, "The penalty that is a block.")
    block: float = option(Number(1, 2_592_000, unit="seconds"), 3600.0, "Seconds of a block.")


class BackoffSetting(Options):
    """The options of the backoff; false for none."""

    def __init__(self) -> None:
        super().__init__(BackoffOptions)
        self.takes = 'an object such as {"base": 10, "factor": 2}, or false'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return None if value is False else super()._deserialize(value, attr, data, **kwargs)


@dataclass(frozen=True)
class LimitSettings:
    """How limits are counted."""

    limit_outage: str = setting(
        Choice(*OUTAGES),
        "degrade",
        """What holds while the store of the limits is down: ``degrade`` counts in each worker, which then allows its
        share of a limit (see ``SECURE_ML_LIMIT_WORKERS``); ``closed`` responds with 503; ``open`` lifts the limit. A
        limit may have its own ``outage``.""",
    )
    limit_workers: int = setting(
        Integer(0, 100_000),
        0,
        """How many workers of all machines share the store, so that each knows its share of a limit while the store is
        down. 0 means ``WEB_CONCURRENCY``, or 1.""",
    )
    limit_backoff: BackoffOptions | None = setting(
        BackoffSetting(),
        {},
        """How long a caller is rejected that goes on beyond its limits, such as ``{"base": 10, "factor": 2}``; false
        for no longer than the limit itself. See :doc:`/howto/limits`.""",
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
        """How many counters each worker keeps that counts in memory, of at most 320 bytes each. When they are used up,
        the counter that was not used for longest is dropped, and those of callers who are over a limit last.""",
    )
    usage_days: int = setting(
        Integer(0, 4000),
        0,
        """For how many days what each caller used is kept, for ``flask secure-ml limits usage``; 0 counts nothing. See
        :doc:`/howto/limits`.""",
    )
    store_timeout: float = setting(
        Number(0.005, 5, unit="seconds"),
        0.05,
        """Seconds to wait for one command of the store of the limits. After that it counts as down for about a second.
        A new connection may take a quarter of a second.""",
    )
