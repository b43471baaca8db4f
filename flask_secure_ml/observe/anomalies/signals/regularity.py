"""Detects new regular intervals between requests: a bot with a person's credential."""

from __future__ import annotations

import math
from array import array
from typing import ClassVar

from ..observation import Observation
from .base import Reading

EVERY = 40
LAGS = 16
SHORTEST, LONGEST = 5.0, 700.0
WIDTH = 0.04
ENOUGH = 12.0
DRIFT = 1.0
HIGHEST = 8.0
KNOWN = 0.1
LEAST_SHARE = 0.1
APART = 0.2
LEARNING = 3 * 86_400
FEWEST_PARTS = 5
STALE = 3 * 3_600
_LEAST_SECONDS = 60.0
_PERIODS = int(math.log(LONGEST / SHORTEST) / WIDTH)
_BESIDE = 5
_RATE = 0.1
_LEAST_PAIRS = 5
_IGNORED = frozenset({429, *range(500, 600)})


class Regularity:
    """A new period in the times of requests, even with other requests in between.

    After each 40 requests, the differences between each of them and the 16 before it are counted by length, in classes
    of 4 % from 5 s to 10 minutes. A period is in two classes side by side. With ``k`` differences there, and ``b``
    expected from the six classes around, its evidence grows by ``(k - b) / sqrt(b + 1)``, at most 8, less a drift of 1,
    and never falls below 0: a cumulative sum test (Page, 1954). It is unusual at 12, if the period had less than 0.1
    excess differences a request before that (an exponentially weighted mean) and the caller has been known for three
    days. The requests of a difference are a fifth of it apart from those of the one before, or it does not count:
    bursts are no period. Evidence older than three hours is dropped.

    Requests at random times have no period, regardless of their rate. Requests that got a 5xx or were limited are
    ignored: clients retry them at intervals.
    """

    __slots__ = ("_began", "_evidence", "_found", "_known", "_last", "_parts", "_times")
    name: ClassVar[str] = "regularity"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = False
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._times: array[float] = array("d")
        self._evidence: array[float] = array("f")
        self._known: array[float] = array("f")
        self._parts = 0
        self._began = self._last = -1.0
        self._found = 0.0

    def observe(self, seen: Observation, share: float) -> bool:
        """Add the times of the requests."""
        if seen.status in _IGNORED:
            return False
        times = self._times
        if seen.times:
            times.extend(seen.times)
        else:
            times.append(seen.time)
        if len(times) < EVERY + LAGS:
            return False
        ordered = sorted(times)
        # The last times are kept and compared with later ones.
        self._times = array("d", ordered[-LAGS:])
        if ordered[-1] - ordered[0] < _LEAST_SECONDS:
            return False
        if self._began < 0:
            self._began = ordered[0]
        if ordered[-1] - self._last > STALE and self._evidence:
            self._evidence = array("f", bytes(4 * _PERIODS))
        self._last = ordered[-1]
        return self._evaluate(ordered, min(share, 1.0))

    def explain(self) -> str:
        """Return a description of the period."""
        return f"requests at intervals of {self._found:.3g} s, which it did not have before"

    def read(self, time: float) -> Reading:
        """Return the period with the most evidence."""
        if self._parts < FEWEST_PARTS or time - self._began < LEARNING:
            return Reading(
                0.0, "no period", f"not enough history: needs three days and {EVERY * FEWEST_PARTS} requests"
            )
        most = max(self._evidence)
        period = _length(self._evidence.index(most))
        value = f"evidence {most:.1f} of a period of {period:.3g} s" if most else "no new period"
        known = [_length(place) for place, part in enumerate(self._known) if part > KNOWN]
        usual = ", ".join(f"{each:.3g} s" for each in known[:5]) if known else "none"
        return Reading(most / ENOUGH, value, f"usual periods: {usual}; unusual from {ENOUGH:.0f}")

    def _evaluate(self, times: list[float], share: float) -> bool:
        if not self._evidence:
            self._evidence, self._known = array("f", bytes(4 * _PERIODS)), array("f", bytes(4 * _PERIODS))
        self._parts += 1
        learned = self._parts >= FEWEST_PARTS and times[-1] - self._began >= LEARNING
        best, counts = -1, _counts(times)
        evidence, known = self._evidence, self._known
        for place in range(_BESIDE, _PERIODS - _BESIDE):
            excess, deviations = _excess(counts, place)
            if learned and known[place] < KNOWN and (excess >= LEAST_SHARE * EVERY or evidence[place]):
                evidence[place] = max(0.0, evidence[place] + min(deviations, HIGHEST) - DRIFT)
                if evidence[place] >= share * ENOUGH and (best < 0 or evidence[place] > evidence[best]):
                    best = place
            if not evidence[place]:
                rate = max(_RATE, 1 / self._parts)
                known[place] += rate * (max(0.0, excess / EVERY) - known[place])
        if best < 0:
            return False
        self._found = _length(best)
        for place in range(_PERIODS):
            evidence[place] = 0.0
        return True


def _length(place: int) -> float:
    """Return the middle of two classes."""
    return SHORTEST * math.exp(WIDTH * (place + 1))


def _counts(times: list[float]) -> list[int]:
    """Return the number of differences in each class.

    The requests of a difference are at least a fifth of its length apart from those of the previous one, so that two
    bursts are not counted as a period.
    """
    counts = [0] * (_PERIODS + 1)
    earlier, later = [-math.inf] * (_PERIODS + 1), [-math.inf] * (_PERIODS + 1)
    log = math.log
    for place in range(LAGS, len(times)):
        now = times[place]
        for before in times[place - LAGS : place]:
            difference = now - before
            if SHORTEST <= difference < LONGEST:
                kind = int(log(difference / SHORTEST) / WIDTH)
                apart = difference * APART
                if now - later[kind] >= apart and abs(before - earlier[kind]) >= apart:
                    earlier[kind], later[kind] = before, now
                    counts[kind] += 1
    return counts


def _excess(counts: list[int], place: int) -> tuple[float, float]:
    """Return the excess of two classes over the classes around them, as a count and in deviations."""
    pair = counts[place] + counts[place + 1]
    if pair < _LEAST_PAIRS:
        return 0.0, 0.0
    around = sum(counts[place - 4 : place - 1]) + sum(counts[place + 3 : place + 6])
    expected = around / 3
    return pair - expected, (pair - expected) / math.sqrt(expected + 1)
