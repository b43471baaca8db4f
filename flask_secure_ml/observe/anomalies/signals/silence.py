"""The first use of a credential after a long silence."""

from __future__ import annotations

from typing import ClassVar

from ..observation import Observation

DAY = 86_400
FEWEST_DAYS = 14
FACTOR = 3
FEWEST_REQUESTS = 20


class Silence:
    """The time since the last request: 14 days or more, and 3 times the longest earlier gap, after 20 requests."""

    __slots__ = ("_last", "_longest", "_requests")
    name: ClassVar[str] = "silence"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False

    def __init__(self) -> None:
        self._last: float | None = None
        self._longest = 0.0
        self._requests = 0

    def observe(self, seen: Observation) -> str | None:
        """Take the gap before the request into account."""
        last, self._last = self._last, seen.time
        self._requests += 1
        if last is None or seen.time - last <= self._longest:
            return None
        gap, longest = seen.time - last, self._longest
        self._longest = gap
        if self._requests <= FEWEST_REQUESTS or gap < FEWEST_DAYS * DAY or gap < FACTOR * longest:
            return None
        return f"the first request in {gap / DAY:.0f} days, where {longest / DAY:.1f} was the longest gap"
