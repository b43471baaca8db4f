"""Detects a leaked credential: one caller from many networks."""

from __future__ import annotations

from typing import ClassVar

from ..distinct import Distinct, digest
from ..observation import Observation
from .base import Reading

DAY = 86_400
FEWEST = 5
FACTOR = 3
FEWEST_DAYS = 3
MOST = 64
_DECAY = 0.9


class Networks:
    """Distinct networks of one principal in a day (UTC): 5 or more, and 3 times as many as usual.

    The usual number is the highest of earlier active days, reduced by a tenth with each. The signal starts after three
    active days. A window has at most 64 networks, so the signal never fires for a caller that usually has more than 21
    a day. After a report, the next one needs half as many additional networks.
    """

    __slots__ = ("_day", "_days", "_enough", "_last", "_networks", "_today", "_usual")
    name: ClassVar[str] = "networks"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._networks = Distinct(DAY, MOST)
        self._last = ""
        self._day = -1
        self._days = self._today = 0
        self._usual = 0.0
        self._enough = 0.0

    def observe(self, seen: Observation, share: float) -> bool:
        """Count the network if it is new today."""
        if seen.network == self._last and seen.time // DAY == self._day:
            return False
        self._last = seen.network
        if not self._networks.add(seen.time, digest(seen.network)):
            return False
        if self._networks.number != self._day:
            if self._today:
                self._days += 1
                self._usual = max(self._today, _DECAY * self._usual)
            self._day, self._enough = self._networks.number, max(FEWEST, FACTOR * self._usual)
        self._today = len(self._networks)
        if self._days < FEWEST_DAYS or self._today < self._enough:
            return False
        self._enough = self._today + max(FEWEST, FACTOR * self._usual) / 2
        return True

    def explain(self) -> str:
        """Return a description of the number of networks."""
        return f"{self._today} different networks in a day, usually up to {self._usual:.0f}"

    def read(self, time: float) -> Reading:
        """Return the number of networks today."""
        count = self._networks.count(time)
        value = f"different networks today: {count}"
        if self._days < FEWEST_DAYS:
            return Reading(0.0, value, f"not enough history: needs {FEWEST_DAYS} active days")
        enough = max(FEWEST, FACTOR * self._usual)
        return Reading(count / enough, value, f"usually up to {self._usual:.0f}, unusual from {enough:.0f}")
