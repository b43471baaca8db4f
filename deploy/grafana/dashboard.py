"""Write the dashboard of Grafana: ``python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json``.

It needs ``pip install "flask-secure-ml[test]"``, in the release of grafana-foundation-sdk that pyproject.toml names:
its version is that of the schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 24, 8
AT = 'job="$job", instance=~"$instance"'
SHARES = (0.5, 0.95, 0.99)


class Graph(NamedTuple):
    """One panel.

    :param queries: pairs of an expression, in which ``AT`` stands for the labels of the variables, and a legend.
    :param unit: as Grafana names it.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    stacked: bool = False


def rate(name: str, by: str, more: str = "") -> str:
    """Return the rate of a counter by a label."""
    labels = f"{AT}, {more}" if more else AT
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """Return a quantile of a histogram, by a label or of everything."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket{{{AT}}}[$__rate_interval])))"


ROWS: tuple[tuple[str, tuple[Graph, ...]], ...] = (
    (
        "Traffic",
        (
            Graph(
                "Requests by endpoint",
                "unknown: URLs that lead nowhere.",
                "reqps",
                [(rate("secure_ml_requests_total", "endpoint"), "{{endpoint}}")],
                stacked=True,
            ),
            Graph(
                "Requests by status",
                "Responses that started.",
                "reqps",
                [(rate("secure_ml_requests_total", "status"), "{{status}}")],
                stacked=True,
            ),
            Graph(
                "Rows of input",
                "What was charged, on routes with cost=.",
                "rowsps",
                [(rate("secure_ml_rows_total", "endpoint"), "{{endpoint}}")],
            ),
            Graph(
                "Received bodies",
                "Bytes of request bodies that were read, and streams that broke.",
                "Bps",
                [
                    (rate("secure_ml_received_bytes_total", "endpoint"), "{{endpoint}}"),
                    (rate("secure_ml_broken_streams_total", "endpoint"), "broken streams of {{endpoint}}"),
                ],
            ),
        ),
    ),
    (
        "Latency",
        (
            Graph(
                "Percentiles",
                "From the first byte of a request to that of its response, over all endpoints.",
                "s",
                [(quantile(share, "secure_ml_request_duration_seconds"), f"p{share * 100:.0f}") for share in SHARES],
            ),
            Graph(
                "p95 by endpoint",
                "One request in twenty takes longer.",
                "s",
                [(quantile(0.95, "secure_ml_request_duration_seconds", "endpoint"), "{{endpoint}}")],
            ),
        ),
    ),
    (
        "Rejections",
        (
            Graph(
                "Error responses by code",
                "The codes are in the reference of errors.",
                "reqps",
                [(rate("secure_ml_rejections_total", "code"), "{{code}}")],
                stacked=True,
            ),
            Graph(
                "Error responses by endpoint",
                "The ten endpoints with most of them.",
                "reqps",
                [(f"topk(10, {rate('secure_ml_rejections_total', 'endpoint')})", "{{endpoint}}")],
                stacked=True,
            ),
        ),
    ),
    (
        "Authentication",
        (
            Graph(
                "Credentials that were accepted",
                "By kind.",
                "reqps",
                [(rate("secure_ml_authentications_total", "method", 'result="accepted"'), "{{method}}")],
                stacked=True,
            ),
            Graph(
                "Credentials that were rejected",
                "Unknown, wrong, expired or revoked ones. Requests without a credential are not counted here.",
                "reqps",
                [(rate("secure_ml_authentications_total", "method", 'result="rejected"'), "{{method}}")],
                stacked=True,
            ),
        ),
    ),
    (
        "Limits",
        (
            Graph(
                "Use of the fullest limit",
                "The used share of the limit that is nearest to its end, for one charge in twenty.",
                "percentunit",
                [(quantile(0.95, "secure_ml_limit_use_ratio", "limit"), "{{limit}}")],
            ),
            Graph(
                "Rejections by limit",
                "backoff: the penalty of callers that went on beyond a limit.",
                "reqps",
                [(rate("secure_ml_limit_rejections_total", "limit"), "{{limit}}")],
                stacked=True,
            ),
        ),
    ),
    (
        "Stores",
        (
            Graph(
                "Parts that are ready",
                "1 while a part that requests need works.",
                "short",
                [
                    (f"min by (part, instance) (secure_ml_part_ready{{{AT}}})", "{{part}} of {{instance}}"),
                    (f"min by (instance) (secure_ml_limit_store_up{{{AT}}})", "limits, last use, of {{instance}}"),
                ],
            ),
            Graph(
                "Outages of the store of the limits",
                "Each worker notices them for itself.",
                "short",
                [
                    (
                        f"sum by (to, instance) (increase(secure_ml_limit_store_changes_total{{{AT}}}[5m]))",
                        "{{to}} on {{instance}}",
                    )
                ],
            ),
        ),
    ),
    (
        "Workers",
        (
            Graph(
                "Workers",
                "Processes that serve requests, and how many started within five minutes.",
                "short",
                [
                    (f"sum by (instance) (secure_ml_workers{{{AT}}})", "workers of {{instance}}"),
                    (
                        f"sum by (instance) (increase(secure_ml_worker_starts_total{{{AT}}}[5m]))",
                        "started on {{instance}}",
                    ),
                ],
            ),
            Graph(
                "Scrapes",
                "Whether the app responds to Prometheus: 1 if it does.",
                "short",
                [(f"up{{{AT}}}", "{{instance}}")],
            ),
            Graph(
                "Dropped lines of the request log",
                "Nobody reads the stream, the disk is full, or the sink fails.",
                "short",
                [(f"sum by (instance) (increase(secure_ml_log_dropped_lines_total{{{AT}}}[5m]))", "{{instance}}")],
            ),
            Graph(
                "Alerts for the webhook",
                "What became of them within five minutes.",
                "short",
                [(f"sum by (result) (increase(secure_ml_alerts_total{{{AT}}}[5m]))", "{{result}}")],
            ),
            Graph(
                "Unusual traffic",
                "Anomalies within five minutes, by signal (SECURE_ML_ANOMALIES).",
                "short",
                [(f"sum by (signal) (increase(secure_ml_anomalies_total{{{AT}}}[5m]))", "{{signal}}")],
            ),
        ),
    ),
)


def panel(graph: Graph, number: int, position: GridPos) -> timeseries.Panel:
    """Return a panel at a position.

    :param number: its id.
    """
    built = (
        timeseries.Panel()
        .id(number)
        .title(graph.title)
        .description(graph.description)
        .datasource(SOURCE)
        .unit(graph.unit)
        .min(0)
        .fill_opacity(20 if graph.stacked else 0)
        .grid_pos(position)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if graph.stacked:
        built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for letter, (expression, legend) in zip("ABC", graph.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).datasource(SOURCE).range()
        built = built.with_target(query.ref_id(letter))
    return built


def build() -> Any:
    """Return the dashboard."""
    built = (
        dashboard.Dashboard("flask-secure-ml")
        .uid("flask-secure-ml")
        .tags(["flask", "machine-learning", "security"])
        .description("Traffic, latency, rejections, authentication, limits, stores and workers of a protected app.")
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
    )
    line, ids = 0, count(1)
    for title, graphs in ROWS:
        built = built.with_row(dashboard.Row(title).id(next(ids)).grid_pos(GridPos(x=0, y=line, w=WIDTH, h=1)))
        line += 1
        across = 3 if len(graphs) == 3 else 2  # noqa: PLR2004
        width = WIDTH // across
        for number, graph in enumerate(graphs):
            down, right = divmod(number, across)
            position = GridPos(x=right * width, y=line + down * HEIGHT, w=width, h=HEIGHT)
            built = built.with_panel(panel(graph, next(ids), position))
        line += -(-len(graphs) // across) * HEIGHT
    return built.build()


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name, "qryType": 1})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def text() -> str:
    """Return the file."""
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(build())), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
