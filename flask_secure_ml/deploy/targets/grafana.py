"""Grafana: the dashboard of this package and its provisioning files."""

from __future__ import annotations

from collections.abc import Mapping

from ..facts import Facts
from ..target import Target


def make(facts: Facts) -> Mapping[str, str]:
    """Return the dashboard and the files that provision it with a data source."""
    return {
        "dashboards/secure-ml.json": TARGET.asset("grafana/dashboard.json"),
        "provisioning/dashboards/secure-ml.yaml": TARGET.render("dashboards.yaml", facts),
        "provisioning/datasources/prometheus.yaml": TARGET.render("datasources.yaml", facts),
    }


TARGET = Target(
    name="grafana",
    summary="the dashboard of this package for Grafana 11 and its provisioning files",
    overlay="other files in the provisioning directories",
    make=make,
    advice=(
        "grafana: copy  {folder}/provisioning  to /etc/grafana, and  {folder}/dashboards  to /var/lib/grafana",
        "grafana: set  GF_PROMETHEUS_URL=http://127.0.0.1:9090  in /etc/default/grafana-server",
    ),
)
