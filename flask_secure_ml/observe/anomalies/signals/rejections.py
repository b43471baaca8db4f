"""A greater share of rejected requests than usual."""

from __future__ import annotations

import math
from typing import ClassVar

from ..history import HOUR
from ..observation import Observation

FEWEST = 30
LEAST_SHARE = 0.5
DEVIATIONS = 8.0
_LEAST_USUAL = 0.05
_RATE = 0.1
_LEARNED = 10
_REJECTED = range(400, 500)
_LIMITED = 429


class Rejections:
    """The share of 4xx, without 429, in a clock hour.

    With ``k`` of ``n`` requests rejected and a usual share ``p`` (the exponentially weighted mean of earlier hours
    with at least ten requests, at least 0.05), it is unusual if ``k >= 30``, ``k / n >= 0.5`` and
    ``(k - n p) / sqrt(n p (1 - p)) >= 8``: the normal approximation of the binomial distribution. A 429 is not
    counted, because limits report their own rejections and a retry storm after an outage has many.
    """

    __slots__ = ("_hour", "_rejected", "_reported", "_total", "_usual")
    name: ClassVar[str] = "rejections"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._hour = -1
        self._total = self._rejected = 0
        self._usual = 0.0
        self._reported = False

    def observe(self, seen: Observation) -> str | None:
        """Count the request."""
        hour = int(seen.time // HOUR)
        if hour != self._hour:
            if self._total >= _LEARNED:
                self._usual += _RATE * (self._rejected / self._total - self._usual)
            self._hour, self._total, self._rejected, self._reported = hour, 0, 0, False
        if seen.status == _LIMITED:
            return None
        self._total += 1
        if seen.status not in _REJECTED:
            return None
        self._rejected += 1
        if self._reported or self._rejected < FEWEST or self._rejected < LEAST_SHARE * self._total:
            return None
        total, usual = self._total, min(max(self._usual, _LEAST_USUAL), 1 - 1e-9)
        if self._rejected - total * usual < DEVIATIONS * math.sqrt(total * usual * (1 - usual)):
            return None
        self._reported = True
        return (
            f"{self._rejected} of {total} requests in an hour were rejected, "
            f"usually {100 * self._usual:.0f} in a hundred"
        )
