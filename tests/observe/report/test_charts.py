"""The drawings: each bar, point and dot is where its number is."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from flask_secure_ml.observe.report.charts import (
    HEIGHT,
    Axis,
    Frame,
    Series,
    lanes,
    legend,
    linear_steps,
    lines,
    log_steps,
    microseconds,
    share_bar,
    stacked,
)

HOUR = 3600
AXIS = Axis(0, 4 * HOUR, HOUR)
FRAME = Frame("chart-x", "A <title>", "A description & more", AXIS)
TOP = 10


def drawn(markup: str) -> ET.Element:
    """Return the plot, without its labels."""
    plot = ET.fromstring(markup).find("./svg[@class='plot']")
    assert plot is not None
    return plot


def labels(markup: str) -> list[tuple[str, float]]:
    """Return the labels of the plot, and their heights."""
    texts = ET.fromstring(markup).findall("./svg[@class='labels']/text")
    return [(each.text or "", float(each.attrib["y"]) - 4) for each in texts]


def test_stacked_bars() -> None:
    """Bars of one interval are stacked, in the scale of the labels."""
    series = [Series("one", [10, 0, 5, 1], 0), Series("two", [30, 0, 5, 0], 1)]
    markup = stacked(FRAME, series)
    assert labels(markup)[-1:] == [("40", TOP)]
    scale = (HEIGHT - TOP) / 40
    bars = [each.attrib for each in drawn(markup).findall("./rect") if "fill" in each.attrib]
    assert [each["fill"] for each in bars] == ["url(#p0)", "url(#p1)", "url(#p0)", "url(#p1)", "url(#p0)"]
    heights = [float(each["height"]) for each in bars]
    assert heights == pytest.approx([10 * scale, 30 * scale, 5 * scale, 5 * scale, scale], abs=0.06)
    assert float(bars[0]["y"]) == pytest.approx(HEIGHT - 10 * scale, abs=0.06)
    assert float(bars[1]["y"]) == pytest.approx(HEIGHT - 40 * scale, abs=0.06)
    for bar, interval in zip(bars, (0, 0, 2, 2, 3), strict=True):
        left, width = (float(bar[name].rstrip("%")) for name in ("x", "width"))
        assert 25 * interval < left < left + width < 25 * (interval + 1)


def test_what_a_pointer_shows() -> None:
    """The numbers of each interval, and none for an empty one."""
    plot = drawn(stacked(FRAME, [Series("one", [1200, 0, 0, 0]), Series("two", [3, 0, 0, 0])]))
    hits = [each.findtext("title") for each in plot.findall("./rect[@class='hit']")]
    assert len(hits) == 4
    assert hits[0] == "1970-01-01 00:00 UTC, 1 hour\none: 1,200\ntwo: 3"
    assert hits[1] == "1970-01-01 01:00 UTC, 1 hour\nnothing"


def test_lines() -> None:
    """Neighbors are joined, a gap is left open, and a point by itself is a dot; the scale is logarithmic."""
    markup = lines(FRAME, [Series("p50", [1000, 100_000, None, 10_000], 1)])
    plot = drawn(markup)
    scale = dict(labels(markup))
    assert scale["1 ms"] == HEIGHT
    assert scale["100 ms"] == pytest.approx(TOP)
    (curve,) = plot.findall("./svg/polyline")
    points = [tuple(map(float, each.split(","))) for each in curve.attrib["points"].split()]
    assert points == [(125.0, HEIGHT), (375.0, pytest.approx(TOP))]
    (dot,) = plot.findall("./circle")
    assert dot.attrib["cx"] == "87.50%"
    assert float(dot.attrib["cy"]) == pytest.approx(scale["10 ms"], abs=0.1)


def test_lanes() -> None:
    """A dot for each interval that has events; more of them make it greater, up to a bound."""
    markup = lanes(FRAME, [Series("Blocks", [1, 0, 8, 10**9], 1), Series("Stops", [0, 0, 0, 0], 2)])
    dots = drawn(markup).findall("./circle")
    assert [each.attrib["cx"] for each in dots] == ["12.50%", "62.50%", "87.50%"]
    radii = [float(each.attrib["r"]) for each in dots]
    assert radii == sorted(radii)
    assert radii[-1] == 10
    assert {float(each.attrib["cy"]) for each in dots} == {labels(markup)[0][1]}
    assert dots[1].findtext("title") == "Blocks: 8\n1970-01-01 02:00 UTC, 1 hour"


def test_names_and_descriptions() -> None:
    """Each chart is an image with an escaped name and description; decoration is hidden from screen readers."""
    for markup in (stacked(FRAME, []), lines(FRAME, []), lanes(FRAME, [])):
        whole = ET.fromstring(markup)
        plot = drawn(markup)
        assert plot.attrib["role"] == "img"
        named = {each.attrib["id"]: each.text for each in plot if "id" in each.attrib}
        assert plot.attrib["aria-labelledby"].split() == list(named) == ["chart-x-title", "chart-x-desc"]
        assert list(named.values()) == ["A <title>", "A description & more"]
        assert whole.find("./svg").attrib["aria-hidden"] == "true"  # type: ignore[union-attr]


@pytest.mark.parametrize("most", [0, 0.5, 1, 2, 3, 7, 9, 10, 11, 19, 99, 101, 4321, 10**6 + 1, 10**15])
def test_linear_steps(most: float) -> None:
    """Whole numbers at equal distances from 0 to the maximum, not many and not far above it."""
    steps = linear_steps(most)
    assert steps[0] == 0
    assert steps[-1] >= most
    assert 2 <= len(steps) <= 7
    assert all(step == int(step) for step in steps)
    assert len({round(other - one, 6) for one, other in pairwise(steps)}) == 1
    assert steps[-1] <= max(1, most * 1.5) or steps[-1] - most < 2


@pytest.mark.parametrize(
    ("least", "most"), [(1, 1), (1000, 1000), (900, 1100), (1, 10**12), (20_000, 70_000), (50, 49_000)]
)
def test_log_steps(least: float, most: float) -> None:
    """They rise, and enclose all numbers."""
    steps = log_steps(least, most)
    assert steps == sorted(set(steps))
    assert steps[0] <= least <= most <= steps[-1] * (1 + 1e-9)
    assert 2 <= len(steps) <= 9
    assert math.log(steps[-1]) > math.log(steps[0])


@pytest.mark.parametrize(
    ("value", "written", "short"),
    [
        (1, "1 µs", "1 µs"),
        (999, "999 µs", "999 µs"),
        (1000, "1.00 ms", "1 ms"),
        (9999, "10.0 ms", "9.999 ms"),
        (10_000, "10.0 ms", "10 ms"),
        (123_456, "123 ms", "123.456 ms"),
        (1_500_000, "1.50 s", "1.5 s"),
        (3_600_000_000, "3,600 s", "3600 s"),
        (0.5, "0.5 µs", "0.5 µs"),
    ],
)
def test_lengths_of_time(value: float, written: str, short: str) -> None:
    """Three digits in tables, and those that a number has on an axis."""
    assert microseconds(value) == written
    assert microseconds(value, digits=False) == short


def test_shares_and_legends() -> None:
    """A share is never wider than its cell; each name of a legend has a drawing of its own."""
    widths = re.compile(r'class="f1" width="([\d.]+)%"')
    assert [widths.findall(share_bar(each, 1)) for each in (-1, 0.25, 7)] == [["0.0"], ["25.0"], ["100.0"]]
    found = legend([Series("<b>", [], 0), Series("c", [], 1)], dashed=True)
    assert found.count("<li>") == 2
    assert "&lt;b&gt;" in found
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"', found))) == 2
