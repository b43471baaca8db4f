"""Prometheus and Alertmanager: scrape configuration, alerts and their routing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..facts import Facts
from ..target import Target

KEY_FILE = "/etc/prometheus/secure-ml.key"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the Prometheus configuration, the alerts, and an example of their routing."""
    return {
        "prometheus.yml": TARGET.render(
            "prometheus.yml", facts, listen=facts.settings.metrics_listen, targets=_targets(facts), key_file=KEY_FILE
        ),
        "alerts.yml": TARGET.asset("prometheus/alerts.yml"),
        "alertmanager.yml": TARGET.asset("prometheus/alertmanager.yml"),
    }


def _targets(facts: Facts) -> list[str]:
    """Return the scrape targets of the servers."""
    listen = facts.settings.metrics_listen
    servers = [each for each in facts.options.upstreams if not each.startswith("unix:")]
    if listen is None:
        return servers
    if listen.is_local:
        return [str(listen)]
    return list(dict.fromkeys(f"{each.rpartition(':')[0]}:{listen.port}" for each in servers))


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings."""
    settings, options = facts.settings, facts.options
    if settings.metrics is None and settings.metrics_listen is None:
        yield "SECURE_ML_METRICS and SECURE_ML_METRICS_LISTEN are not set, so the app has no metrics"
    if settings.metrics_listen is None and facts.behind_proxy and options.upstream_ca is None:
        yield "the servers behind the proxy do not use TLS, so they reject scrapes: set SECURE_ML_METRICS_LISTEN"
    if settings.metrics_listen is not None and settings.metrics_listen.is_local and len(options.upstreams) > 1:
        yield "SECURE_ML_METRICS_LISTEN is local; run Prometheus on each machine, or make the port reachable"


TARGET = Target(
    name="prometheus",
    summary="the Prometheus configuration, the alerts of this package, and an example of their routing",
    overlay="overlay/*.yml, for rules",
    make=make,
    advice=(
        "prometheus: check with  promtool check config {folder}/prometheus.yml",
        "prometheus: check with  amtool check-config {folder}/alertmanager.yml",
    ),
    warn=warn,
)
