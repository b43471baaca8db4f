"""Detects the first use of a credential after a long silence."""

from __future__ import annotations

from typing import ClassVar

from ..observation import Observation
from .base import Reading

DAY = 86_400
FEWEST_DAYS = 14
FACTOR = 3
FEWEST_ACTIVE_DAYS = 10


class Silence:
    """The time since the last request: 14 days or more, and 3 times the longest earlier gap, after ten active days.

    The credential must have been in use for at least as long as the silence.
    """

    __slots__ = ("_day", "_days", "_first", "_found", "_gap", "_last", "_longest")
    name: ClassVar[str] = "silence"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._first = self._last = -1.0
        self._longest = 0.0
        self._gap = self._found = 0.0
        self._day = -1
        self._days = 0

    def observe(self, seen: Observation, share: float) -> bool:
        """Add the gap before the requests."""
        last, now = self._last, seen.time
        self._last = max(last, now)
        day = int(now // DAY)
        if day != self._day:
            self._day = day
            self._days += 1
        if last < 0:
            self._first = now
            return False
        gap, longest = now - last, self._longest
        if gap <= longest:
            return False
        self._longest = gap
        if self._days <= FEWEST_ACTIVE_DAYS or gap < max(FEWEST_DAYS * DAY, FACTOR * longest):
            return False
        if last - self._first < gap:
            return False
        self._gap, self._found = gap, longest
        return True

    def explain(self) -> str:
        """Return a description of the gap."""
        return (
            f"the first request in {self._gap / DAY:.0f} days; the longest earlier gap was {self._found / DAY:.1f} days"
        )

    def read(self, time: float) -> Reading:
        """Return the current length of the silence."""
        gap = max(0.0, time - self._last) if self._last >= 0 else 0.0
        enough = max(FEWEST_DAYS * DAY, FACTOR * self._longest)
        usual = f"the longest was {self._longest / DAY:.1f}, unusual from {enough / DAY:.0f}"
        # The next request would be unusual, but the score stays 0 until it arrives.
        return Reading(0.0, f"days since the last request: {gap / DAY:.1f}", usual)
