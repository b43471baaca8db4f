"""The kinds of panels: a number, a graph, bars of events, states over time, and gauges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeNamePlacement,
    BarGaugeSizing,
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLink,
    DashboardRangeMapOptions,
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    RangeMap,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from .queries import Query

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
RUNBOOKS = "https://github.com/flask-secure-ml/flask-secure-ml/blob/main/docs/howto/alerts.rst"

GOOD, WARN, BAD, PLAIN, MUTED = "green", "orange", "red", "blue", "#6e7180"
STATES = {"0": ("down", BAD), "1": ("up", GOOD)}
TEXT_SIZE = 28
BAR = "1m"
"""The shortest time that one bar of events counts."""

Steps = Sequence[tuple[float, str]]
"""From which value on which colour."""

ValueMappings = Mapping[str, tuple[str, str]]
"""The text and the colour of values."""

Colours = Mapping[str, str]
"""The colours of series, by what their legends begin with, the last that fits; several series get shades of it."""

Panel = stat.Panel | timeseries.Panel | statetimeline.Panel | bargauge.Panel
_Built = TypeVar("_Built", stat.Panel, timeseries.Panel, statetimeline.Panel, bargauge.Panel)


def number(
    title: str,
    description: str,
    expression: str,
    unit: str,
    steps: Steps,
    *,
    mappings: ValueMappings | None = None,
    none: str = "no data",
    without: str = MUTED,
    runbooks: Iterable[str] = (),
) -> Panel:
    """Return one current number in the colour of its state.

    :param mappings: the string and the colour of each value that stands for a state.
    :param none: the text if there is no value now.
    :param without: the colour of that text.
    """
    missing = DashboardSpecialValueMapOptions(
        SpecialValueMatch.NULL_AND_NAN, ValueMappingResult(none, without, index=9)
    )
    built = (
        stat.Panel()
        .unit(unit)
        .no_value(none)
        .mappings([*([_value_map(mappings)] if mappings else []), SpecialValueMap(missing)])
        .thresholds(_thresholds(steps, without))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .text(common.VizTextDisplayOptions().value_size(TEXT_SIZE))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _panel(built, title, description, [(expression, title)], runbooks, instant=True)


def graph(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    stacked: bool = False,
    colours: Colours | None = None,
    limits: Steps = (),
    highest: float | None = None,
    current: bool = False,
    below: bool = False,
    whole: bool = False,
    none: str = "No data",
    runbooks: Iterable[str] = (),
) -> Panel:
    """Return lines over time, with a table of their means and maxima, the highest first.

    :param limits: dashed lines at values, such as the thresholds of alerts.
    :param highest: what the axis has at least.
    :param current: True for a table of current values instead of means.
    :param below: True if legends are so long that the table is below the lines.
    :param whole: True for whole numbers.
    :param none: what is shown if there is no series.
    """
    calculation, name = ("lastNotNull", "Last *") if current else ("mean", "Mean")
    built = _graph(unit, (calculation, "max"), name, none)
    if stacked:
        # Without lines: that of a series of zeros would be on top of the others, in its colour.
        built = built.line_width(0).fill_opacity(55).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limits:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        built = built.thresholds(_thresholds(limits, "transparent")).thresholds_style(style)
    if highest is not None:
        built = built.axis_soft_max(highest)
    if below:
        built = built.legend(_legend((calculation, "max"), name).placement(LegendPlacement.BOTTOM))
    if whole:
        built = built.decimals(0)
    return _panel(_coloured(built, colours or {}), title, description, queries, runbooks)


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    colours: Colours | None = None,
    none: str,
    runbooks: Iterable[str] = (),
) -> Panel:
    """Return counts of rare events, as bars, with their totals in the time range."""
    built = (
        _graph("short", ("sum",), "Total", none)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .decimals(0)
        .axis_soft_max(4)
        .interval(BAR)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    )
    return _panel(
        _coloured(built, colours or {}), title, f"{description} A bar is a minute or more.", queries, runbooks
    )


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    mappings: ValueMappings = STATES,
    links: Iterable[str] = (),
    none: str = "No data",
    runbooks: Iterable[str] = (),
) -> Panel:
    """Return the states of things over time, a line each.

    :param links: names of alerts; the lines of that name link to their runbook.
    """
    built = (
        statetimeline.Panel()
        .mappings([_value_map(mappings)])
        .thresholds(_thresholds((), MUTED))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .no_value(none)
        .fill_opacity(80)
        .line_width(0)
        .row_height(0.8)
        .show_value(VisibilityMode.NEVER)
        .legend(_legend((), "").display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
        .tooltip(_tooltip())
    )
    for name in links:
        link = {"title": f"Runbook of {name}", "url": runbook(name), "targetBlank": True}
        built = built.override_by_name(name, [DynamicConfigValue("links", [link])])
    return _panel(built, title, description, queries, runbooks)


def gauges(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    steps: Steps,
    *,
    highest: float,
    none: str,
    broken: str = "",
    runbooks: Iterable[str] = (),
) -> Panel:
    """Return the current values of what changes slowly, a bar each.

    :param steps: the first one has the colour of all values below the second one.
    :param broken: the text for values far below zero.
    """
    far = DashboardRangeMapOptions(-1e9, -1000, ValueMappingResult(broken, BAD, index=0))
    built = (
        bargauge.Panel()
        .unit(unit)
        .min(0)
        .max(highest)
        .no_value(none)
        .mappings([RangeMap(far)] if broken else [])
        .thresholds(_thresholds(steps[1:], steps[0][1]))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .display_mode(BarGaugeDisplayMode.BASIC)
        .orientation(VizOrientation.HORIZONTAL)
        .name_placement(BarGaugeNamePlacement.LEFT)
        .text(common.VizTextDisplayOptions().value_size(18))
        .sizing(BarGaugeSizing.MANUAL)
        .max_viz_height(36)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _panel(built, title, description, queries, runbooks, instant=True)


def runbook(alert: str) -> str:
    """Return the URL of the section about an alert."""
    return f"{RUNBOOKS}#{alert.lower()}"


def _panel(
    built: _Built,
    title: str,
    description: str,
    queries: Sequence[Query],
    runbooks: Iterable[str],
    *,
    instant: bool = False,
) -> _Built:
    for letter, (expression, legend) in zip(ascii_uppercase, queries, strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).datasource(SOURCE)
        built = built.with_target(query.instant() if instant else query.range())
    links: list[Builder[DashboardLink]] = [
        dashboard.DashboardLink(f"Runbook of {each}").url(runbook(each)).target_blank(True) for each in runbooks
    ]
    return built.title(title).description(description).datasource(SOURCE).links(links)


def _graph(unit: str, calculations: Sequence[str], sort_by: str, none: str) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .no_value(none)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .line_width(2)
        .show_points(VisibilityMode.AUTO)
        .legend(_legend(calculations, sort_by))
        .tooltip(_tooltip())
    )


def _legend(calculations: Sequence[str], sort_by: str) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.RIGHT)
        .show_legend(True)
        .calcs(list(calculations))
        .sort_by(sort_by)
        .sort_desc(True)
    )


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)


def _coloured(built: timeseries.Panel, colours: Colours) -> timeseries.Panel:
    for start, colour in colours.items():
        value = {"mode": FieldColorModeId.SHADES, "fixedColor": colour}
        built = built.override_by_regexp(f"/^{start}/", [DynamicConfigValue("color", value)])
    return built


def _value_map(mappings: ValueMappings) -> ValueMap:
    found = {
        value: ValueMappingResult(text, colour, index=at) for at, (value, (text, colour)) in enumerate(mappings.items())
    }
    return ValueMap(found)


def _thresholds(steps: Steps, base: str) -> dashboard.ThresholdsConfig:
    every = [Threshold(None, base), *(Threshold(value, colour) for value, colour in steps)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(every)
