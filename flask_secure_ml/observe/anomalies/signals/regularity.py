"""Requests at regular intervals from a caller that had none: a bot with a person's credential."""

from __future__ import annotations

from array import array
from typing import ClassVar

from ..history import HOUR
from ..observation import Observation

EVERY = 50
NEAR = 0.1
REGULAR = 0.5
IRREGULAR = 0.25
LASTING = 1_800
_SLOWEST = 0.1


class Regularity:
    """The share of the last 50 gaps between requests that are within 10 % of their median.

    It is computed after each 50 gaps of at most an hour; random arrivals (a Poisson process) have about 0.07. Its usual
    value is the exponentially weighted mean of those shares. It is unusual if it stays at 0.5 or more for half an hour
    while 0.25 or less was usual when that began. The median keeps the requests of the person beside the bot from
    hiding it.
    """

    __slots__ = ("_before", "_gaps", "_last", "_parts", "_since", "_usual")
    name: ClassVar[str] = "regularity"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False

    def __init__(self) -> None:
        self._last: float | None = None
        self._gaps: array[float] | None = None
        self._parts = 0
        self._usual = self._before = 0.0
        self._since: float | None = None

    def observe(self, seen: Observation) -> str | None:
        """Take the gap before the request into account."""
        last, self._last = self._last, seen.time
        if last is None:
            return None
        gap = seen.time - last
        if not 0 <= gap <= HOUR:
            self._since = None
            return None
        if self._gaps is None:
            self._gaps = array("d")
        self._gaps.append(gap)
        return None if len(self._gaps) < EVERY else self._evaluate(sorted(self._gaps), seen.time)

    def _evaluate(self, gaps: list[float], now: float) -> str | None:
        self._gaps = None
        self._parts += 1
        median = gaps[EVERY // 2]
        share = sum(abs(gap - median) <= NEAR * median for gap in gaps) / EVERY
        before = self._usual
        self._usual += max(_SLOWEST, 1 / self._parts) * (share - before)
        if share < REGULAR:
            self._since = None
        elif self._since is None:
            # The first part has nothing before it, so nothing is unusual about a caller that is regular from the start.
            self._since, self._before = now, before if self._parts > 1 else share
        elif now - self._since >= LASTING and self._before <= IRREGULAR:
            usual, self._before = self._before, 1.0
            return (
                f"a request every {median:.3g} s: {100 * share:.0f} in a hundred gaps are the same within 10 %, "
                f"usually {100 * usual:.0f}"
            )
        return None
