"""The notation of limits: ``600/minute``, or an object with the options of one limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Required, TypeAlias, TypedDict

from marshmallow import ValidationError

from .fields import Choice, Integer, String, Strings
from .schema import Check, Problem, load_options, option

if TYPE_CHECKING:
    from limits import RateLimitItem

STRATEGIES = ("fixed-window", "sliding-window-counter", "gcra")
OUTAGES = ("degrade", "closed", "open")


def check_burst(options: LimitOptions) -> Iterator[Problem]:
    """Yield a problem if there is a burst but the strategy does not use it."""
    if options.burst is not None and options.strategy != "gcra":
        yield ("burst",), 'requires "strategy": "gcra"'


@dataclass(frozen=True)
class LimitOptions:
    """One limit with options."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_burst,)

    limit: str = option(String(), help_text="The limit, such as ``600/minute``.")
    strategy: str | None = option(
        Choice(*STRATEGIES, nullable=True), None, "The counting strategy, instead of ``RATELIMIT_STRATEGY``."
    )
    burst: int | None = option(Integer(1), None, "With ``gcra``: the maximum burst. By default the whole amount.")
    outage: str | None = option(
        Choice(*OUTAGES, nullable=True),
        None,
        "The policy while the store is down, instead of ``SECURE_ML_LIMIT_OUTAGE``.",
    )


class LimitArguments(TypedDict, total=False):
    """The arguments of :class:`LimitOptions` as users write them."""

    limit: Required[str]
    strategy: Literal["fixed-window", "sliding-window-counter", "gcra"]
    burst: int
    outage: Literal["degrade", "closed", "open"]


@dataclass(frozen=True)
class Limit:
    """A configured limit.

    :param item: the amount and the window, as parsed by ``limits``.
    :param strategy: how it counts; None for the default of the app.
    :param burst: how much is allowed at once with ``gcra``; None for the whole amount.
    :param outage: the policy while the store is down; None for the default of the app.
    """

    item: RateLimitItem
    strategy: str | None = None
    burst: int | None = None
    outage: str | None = None

    @property
    def amount(self) -> int:
        """The amount that is allowed in a window."""
        return self.item.amount

    @property
    def seconds(self) -> int:
        """The length of the window in seconds."""
        return self.item.get_expiry()

    def __str__(self) -> str:
        return str(self.item)


Limits: TypeAlias = tuple[Limit, ...]


class LimitList(Strings):
    """A list of limits such as ``600/minute``, or of objects with ``limit`` and options."""

    def __init__(self) -> None:
        super().__init__("600/minute")
        self.takes = 'a list of limits such as ["600/minute", "10000/day"]'

    def joined(self, found: list[Any]) -> Limits:
        """Return the limits of all entries; one entry can hold several."""
        return tuple(limit for limits in found for limit in limits)

    def _checked(self, entry: Any) -> Limits:
        if not isinstance(entry, Mapping):
            return tuple(Limit(item) for item in _parsed(super()._checked(entry)))
        options = load_options(LimitOptions, entry)
        return tuple(Limit(item, options.strategy, options.burst, options.outage) for item in _parsed(options.limit))


def _parsed(entry: str) -> list[RateLimitItem]:
    # It imports asyncio and all kinds of storage, so it is imported only if there are limits.
    from limits import parse_many

    try:
        found = parse_many(entry)
    except ValueError:
        raise ValidationError(
            f"{entry!r} is not a limit such as '10/minute', '100/15 minutes' or '10000/day'"
        ) from None
    if any(item.amount < 1 for item in found):
        raise ValidationError(f"{entry!r} allows no requests; to close a route, require a scope that no caller has")
    return found
