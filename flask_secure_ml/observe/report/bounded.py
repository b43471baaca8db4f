"""Counts and percentiles in bounded memory, with known errors."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Generic, TypeVar

OTHER = "other"
ACCURACY = 0.01
"""Maximum relative error of a percentile."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE = 1 / math.log(_GAMMA)

Key = TypeVar("Key", bound=Hashable)


class Percentiles:
    """Percentiles of positive numbers, with a relative error of at most :data:`ACCURACY`.

    The numbers are counted in bins whose bounds grow by a constant factor: the sketch of Masson, Rim and Lee,
    "DDSketch" (2019). From one microsecond to an hour these are 1,100 bins.
    """

    __slots__ = ("_bins", "count")

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self.count: int = 0

    def add(self, value: int) -> None:
        """Add a number; numbers below 1 count as 1."""
        number = math.ceil(math.log(value) * _SCALE) if value > 1 else 0
        self._bins[number] = self._bins.get(number, 0) + 1
        self.count += 1

    def merge(self, other: Percentiles) -> None:
        """Add the numbers of another sketch; the result equals one sketch of all numbers."""
        for number, count in other._bins.items():
            self._bins[number] = self._bins.get(number, 0) + count
        self.count += other.count

    def at(self, share: float) -> float | None:
        """Return the percentile for a fraction; None without numbers."""
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for number in sorted(self._bins):
            seen += self._bins[number]
            if seen >= rank:
                return 2 * _GAMMA**number / (_GAMMA + 1) if number else 1.0
        return None


class Top(Generic[Key]):
    """Counts by key; only the greatest are kept.

    The counts are exact for up to twice as many keys as the capacity. Then the smallest are dropped; the possible
    earlier count of a key that appears again is added to its upper bound, as in the algorithm "Space-Saving" of
    Metwally, Agrawal and El Abbadi (2005).

    :param capacity: the number of keys that remain when the smallest are dropped.
    """

    __slots__ = ("_capacity", "_counts", "_dropped", "_missing")

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._counts: dict[Key, int] = {}
        self._missing: dict[Key, int] = {}
        self._dropped = 0

    def add(self, key: Key, amount: int = 1) -> None:
        """Count a key."""
        counts = self._counts
        if key in counts:
            counts[key] += amount
            return
        counts[key] = amount
        if self._dropped:
            self._missing[key] = self._dropped
        if len(counts) > 2 * self._capacity:
            self._drop()

    @property
    def exact(self) -> bool:
        """Return True if no key was dropped."""
        return not self._dropped

    @property
    def left_out(self) -> int:
        """The maximum possible count of a dropped key."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._counts)

    def bounds(self, key: Key) -> tuple[int, int]:
        """Return the lower and upper bound of a key's count."""
        count = self._counts.get(key)
        return (0, self._dropped) if count is None else (count, count + self._missing.get(key, 0))

    def greatest(self, number: int) -> list[Key]:
        """Return the keys with the greatest counts; ties are sorted by name."""
        return heapq.nsmallest(number, self._counts, key=lambda each: (-self._counts[each], str(each)))

    def _drop(self) -> None:
        uppers = {key: count + self._missing.get(key, 0) for key, count in self._counts.items()}
        kept = set(heapq.nlargest(self._capacity, uppers, key=uppers.__getitem__))
        self._dropped = max(self._dropped, *(upper for key, upper in uppers.items() if key not in kept))
        self._counts = {key: count for key, count in self._counts.items() if key in kept}
        self._missing = {key: count for key, count in self._missing.items() if key in kept}


class Names:
    """The first names of a kind; further ones are counted as :data:`OTHER`, so that memory is bounded.

    :param most: the maximum number of names.
    """

    __slots__ = ("_most", "_names")

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._names: set[str] = set()

    def get(self, name: str) -> str:
        """Return the name to count under."""
        if name in self._names:
            return name
        if len(self._names) >= self._most:
            return OTHER
        self._names.add(name)
        return name


class Newest:
    """The newest events in chronological order, and the total number of events.

    :param most: the number of events to keep.
    """

    __slots__ = ("_events", "_most", "count")

    def __init__(self, most: int = 10) -> None:
        self._most = most
        self._events: list[tuple[str, int, Any]] = []
        self.count: int = 0

    def add(self, time: str, event: Any) -> None:
        """Add an event."""
        self.count += 1
        item = (time, self.count, event)
        if len(self._events) < self._most:
            heapq.heappush(self._events, item)
        else:
            heapq.heappushpop(self._events, item)

    def __iter__(self) -> Iterator[Any]:
        """Yield the events that were kept, newest first."""
        return (event for _, _, event in sorted(self._events, key=itemgetter(0, 1), reverse=True))


def greatest_first(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return names with their counts, greatest first, with :data:`OTHER` at the end."""
    return sorted(counts, key=lambda each: (each[0] == OTHER, -each[1], each[0]))
