"""Detects a higher share of rejected requests than usual."""

from __future__ import annotations

import math
from typing import ClassVar

from ..history import HOUR
from ..observation import Observation
from .base import Reading

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

    With ``k`` of ``n`` requests rejected and a usual share ``p`` (the exponentially weighted mean of earlier hours with
    at least ten requests, at least 0.05), it is unusual if ``k >= 30``, ``k / n >= 0.5`` and ``(k - n p) / sqrt(n p (1
    - p)) >= 8``: the normal approximation of the binomial distribution. A 429 is not counted, because limits report
    their own rejections and a retry storm after an outage causes many. Requests that were reported do not count again.
    """

    __slots__ = ("_before", "_found", "_hour", "_of", "_rejected", "_total", "_usual")
    name: ClassVar[str] = "rejections"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._hour = -1
        self._total = self._rejected = 0
        self._found = self._of = 0
        self._usual = self._before = 0.0

    def observe(self, seen: Observation, share: float) -> bool:
        """Count the requests."""
        hour = int(seen.time // HOUR)
        if hour > self._hour or hour < self._hour - 1:
            self._learn()
            self._hour = hour
        if seen.status == _LIMITED:
            return False
        self._total += seen.count
        if seen.status not in _REJECTED:
            return False
        self._rejected += seen.count
        share = min(share, 1.0)
        if self._rejected < share * FEWEST or self._rejected < LEAST_SHARE * self._total:
            return False
        total, usual = self._total, min(max(self._usual, _LEAST_USUAL), 1 - 1e-9)
        if self._rejected - total * usual < share * DEVIATIONS * math.sqrt(total * usual * (1 - usual)):
            return False
        self._found, self._of, self._before = self._rejected, total, self._usual
        self._learn()
        return True

    def explain(self) -> str:
        """Return a description of the share of rejections."""
        usual = f"usually {100 * self._before:.0f} %"
        return f"{self._found} of {self._of} requests in an hour were rejected, {usual}"

    def read(self, time: float) -> Reading:
        """Return the share of rejections in this hour."""
        current = int(time // HOUR) <= self._hour
        rejected, total = (self._rejected, self._total) if current else (0, 0)
        part = rejected / total / LEAST_SHARE if total else 0.0
        usual = f"usually {100 * self._usual:.0f} %, unusual from {FEWEST} and 50 %"
        score = min(part, rejected / FEWEST)
        return Reading(score, f"{rejected} of {total} requests rejected in this hour", usual)

    def _learn(self) -> None:
        if self._total >= _LEARNED:
            self._usual += _RATE * (self._rejected / self._total - self._usual)
        self._total = self._rejected = 0
