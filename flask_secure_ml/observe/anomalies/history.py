"""A quantity by clock hour, and what is usual for one subject."""

from __future__ import annotations

import math
from array import array

HOUR = 3_600
FACTOR = 4.0
"""How many times the usual amount is unusual."""

DEVIATIONS = 4.0
"""How many robust deviations above the median are unusual, on a logarithmic scale."""

FEWEST_HOURS = 12
LEARNING = 3 * 86_400
"""Nothing is unusual before so many active hours and so many seconds."""

_SLOWEST = 0.05
_LEAST_SPREAD = 0.1
_FIRST_SPREAD = 0.5
_DECAY = 0.9
_MOST_LEARNED = 10.0
_SLOTS = 24


class History:
    """The sum of the current hour, compared with that of earlier active hours.

    With ``y = ln(1 + sum)`` of each active hour, the median ``m`` and the median absolute deviation ``d`` move by a
    bounded step toward each new ``y``, as in stochastic approximation of quantiles (Robbins and Monro, 1951), so that
    one extreme hour changes them no more than any other. Beside them is the highest recent sum of each hour of the
    day, which loses a tenth each time that hour is active and learns at most ten times what would be unusual. Usual is
    the greatest of ``exp(m) - 1`` and of these for the hour and those beside it. A sum is unusual when it reaches
    ``FACTOR`` times the usual, ``exp(m + DEVIATIONS * d) - 1`` and a minimum.
    """

    __slots__ = ("_first", "_hour", "_hours", "_level", "_limit", "_minimum", "_peaks", "_spread", "total", "usual")

    def __init__(self, minimum: float) -> None:
        self._minimum = minimum
        self._first = self._hour = -1
        self._hours = 0
        self._level = 0.0
        self._spread = _FIRST_SPREAD
        self._limit = math.inf
        self._peaks: array[float] | None = None
        self.total = 0
        """The sum of the current hour."""
        self.usual = 0.0

    def add(self, time: float, amount: int) -> bool:
        """Add an amount; return True if the sum of this hour is unusual, once in an hour."""
        hour = int(time // HOUR)
        if hour != self._hour:
            self._begin(hour)
        self.total += amount
        if self.total < self._limit:
            return False
        # Learned in the end: what was reported may be the new habit.
        self._limit = math.inf
        return True

    @property
    def times(self) -> str:
        """How many times the usual sum this one is, in words."""
        return f"{self.total / max(self.usual, 1):.0f} times"

    def _begin(self, hour: int) -> None:
        if self._first < 0:
            self._first = hour
        elif self.total:
            self._learn()
        self._hour, self.total = hour, 0
        if self._peaks is None or self._hours < FEWEST_HOURS or (hour - self._first) * HOUR < LEARNING:
            return
        near = max(self._peaks[(hour + beside) % _SLOTS] for beside in (-1, 0, 1))
        self.usual = max(math.expm1(self._level), near)
        high = math.expm1(min(self._level + DEVIATIONS * self._spread, 700.0))
        self._limit = max(self._minimum, FACTOR * self.usual, high)

    def _learn(self) -> None:
        if self._peaks is None:
            self._peaks = array("d", bytes(8 * _SLOTS))
        self._hours += 1
        value = math.log1p(self.total)
        if self._hours == 1:
            self._level = value
        else:
            step = max(1 / self._hours, _SLOWEST) * max(self._spread, _LEAST_SPREAD)
            off = value - self._level
            self._level += math.copysign(min(step, abs(off)), off)
            self._spread += math.copysign(step, abs(off) - self._spread)
            self._spread = max(self._spread, _LEAST_SPREAD)
        most = _MOST_LEARNED * max(self._minimum, FACTOR * self.usual) if self.usual else math.inf
        slot = self._hour % _SLOTS
        self._peaks[slot] = max(min(self.total, most), _DECAY * self._peaks[slot])
