"""One caller from many networks: a leaked credential."""

from __future__ import annotations

from typing import ClassVar

from ..distinct import Distinct
from ..observation import Observation

DAY = 86_400
FEWEST = 5
FACTOR = 3
FEWEST_DAYS = 3
MOST = 64
_DECAY = 0.9


class Networks:
    """Different networks of one principal in a day (UTC): 5 or more, and 3 times as many as usual.

    Usual is the highest number of earlier active days, which loses a tenth with each. Nothing is unusual in the first
    three active days. A window holds 64 networks, so a caller with more than 21 a day has no unusual number.
    """

    __slots__ = ("_day", "_days", "_networks", "_reported", "_today", "_usual")
    name: ClassVar[str] = "networks"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False

    def __init__(self) -> None:
        self._networks = Distinct(DAY, MOST)
        self._day = -1
        self._days = self._today = 0
        self._usual = 0.0
        self._reported = False

    def observe(self, seen: Observation) -> str | None:
        """Count the network if it is new today."""
        if not self._networks.add(seen.time, seen.network):
            return None
        if self._networks.number != self._day:
            if self._today:
                self._days += 1
                self._usual = max(self._today, _DECAY * self._usual)
            self._day, self._reported = self._networks.number, False
        self._today = len(self._networks)
        if self._reported or self._days < FEWEST_DAYS or self._today < max(FEWEST, FACTOR * self._usual):
            return None
        self._reported = True
        return f"{self._today} different networks in a day, usually up to {self._usual:.0f}"
