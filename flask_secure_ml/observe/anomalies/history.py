"""The amount in ten minutes, and the baseline of one subject."""

from __future__ import annotations

import math
from array import array
from typing import ClassVar

WINDOW = 600
HOUR = 3_600
_WINDOWS = HOUR // WINDOW

FACTOR = 4.0
"""Multiple of the usual amount that is unusual."""

DEVIATIONS = 6.0
"""Number of robust deviations above the median that is unusual, on a logarithmic scale."""

MOST = 8.0
"""Multiple of the usual amount that is always unusual, regardless of the deviation."""

FEWEST_HOURS = 12
LEARNING = 3 * 86_400
"""Minimum number of active hours and of seconds before an amount can be unusual."""

DAY_SLOTS = 24
WEEK_SLOTS = 168

_SLOWEST = 0.05
_LEAST_SPREAD = 0.2
_FIRST_SPREAD = 0.5
_DAY_DECAY = 0.9
_WEEK_DECAY = 0.8
_HIGHEST = 700.0


class History:
    """The sum of the last ten minutes, compared with the busiest ten minutes of earlier active hours.

    The sum is that of a sliding window counter: the current clock window of ten minutes, and of the one before it the
    share that is still within ten minutes. With ``y = ln(1 + s)`` of the highest sum ``s`` of each active hour, the
    median ``m`` and the median absolute deviation ``d`` move by a bounded step toward each new ``y``, as in stochastic
    approximation of quantiles (Robbins and Monro, 1951), so that one extreme hour changes them no more than any other;
    ``d`` is at least 0.2. Beside them are the highest recent sums of each hour of the day, which lose a tenth each time
    that hour is active, and of each hour of the week, which lose a fifth. Usual is the greatest of ``exp(m) - 1`` and
    of these for the hour and those beside it, on earlier days. The limit is the greatest of ``FACTOR`` times the usual,
    of ``exp(m + DEVIATIONS d) - 1`` or ``MOST`` times the usual, whichever is less, and of a minimum.

    After the limit is reached, the sum is reset to zero, so that only later requests count next time.
    """

    __slots__ = (
        "_current",
        "_day",
        "_first",
        "_hour",
        "_hours",
        "_level",
        "_previous",
        "_spread",
        "_today",
        "_week",
        "_window",
        "highest",
        "limit",
        "minimum",
        "spent",
        "usual",
    )
    constants: ClassVar[tuple[str, ...]] = ("minimum",)

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum
        self._first = self._hour = self._window = -1
        self._hours = 0
        self._level = 0.0
        self._spread = _FIRST_SPREAD
        self._day: array[float] = array("f")
        self._week: array[float] = array("f")
        self._today: array[float] = array("f")
        self._current = self._previous = 0
        self.highest = 0.0
        """The highest sum of this hour."""
        self.spent = 0.0
        """The last sum that reached the limit."""
        self.usual = 0.0
        self.limit = math.inf
        """The minimum unusual sum; infinite until the history is long enough."""

    def add(self, time: float, amount: int, share: float) -> bool:
        """Add an amount; return True if the sum reaches this fraction of the limit."""
        window = int(time // WINDOW)
        # Requests of other workers arrive late and count now. If the clock was set back further, start again.
        if window > self._window or window < self._window - _WINDOWS:
            self._turn(window)
        self._current += amount
        total = self.total(time)
        self.highest = max(self.highest, total)
        if total < self.limit * share:
            return False
        self._current = self._previous = 0
        self.spent = total
        return True

    def total(self, time: float) -> float:
        """Return the sum of the last ten minutes."""
        passed = time / WINDOW - self._window
        if passed < 1:
            return self._current + self._previous * (1 - max(passed, 0.0))
        return self._current * (2 - passed) if passed < 2 else 0.0  # noqa: PLR2004  two windows

    def _turn(self, window: int) -> None:
        self._previous = self._current if window == self._window + 1 else 0
        self._window, self._current = window, 0
        hour = window // _WINDOWS
        if hour == self._hour:
            return
        if self._first < 0:
            self._first = hour
        elif self.highest:
            self._learn()
        if self._today and hour // DAY_SLOTS != self._hour // DAY_SLOTS:
            self._end_day()
        self._hour, self.highest = hour, 0.0
        if self._hours >= FEWEST_HOURS and (hour - self._first) * HOUR >= LEARNING:
            self._set_limit()

    def _set_limit(self) -> None:
        beside = (self._hour - 1, self._hour, self._hour + 1)
        near = max(max(self._day[hour % DAY_SLOTS], self._week[hour % WEEK_SLOTS]) for hour in beside)
        self.usual = max(math.expm1(self._level), near)
        high = math.expm1(min(self._level + DEVIATIONS * self._spread, _HIGHEST))
        self.limit = max(self.minimum, FACTOR * self.usual, min(high, MOST * self.usual))

    def _learn(self) -> None:
        if not self._day:
            self._day = array("f", bytes(4 * DAY_SLOTS))
            self._week = array("f", bytes(4 * WEEK_SLOTS))
            self._today = array("f", bytes(4 * DAY_SLOTS))
        self._hours += 1
        value = math.log1p(self.highest)
        if self._hours == 1:
            self._level = value
        else:
            step = max(1 / self._hours, _SLOWEST) * max(self._spread, _LEAST_SPREAD)
            off = value - self._level
            self._level += math.copysign(min(step, abs(off)), off)
            self._spread += math.copysign(step, abs(off) - self._spread)
            self._spread = max(self._spread, _LEAST_SPREAD)
        self._today[self._hour % DAY_SLOTS] = self.highest

    def _end_day(self) -> None:
        """Learn the hours of a day when it has ended, so that a slow increase does not become usual within hours."""
        first = self._hour - self._hour % DAY_SLOTS
        for slot, highest in enumerate(self._today):
            if highest:
                week = (first + slot) % WEEK_SLOTS
                self._day[slot] = max(highest, _DAY_DECAY * self._day[slot])
                self._week[week] = max(highest, _WEEK_DECAY * self._week[week])
                self._today[slot] = 0.0
