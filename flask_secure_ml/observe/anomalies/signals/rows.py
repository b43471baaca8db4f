"""Detects bulk extraction: more rows than usual, in ten minutes or in single requests."""

from __future__ import annotations

import math
from array import array

from ..history import HOUR, WINDOW
from ..observation import Observation
from .amount import Amount
from .base import Reading

FEWEST_LARGE = 5
LARGE = 2.0
LEAST_ROWS = 100
_DECAY = 0.97


class Rows(Amount):
    """Rows charged in ten minutes compared with the subject's :class:`~..history.History`, at least 1,000.

    Alternatively, five requests within ten minutes that have at least 100 rows and are each more than twice as large as
    the largest of earlier hours, which is reduced by 3 % with each active hour: the sum of a busy caller hides them.
    """

    __slots__ = ("_hour", "_large", "_largest", "_largest_now", "_reported")
    name = "rows"
    unit = "rows"
    minimum = 1_000

    def __init__(self) -> None:
        super().__init__()
        self._hour = -1
        self._largest = self._largest_now = 0.0
        self._large: array[float] = array("d")
        self._reported = 0.0

    def amount(self, seen: Observation) -> int:
        """Return the number of charged rows."""
        return seen.rows

    def observe(self, seen: Observation, share: float) -> bool:
        """Add the rows of the requests."""
        if not seen.rows:
            return False
        self._reported = 0.0
        found = super().observe(seen, share)
        return self._is_large(seen) or found

    def explain(self) -> str:
        """Return a description of the sum, or of the large requests."""
        if not self._reported:
            return super().explain()
        usual = f"usually up to {self._largest:.0f} in one"
        return f"{FEWEST_LARGE} requests of up to {self._reported:.0f} rows in ten minutes, {usual}"

    def read(self, time: float) -> Reading:
        """Return the sum of the last ten minutes, and the size of requests."""
        known = super().read(time)
        large = sum(0 <= time - each < WINDOW for each in self._large)
        score = max(known.score, large / FEWEST_LARGE)
        value = f"{known.value}, large requests: {large}"
        return Reading(score, value, f"{known.history}; a large request has more than {self._enough():.0f}")

    def _enough(self) -> float:
        return max(LEAST_ROWS, LARGE * self._largest)

    def _is_large(self, seen: Observation) -> bool:
        hour = int(seen.time // HOUR)
        if hour > self._hour or hour < self._hour - 1:
            self._largest = max(self._largest_now, _DECAY * self._largest)
            self._hour, self._largest_now = hour, 0.0
        rows = seen.rows / seen.count
        self._largest_now = max(self._largest_now, rows)
        if self._history.limit == math.inf or rows <= self._enough():
            return False
        recent = [each for each in self._large if 0 <= seen.time - each < WINDOW]
        recent += [seen.time] * min(seen.count, FEWEST_LARGE)
        if len(recent) < FEWEST_LARGE:
            self._large = array("d", recent)
            return False
        self._large = array("d")
        self._reported = self._largest_now
        return True
