"""Counts over time in a bounded number of intervals, whose length grows with the period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..audit.records import TIMESTAMP, seconds_of
from .bounded import Percentiles

MOST = 96
"""Maximum number of intervals."""

_DAY = 86_400
_YEAR, _AGE = 300 * _DAY, 3650 * _DAY
# Each length divides the next one, so that intervals can be merged.
_WIDTHS = (1, 5, 15, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, _DAY)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_MINUTE = len("0000-01-01T00:00")
_LENGTH = len(TIMESTAMP)


@dataclass(slots=True)
class Interval:
    """The counts of one interval."""

    outcomes: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    latency: Percentiles = field(default_factory=Percentiles)

    def merge(self, other: Interval) -> None:
        """Add the counts of another interval."""
        for mine, theirs in (
            (self.outcomes, other.outcomes),
            (self.codes, other.codes),
            (self.models, other.models),
            (self.events, other.events),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.latency.merge(other.latency)


class Timeline:
    """The intervals of a period.

    :param since: the start of the period, if it is given.
    :param until: the end of the period, if it is given and there are no later records.
    """

    def __init__(self, since: int | None = None, until: int | None = None) -> None:
        self.width: int = _WIDTHS[0]
        self._intervals: dict[int, Interval] = {}
        self._first: int | None = None
        self._last = 0
        for second in (since, None if until is None else until - 1):
            if second is not None:
                self._cover(second)

    def at(self, second: int) -> Interval:
        """Return the interval that contains a second."""
        number = second // self.width
        found = self._intervals.get(number)
        if found is None:
            self._cover(second)
            found = self._intervals.setdefault(second // self.width, Interval())
        return found

    @property
    def start(self) -> int:
        """The start of the first interval."""
        return (self._first or 0) // self.width * self.width

    @property
    def end(self) -> int:
        """The end of the last interval."""
        return (self._last // self.width + 1) * self.width if self._first is not None else 0

    def __iter__(self) -> Iterator[tuple[int, Interval]]:
        """Yield the start and counts of each interval, including empty ones."""
        for second in range(self.start, self.end, self.width):
            yield second, self._intervals.get(second // self.width) or Interval()

    def _cover(self, second: int) -> None:
        if self._first is None:
            self._first = self._last = second
        self._first, self._last = min(self._first, second), max(self._last, second)
        width = self.width
        while self._last // width - self._first // width >= MOST:
            width = next((each for each in _WIDTHS if each > width), width * 2)
        if width == self.width:
            return
        joined: dict[int, Interval] = {}
        for number, interval in self._intervals.items():
            target = number * self.width // width
            if target in joined:
                joined[target].merge(interval)
            else:
                joined[target] = interval
        self.width, self._intervals = width, joined


class Instants:
    """Parses timestamps; most are in the same minute as the previous one."""

    def __init__(self) -> None:
        self._minute = ""
        self._seconds = 0

    def second_of(self, time: str) -> int:
        """Return a timestamp in whole seconds since the epoch.

        :raises BrokenLineError: it is not a timestamp.
        """
        if time[:_MINUTE] != self._minute or len(time) != _LENGTH or not time[_MINUTE + 1 : _MINUTE + 3].isdigit():
            seconds = int(seconds_of(time) // 60 * 60)
            self._minute, self._seconds = time[:_MINUTE], seconds
        return self._seconds + int(time[_MINUTE + 1 : _MINUTE + 3])


def moment(second: int) -> datetime:
    """Return a datetime in UTC, clamped to the supported range."""
    return _EPOCH + timedelta(seconds=min(max(second, _FIRST), _LAST))


def written(second: int) -> str:
    """Return a formatted time."""
    return f"{moment(second):%Y-%m-%d %H:%M}" + (f":{second % 60:02d}" if second % 60 else "")


def duration(seconds: int) -> str:
    """Return the length of an interval in words."""
    for size, name in ((_DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return f"{number:,} {name}{'' if number == 1 else 's'}"
    return "0 seconds"


_STEPS = (*_WIDTHS, *(days * _DAY for days in (2, 7, 14, 30, 61, 122, 365, 730, 3650, 36_500, 365_000)))


def ticks(start: int, end: int, most: int = 8) -> list[tuple[int, str]]:
    """Return the ticks of a time axis with their labels."""
    span = max(1, end - start)
    step = next((each for each in _STEPS if span / each <= most), _STEPS[-1])
    found = []
    for second in range(-(-start // step) * step, end + 1, step):
        instant = moment(second)
        if step >= _DAY:
            label = (
                f"{instant.day} {instant:%b}"
                if span <= _YEAR
                else f"{instant:%b %Y}"
                if step < _AGE
                else f"{instant:%Y}"
            )
        elif second % _DAY == 0:
            label = f"{instant.day} {instant:%b}"
        else:
            label = f"{instant:%H:%M:%S}" if step < _WIDTHS[3] else f"{instant:%H:%M}"
        found.append((second, label))
    return found
