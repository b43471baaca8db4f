"""Charts in SVG, for a page without scripts.

Positions on the time axis are percentages and heights are pixels, so a drawing fits any width and its text keeps its
size. The styles are CSS classes of the page. Series differ in pattern or dashes, not only in color.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .timeline import duration, ticks, written

HEIGHT, _TOP, _BOTTOM = 190, 10, 26
PATTERNS = 8
"""Number of series with distinct styles; see the definitions in the template."""

NOTHING = "\u2013"
"""Placeholder for a missing number."""

_EDGE, _NARROW_EDGE = 0.97, 0.9
_WIDEST = 0.06
_LANE = 26
_LABEL = 62
_LANE_LABEL = 96
_INTERVALS, _FEW = 5, 3
_DASHES = ("", "6 4", "2 3")


@dataclass(frozen=True)
class Axis:
    """The intervals along the time axis."""

    start: int
    end: int
    width: int

    @property
    def seconds(self) -> range:
        """The start of each interval."""
        return range(self.start, self.end, self.width)

    def share(self, second: float) -> float:
        """Return the relative position of a second, from 0 to 1."""
        return (second - self.start) / max(1, self.end - self.start)

    def label(self, second: int) -> str:
        """Return the label of the interval that starts at a second."""
        return f"{written(second)} UTC, {duration(self.width)}"


@dataclass(frozen=True)
class Series:
    """The values of one series, one for each interval.

    :param style: the number of its color and pattern.
    """

    name: str
    values: Sequence[float | None]
    style: int = 0


@dataclass(frozen=True)
class Frame:
    """The title and description of a chart.

    :param id: unique in the page.
    """

    id: str
    title: str
    description: str
    axis: Axis


def stacked(frame: Frame, series: Sequence[Series]) -> Markup:
    """Return stacked bars, one for each interval."""
    totals = [sum(each or 0 for each in column) for column in zip(*(each.values for each in series), strict=True)]
    steps = linear_steps(max(totals, default=0))
    scale = (HEIGHT - _TOP) / steps[-1]
    axis, parts = frame.axis, []
    for number, second in enumerate(axis.seconds):
        y = float(HEIGHT)
        left, right = axis.share(second), axis.share(second + axis.width)
        for each in series:
            height = (each.values[number] or 0) * scale
            if height:
                y -= height
                parts.append(_bar(left, right, y, height, each.style))
        parts.append(_hit(left, right, HEIGHT, [axis.label(second), *_said(series, number, count)]))
    return _drawn(frame, parts, [(_height(step, steps[-1]), count(step)) for step in steps])


def lines(frame: Frame, series: Sequence[Series]) -> Markup:
    """Return a line for each series, on a logarithmic scale of microseconds."""
    present = [value for each in series for value in each.values if value]
    steps = log_steps(min(present, default=1), max(present, default=1))
    low, span = math.log(steps[0]), math.log(steps[-1]) - math.log(steps[0])
    axis, parts = frame.axis, []

    def height(value: float) -> float:
        return HEIGHT - (HEIGHT - _TOP) * min(1.0, max(0.0, (math.log(value) - low) / span))

    for each in series:
        points = [
            (axis.share(second + axis.width / 2), height(value)) if value else None
            for second, value in zip(axis.seconds, each.values, strict=True)
        ]
        parts.append(_curve(points, each.style))
    for number, second in enumerate(axis.seconds):
        parts.append(
            _hit(
                axis.share(second),
                axis.share(second + axis.width),
                HEIGHT,
                [axis.label(second), *_said(series, number, microseconds)],
            )
        )
    return _drawn(frame, parts, [(height(step), microseconds(step, digits=False)) for step in steps])


def lanes(frame: Frame, series: Sequence[Series]) -> Markup:
    """Return a row for each series, with a dot for each interval with a value."""
    axis, parts = frame.axis, []
    height = _LANE * max(1, len(series)) + _TOP
    for row, each in enumerate(series):
        y = _TOP + _LANE * row + _LANE / 2
        parts.append(_line(0, 1, y, y, "grid"))
        for second, value in zip(axis.seconds, each.values, strict=True):
            if value:
                x = axis.share(second + axis.width / 2)
                parts.append(
                    Markup(
                        '<circle class="dot f{}" cx="{:.2f}%" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
                    ).format(
                        each.style,
                        x * 100,
                        y,
                        min(10.0, 4.0 + 1.4 * math.log2(value)),
                        f"{each.name}: {count(value)}\n{axis.label(second)}",
                    )
                )
    labels = [(_TOP + _LANE * row + _LANE / 2, each.name) for row, each in enumerate(series)]
    return _drawn(frame, parts, labels, height=height, label=_LANE_LABEL, grid=False)


def share_bar(share: float, style: int) -> Markup:
    """Return a bar for a table cell, next to the number."""
    return Markup(
        '<svg class="share" aria-hidden="true" focusable="false">'
        '<rect class="track" width="100%" height="100%" rx="3"/>'
        '<rect class="f{}" width="{:.1f}%" height="100%" rx="3"/></svg>'
    ).format(style, 100 * min(1.0, max(0.0, share)))


def legend(series: Iterable[Series], *, dashed: bool = False) -> Markup:
    """Return the names of series with their styles."""
    shapes = Markup()
    for each in series:
        if dashed:
            dashes = _DASHES[each.style % len(_DASHES)]
            shape = Markup('<line class="l{}" x1="0" x2="28" y1="7" y2="7" stroke-dasharray="{}"/>').format(
                each.style, dashes
            )
            size = 28
        else:
            shape = Markup('<rect width="14" height="14" rx="2" fill="url(#p{})"/>').format(each.style)
            size = 14
        shapes += Markup(
            '<li><svg width="{}" height="14" aria-hidden="true" focusable="false">{}</svg> <bdi>{}</bdi></li>'
        ).format(size, shape, each.name)
    return Markup('<ul class="legend">{}</ul>').format(shapes)


def count(value: float) -> str:
    """Return a formatted whole number."""
    return f"{value:,.0f}"


def microseconds(value: float, *, digits: bool = True) -> str:
    """Return a formatted duration, with three digits or exactly."""
    for size, unit in ((1_000_000, "s"), (1000, "ms"), (1, "\u00b5s")):
        if value >= size:
            number = float(f"{value / size:.3g}") if digits else value / size
            places = max(0, 2 - math.floor(math.log10(number))) if size > 1 else 0
            return f"{number:,.{places}f} {unit}" if digits else f"{number:g} {unit}"
    return f"{value:g} \u00b5s"


def linear_steps(most: float) -> list[float]:
    """Return at most seven round numbers from 0 to at least a maximum."""
    if most <= 0:
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(most))
    step = max(1.0, next(size * each for each in (0.2, 0.25, 0.5, 1, 2) if most / (size * each) <= _INTERVALS))
    step = step if step == int(step) else math.ceil(step)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def log_steps(least: float, most: float) -> list[float]:
    """Return powers of ten, or their halves, that cover the range from a minimum to a maximum."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    high = max(high, low + 1)
    by = max(1, math.ceil((high - low) / 6))
    steps = [10.0**each for each in range(low, high + by, by)]
    return steps if len(steps) > _FEW else sorted({*steps, *(3 * each for each in steps[:-1])})


def _height(value: float, most: float) -> float:
    return HEIGHT - (HEIGHT - _TOP) * value / most


def _said(series: Sequence[Series], number: int, form: Callable[[float], str]) -> list[str]:
    found = [f"{each.name}: {form(value)}" for each in series if (value := each.values[number])]
    return found or ["nothing"]


def _bar(left: float, right: float, y: float, height: float, style: int) -> Markup:
    # Leave gaps between bars, and limit the width of a few bars.
    gap = max(0.12 * (right - left), right - left - _WIDEST)
    return Markup('<rect x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}" fill="url(#p{})"/>').format(
        (left + gap / 2) * 100, y, (right - left - gap) * 100, max(height, 1.0), style
    )


def _hit(left: float, right: float, height: float, words: Sequence[str]) -> Markup:
    """Return an area with a tooltip of the numbers of an interval."""
    return Markup('<rect class="hit" x="{:.2f}%" y="0" width="{:.2f}%" height="{}"><title>{}</title></rect>').format(
        left * 100, (right - left) * 100, height, "\n".join(words)
    )


def _curve(points: Sequence[tuple[float, float] | None], style: int) -> Markup:
    """Return lines between neighboring points; an isolated point is a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    found = Markup()
    for run in filter(None, runs):
        if len(run) == 1:
            found += Markup('<circle class="f{}" cx="{:.2f}%" cy="{:.1f}" r="3.5"/>').format(
                style, run[0][0] * 100, run[0][1]
            )
            continue
        # The coordinates of a line cannot be percentages, so it is scaled, without its width and dashes.
        found += Markup(
            '<svg width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none"><polyline class="l{}" '
            'points="{}" stroke-dasharray="{}" vector-effect="non-scaling-stroke"/></svg>'
        ).format(style, " ".join(f"{x * 1000:.1f},{y:.1f}" for x, y in run), _DASHES[style % len(_DASHES)], h=HEIGHT)
    return found


def _line(left: float, right: float, y1: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
        name, left * 100, right * 100, y1, y2
    )


def _drawn(
    frame: Frame,
    parts: Sequence[Markup],
    labels: Sequence[tuple[float, str]],
    *,
    height: float = HEIGHT,
    label: int = _LABEL,
    grid: bool = True,
) -> Markup:
    """Return the drawing: labels at the left, and the plot with a variable width."""
    axis = frame.axis
    texts = Markup().join(
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(label - 8, y + 4, text)
        for y, text in labels
    )
    lines_ = Markup().join(_line(0, 1, y, y, "grid") for y, _ in labels) if grid else Markup()
    whole = height + _BOTTOM
    return Markup(
        '<div class="chart"><svg class="labels" width="{label}" height="{whole}" aria-hidden="true" focusable="false">'
        '{texts}</svg><svg class="plot" height="{whole}" role="img" aria-labelledby="{id}-title {id}-desc" '
        'focusable="false"><title id="{id}-title">{title}</title><desc id="{id}-desc">{description}</desc>'
        "{lines}{parts}{base}{times}</svg></div>"
    ).format(
        label=label,
        whole=whole,
        texts=texts,
        id=frame.id,
        title=frame.title,
        description=frame.description,
        lines=lines_,
        parts=Markup().join(parts),
        base=_line(0, 1, height, height, "base"),
        times=_times(axis, height),
    )


def _times(axis: Axis, height: float) -> Markup:
    found = []
    for number, (second, text) in enumerate(ticks(axis.start, axis.end)):
        x = axis.share(second)
        # At the left, a label has space below the other labels. On narrow screens, there is none at the right.
        anchor = "end" if x > _EDGE else "middle"
        is_wide = number % 2 or x > _NARROW_EDGE
        found.append(
            Markup(
                '<g{}><line class="base" x1="{x:.2f}%" x2="{x:.2f}%" y1="{:.1f}" y2="{:.1f}"/>'
                '<text x="{x:.2f}%" y="{:.1f}" text-anchor="{}">{}</text></g>'
            ).format(
                Markup(' class="wide"') if is_wide else "", height, height + 5, height + 20, anchor, text, x=x * 100
            )
        )
    return Markup().join(found)
