"""Counts and percentiles in bounded memory stay within the errors that they state."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from flask_secure_ml.observe.report.bounded import (
    ACCURACY,
    OTHER,
    Names,
    Newest,
    Percentiles,
    Top,
    greatest_first,
)

SHARES = (0.0, 0.01, 0.5, 0.95, 0.99, 0.999, 1.0)
DICE = random.Random(7)
SAMPLES = {
    "one": [1234],
    "equal": [5000] * 100,
    "two_far_apart": [1, 10**12],
    "small": list(range(1, 40)),
    "log_normal": [int(DICE.lognormvariate(9, 1.5)) + 1 for _ in range(5000)],
    "uniform": [DICE.randrange(1, 10**6) for _ in range(5000)],
    "two_peaks": [DICE.choice((900, 2_000_000)) + DICE.randrange(100) for _ in range(5000)],
}


def sketch_of(values: list[int]) -> Percentiles:
    sketch = Percentiles()
    for value in values:
        sketch.add(value)
    return sketch


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_percentile_is_near_the_value_of_its_rank(name: str, share: float) -> None:
    """The value of that rank among all, sorted, give or take one percent."""
    values = sorted(SAMPLES[name])
    exact = values[max(1, math.ceil(share * len(values))) - 1]
    found = sketch_of(values).at(share)
    assert found is not None
    assert abs(found - exact) <= ACCURACY * exact + 1e-9


def test_percentiles_of_nothing_and_of_zero() -> None:
    """There is none of nothing; zero counts as one microsecond."""
    assert Percentiles().at(0.5) is None
    assert sketch_of([0, 0, 0]).at(0.5) == 1.0


def test_joined_percentiles_are_those_of_all_values() -> None:
    """Merging is exact, so intervals can be merged."""
    values = SAMPLES["log_normal"]
    whole, parts = sketch_of(values), Percentiles()
    for start in range(0, len(values), 700):
        parts.merge(sketch_of(values[start : start + 700]))
    assert [whole.at(share) for share in SHARES] == [parts.at(share) for share in SHARES]
    assert parts.count == len(values)


def test_percentiles_have_a_bounded_size() -> None:
    """From a microsecond to three hundred years, in every thousandth of a power of ten."""
    sketch = sketch_of([int(10 ** (each / 1000)) for each in range(16_000)])
    assert len(sketch._bins) < 1900


def streams() -> Iterator[tuple[str, list[str]]]:
    dice = random.Random(3)
    yield "few", [dice.choice("abcdef") for _ in range(3000)]
    skewed = [f"k{int(dice.paretovariate(0.7)) % 5000}" for _ in range(20_000)]
    yield "skewed", skewed
    yield "all_different", [f"k{each}" for each in range(5000)]
    yield "heavy_ones_last", [f"k{each}" for each in range(3000)] + ["heavy"] * 500
    yield "heavy_ones_first", ["heavy"] * 500 + [f"k{each}" for each in range(3000)]
    yield "in_turns", [each for number in range(2000) for each in ("heavy", f"k{number}")]
    yield "comes_back", [f"k{each % 150}" for each in range(6000)]


STREAMS = dict(streams())


@pytest.mark.parametrize("name", STREAMS)
def test_bounds_hold(name: str) -> None:
    """The exact count is within the bounds of each key, also of those that were dropped; memory is bounded."""
    keys = STREAMS[name]
    top: Top[str] = Top(capacity=50)
    for key in keys:
        top.add(key)
        assert len(top) <= 101
    exact = Counter(keys)
    for key in exact:
        low, high = top.bounds(key)
        assert low <= exact[key] <= high
    if len(exact) <= 100:
        assert top.exact
        assert [top.bounds(key) for key in top.greatest(3)] == [(count, count) for _, count in exact.most_common(3)]


@pytest.mark.parametrize("name", ["heavy_ones_last", "heavy_ones_first", "in_turns"])
def test_the_heaviest_is_never_lost(name: str) -> None:
    """The most active is first in the list, however many others there are."""
    top: Top[str] = Top(capacity=50)
    for key in STREAMS[name]:
        top.add(key)
    assert top.greatest(1) == ["heavy"]
    assert not top.exact
    assert top.left_out <= len(STREAMS[name]) / 50


def test_amounts_are_added() -> None:
    """Rows are counted as requests are, and equal counts are in the order of names."""
    top: Top[str] = Top()
    for key, rows in (("b", 5), ("a", 2), ("a", 3), ("c", 1)):
        top.add(key, rows)
    assert top.greatest(2) == ["a", "b"]
    assert top.bounds("a") == (5, 5)
    assert top.bounds("nobody") == (0, 0)


def test_names_end_at_a_bound() -> None:
    """Further names are counted together, and those that are known are still found."""
    names = Names(2)
    assert [names.get(each) for each in ("a", "b", "c", "a", "c")] == ["a", "b", OTHER, "a", OTHER]
    assert greatest_first([(OTHER, 9), ("b", 2), ("a", 2), ("c", 3)]) == [("c", 3), ("a", 2), ("b", 2), (OTHER, 9)]


def test_the_newest_events() -> None:
    """The latest events are kept, in any order of arrival, and all are counted."""
    newest = Newest(3)
    times = ["5", "1", "9", "7", "3", "9"]
    for number, time in enumerate(times):
        newest.add(time, (time, number))
    assert list(newest) == [("9", 5), ("9", 2), ("7", 3)]
    assert newest.count == len(times)
