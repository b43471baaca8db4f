"""Time intervals: limited in number, of equal length, and without losses."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from flask_secure_ml.observe.audit.records import second_from
from flask_secure_ml.observe.report.timeline import (
    MOST,
    Instants,
    Timeline,
    duration,
    ticks,
    written,
)

MAY = 1_777_593_600  # 2026-05-01T00:00:00Z
HOUR, DAY = 3600, 86_400


def filled(seconds: list[int], timeline: Timeline | None = None) -> Timeline:
    timeline = timeline or Timeline()
    for second in seconds:
        interval = timeline.at(second)
        interval.codes["x"] = interval.codes.get("x", 0) + 1
        interval.latency.add(second % 1000)
    return timeline


@pytest.mark.parametrize(
    ("span", "width"),
    [(0, 1), (90, 1), (HOUR, 60), (DAY, 900), (7 * DAY, 3 * HOUR), (31 * DAY, 43_200), (365 * DAY, 4 * DAY)],
)
@pytest.mark.parametrize("order", ["forward", "backward", "mixed"])
def test_each_second_is_in_its_interval(span: int, width: int, order: str) -> None:
    """Counted again with the width that was chosen, in any order of the records."""
    seconds = sorted(
        {MAY, MAY + span - (span > 0), *(MAY + random.Random(1).randrange(max(1, span)) for _ in range(2000))}
    )
    if order == "backward":
        seconds.reverse()
    elif order == "mixed":
        random.Random(2).shuffle(seconds)
    timeline = filled(seconds)
    assert timeline.width == width
    exact = Counter(second // width * width for second in seconds)
    found = {start: interval.codes["x"] for start, interval in timeline if interval.codes}
    assert found == exact
    assert sum(interval.latency.count for _, interval in timeline) == len(seconds)
    assert len(list(timeline)) <= MOST


def test_a_clock_that_was_wrong() -> None:
    """Records of 1970 and of the last year of the calendar are in the first and the last interval."""
    timeline = filled([0, MAY, 253_402_300_799, -62_135_596_800])
    starts = [start for start, interval in timeline if interval.codes]
    assert len(list(timeline)) <= MOST
    assert starts[0] == timeline.start
    assert starts[-1] + timeline.width == timeline.end
    assert all(written(second) for second, _ in timeline)
    assert ticks(timeline.start, timeline.end)


def test_the_range_that_was_asked_for() -> None:
    """It is covered completely, even without events."""
    timeline = filled([MAY + HOUR], Timeline(MAY, MAY + DAY))
    assert (timeline.start, timeline.end, timeline.width) == (MAY, MAY + DAY, 900)


def test_nothing() -> None:
    """A timeline without records has no intervals."""
    assert list(Timeline()) == []


INSTANTS = {
    "": None,
    "2026": 1_767_225_600,
    "2026-05": MAY,
    "2026-05-01": MAY,
    "2026-05-01T12": MAY + 12 * HOUR,
    "2026-05-01T12:30": MAY + 45_000,
    "2026-05-01T12:30:05.25": MAY + 45_005,
    "2026-05-01T00:00:00.000000Z": MAY,
}


@pytest.mark.parametrize(("option", "second"), list(INSTANTS.items()))
def test_an_instant(option: str, second: int | None) -> None:
    """The beginning of a timestamp, as the commands show and export take it."""
    assert second_from(option) == second


@pytest.mark.parametrize(
    "option", ["yesterday", "2026-13", "2026-05-01 12:00", "2026-05-01T12:00Z", "2026-05-01T12:00+02:00", "x" * 99]
)
def test_what_is_no_instant(option: str) -> None:
    """It would be compared as a string, and leave out records without a word."""
    with pytest.raises(ValueError, match="is not a time in UTC"):
        second_from(option)


@pytest.mark.parametrize(
    "time",
    [
        "",
        "now",
        "2026-05-01",
        "2026-05-01T12:00:0\u00b2.000000Z",
        "2026-05-01T12:60:00.000000Z",
        "2026-02-30T12:00:00.000000Z",
    ],
)
def test_what_is_no_timestamp(time: str) -> None:
    """A record without a time cannot be counted; neither can it after one of the same minute."""
    instants = Instants()
    assert instants.second_of("2026-05-01T12:00:07.000000Z") == MAY + 12 * HOUR + 7
    with pytest.raises(ValueError, match=r"."):
        instants.second_of(time)


@pytest.mark.parametrize("span", [1, 10, 90, HOUR, DAY, 3 * DAY, 31 * DAY, 365 * DAY, 4000 * DAY])
def test_ticks(span: int) -> None:
    """A few labels, at round instants within the axis, each different from its neighbor."""
    found = ticks(MAY + 7, MAY + 7 + span)
    assert len(found) <= 9
    assert all(MAY + 7 <= second <= MAY + 7 + span for second, _ in found)
    labels = [label for _, label in found]
    assert all(one != other for one, other in pairwise(labels))


def test_words() -> None:
    """Lengths of intervals in the largest unit that fits."""
    assert [duration(each) for each in (1, 15, 60, 900, HOUR, DAY, 4 * DAY)] == [
        *("1 second", "15 seconds", "1 minute", "15 minutes", "1 hour", "1 day", "4 days")
    ]
