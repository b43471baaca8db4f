"""The charts of a report, each with a table of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .bounded import OTHER, Percentiles, greatest_first
from .charts import NOTHING, PATTERNS, Axis, Frame, Series, count, lanes, legend, lines, microseconds, stacked
from .figures import LANES, OUTCOMES, Figures
from .tables import QUANTILES, Heading, Table, shown
from .timeline import Interval, Timeline, duration, written


@dataclass(frozen=True)
class Drawing:
    """A chart with its legend, and the table of its numbers."""

    title: str
    description: str = ""
    drawing: str = ""
    legend: str = ""
    numbers: Table | None = None
    empty: str = ""


def drawings(figures: Figures) -> dict[str, Drawing]:
    """Return all charts of a report."""
    every = f"in intervals of {duration(figures.timeline.width)}"
    return {
        "outcomes": _stacked(
            figures.timeline,
            ("chart-requests", "Requests", f"Accepted, rejected (4xx) and failed (5xx) requests {every}."),
            OUTCOMES,
            lambda interval: interval.outcomes,
            "No requests in this period.",
        ),
        "codes": _stacked(
            figures.timeline,
            ("chart-rejections", "Rejections and failures by reason", f"Error responses {every}, by code."),
            _greatest(figures.timeline, lambda interval: interval.codes),
            lambda interval: interval.codes,
            "No requests were rejected in this period.",
            # The first pattern is used for accepted requests.
            styles=(1, 2, 3, 4, 5, 6, 0),
        ),
        "models": _stacked(
            figures.timeline,
            ("chart-models", "Predictions by model version", f"Requests that named a model {every}."),
            _greatest(figures.timeline, lambda interval: interval.models),
            lambda interval: interval.models,
            "No record contains a model: set SECURE_ML_MODEL, or call used_model() in the view.",
        ),
        "latency": _latency(figures.timeline),
        "events": _events(figures),
    }


def _stacked(
    timeline: Timeline,
    named: tuple[str, str, str],
    names: Sequence[str],
    of: Callable[[Interval], Mapping[str, int]],
    empty: str,
    styles: Sequence[int] = range(PATTERNS - 1),
) -> Drawing:
    id_, title, description = named
    intervals = list(timeline)
    kept = set(names)
    series = []
    for number, each in enumerate(names):
        values = [
            sum(value for name, value in of(interval).items() if name not in kept or name == OTHER)
            if each == OTHER
            else of(interval).get(each, 0)
            for _, interval in intervals
        ]
        series.append(Series(shown(each), values, PATTERNS - 1 if number == len(styles) else styles[number]))
    if not any(any(each.values) for each in series):
        return Drawing(title, empty=empty)
    axis = _axis(timeline)
    drawing = stacked(Frame(id_, title, description, axis), series)
    return Drawing(title, description, drawing, legend(series), _numbers(title, axis, series, count))


def _latency(timeline: Timeline) -> Drawing:
    title = "Latency of accepted requests"
    description = (
        f"Time until the response started, in intervals of {duration(timeline.width)}: 50 % of the requests were at "
        "least as fast as p50, 95 % as p95 and 99 % as p99. The scale is logarithmic."
    )
    sketches: list[Percentiles] = [interval.latency for _, interval in timeline]
    if not any(each.count for each in sketches):
        return Drawing(title, empty="No requests were accepted in this period.")
    series = [
        Series(name, [each.at(share) for each in sketches], style) for style, (name, share) in enumerate(QUANTILES)
    ]
    axis = _axis(timeline)
    drawing = lines(Frame("chart-latency", title, description, axis), series)
    return Drawing(
        title, description, drawing, legend(series, dashed=True), _numbers(title, axis, series, microseconds)
    )


def _events(figures: Figures) -> Drawing:
    title = "Events over time"
    intervals = list(figures.timeline)
    series = [
        Series(lane, [interval.events.get(lane, 0) for _, interval in intervals], number % PATTERNS)
        for number, lane in enumerate(LANES)
        if figures.events[lane]
    ]
    if not series:
        return Drawing(title, empty="No events in this period.")
    axis = _axis(figures.timeline)
    description = f"A dot for each interval of {duration(axis.width)} with events; its size shows their number."
    drawing = lanes(Frame("chart-events", title, description, axis), series)
    return Drawing(title, description, drawing, "", _numbers(title, axis, series, count))


def _greatest(timeline: Timeline, of: Callable[[Interval], Mapping[str, int]]) -> list[str]:
    """Return the names with the most requests, and one for all others at the end."""
    counts: dict[str, int] = {}
    for _, interval in timeline:
        for name, value in of(interval).items():
            counts[name] = counts.get(name, 0) + value
    names = [name for name, _ in greatest_first(counts.items())]
    if len(names) <= PATTERNS:
        return names
    return [*[name for name in names if name != OTHER][: PATTERNS - 1], OTHER]


def _numbers(title: str, axis: Axis, series: Sequence[Series], form: Callable[[float], str]) -> Table:
    rows = []
    for number, second in enumerate(axis.seconds):
        values = [each.values[number] for each in series]
        if any(values):
            rows.append([written(second), *(NOTHING if value is None else form(value) for value in values)])
    headings = [Heading("From", "instant"), *(Heading(each.name, "number") for each in series)]
    return Table(f"{title}; empty intervals of {duration(axis.width)} are omitted", headings, rows, wide=True)


def _axis(timeline: Timeline) -> Axis:
    return Axis(timeline.start, timeline.end, timeline.width)
