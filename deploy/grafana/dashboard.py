"""Write the Grafana dashboard that ``flask secure-ml deploy grafana`` copies.

``python -m deploy.grafana.dashboard > flask_secure_ml/deploy/templates/grafana/dashboard.json``

It needs ``pip install "flask-secure-ml[test]"``, in the release of grafana-foundation-sdk that pyproject.toml names:
its version is that of the schema. The panels are in ``overview.py``, ``traffic.py`` and ``operation.py``; how each kind
is drawn is in ``panels.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableRefresh,
)

from . import operation, overview, traffic
from .panels import BAD, PLAIN, RUNBOOKS, SOURCE, WARN, Panel
from .queries import firing, new

WIDTH = 24
DOCUMENTATION = RUNBOOKS.removesuffix("alerts.rst")


class Row(NamedTuple):
    """Panels of one height below a title; without one, they belong to the row before.

    :param across: how many stand beside one another.
    :param collapsed: True for what is opened when something is wrong.
    """

    title: str
    panels: Sequence[Panel]
    across: int = 2
    height: int = 8
    collapsed: bool = False


def rows() -> list[Row]:
    """Return all rows."""
    return [
        Row("At a glance", overview.numbers(), across=6, height=3),
        Row("", overview.alerts(), across=1, height=6),
        Row("Traffic", traffic.traffic()),
        Row("Failures", traffic.failures()),
        Row("Latency", traffic.latency()),
        Row("Rejections", traffic.rejections()),
        Row("Limits", traffic.limits()),
        Row("Unusual traffic", traffic.anomalies()),
        Row("Stores, instances and workers", operation.instances()),
        Row("Keys and certificates", operation.keys(), collapsed=True),
        Row("Audit log and request log", operation.logs(), collapsed=True),
    ]


class _Annotation(AnnotationQuery):
    """An annotation by Prometheus, whose own options the schema leaves open."""

    title: str

    def to_json(self) -> dict[str, object]:
        """Return the object of JSON."""
        return super().to_json() | {"step": "30s", "titleFormat": self.title, "tagKeys": "severity,instance"}


class _Marks(dashboard.AnnotationQuery):
    """Marks in all graphs while an expression has series.

    :param title: of a mark, with labels.
    :param on: False if a switch shows them.
    """

    def __init__(self, name: str, expression: str, title: str, colour: str, *, on: bool = True) -> None:
        self._internal = _Annotation(name, SOURCE, enable=on, icon_color=colour, expr=expression)
        self._internal.title = title


def build() -> Any:
    """Return the dashboard."""
    built = (
        dashboard.Dashboard("flask-secure-ml")
        .uid("flask-secure-ml")
        .tags(["flask", "machine-learning", "security"])
        .description(
            "Traffic, alerts, latency, rejections, limits, anomalies, stores, keys and logs of a protected app."
        )
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(secure_ml_workers, job)"))
        .with_variable(
            _variable("instance", "Instance", 'label_values(secure_ml_workers{job="$job"}, instance)')
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
        .annotation(_Marks("Critical alerts", firing("critical"), "{{alertname}}", BAD))
        .annotation(_Marks("Warnings", firing("warning"), "{{alertname}}", WARN, on=False))
        .annotation(_Marks("New models", new("secure_ml_model_info", "name, version"), "{{name}} {{version}}", PLAIN))
        .link(_link("Runbooks", RUNBOOKS, "What an alert means, and what ends it"))
        .link(_link("Metrics", f"{DOCUMENTATION}metrics.rst", "What the metrics mean"))
    )
    line, ids = 0, count(1)
    for row in rows():
        line = _add(built, row, line, ids)
    return built.build()


def _add(built: dashboard.Dashboard, row: Row, line: int, ids: Iterator[int]) -> int:
    """Add a row with its panels, and return the line after it."""
    title = dashboard.Row(row.title).id(next(ids)).grid_pos(GridPos(x=0, y=line, w=WIDTH, h=1))
    if row.title:
        line += 1
    width, panels = WIDTH // row.across, []
    for number, panel in enumerate(row.panels):
        down, right = divmod(number, row.across)
        position = GridPos(x=right * width, y=line + down * row.height, w=width, h=row.height)
        panels.append(panel.id(next(ids)).grid_pos(position))
    if row.collapsed:
        for panel in panels:
            title.with_panel(panel)
    if row.title:
        built.with_row(title)
    if row.collapsed:
        return line
    for panel in panels:
        built.with_panel(panel)
    return line + -(-len(panels) // row.across) * row.height


def _link(title: str, url: str, tooltip: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(title).type(DashboardLinkType.LINK).icon("doc").url(url).tooltip(tooltip)
    return link.target_blank(True)


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name, "qryType": 1})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def text() -> str:
    """Return the dashboard as JSON."""
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(build())), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
