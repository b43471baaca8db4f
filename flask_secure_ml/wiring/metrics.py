"""Builds the metrics of one app and their sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask

from ..config import Settings
from ..errors import ConfigError
from ..principal import Clock
from ..signals import limit_store_changed
from ..state import MetricsState

if TYPE_CHECKING:
    from ..authentication.api_keys.key import KeyStore
    from ..observe.anomalies import Anomalies
    from ..observe.metrics import Metrics
    from ..transport.probes import Readiness

SERVER = "server"
CLIENT_AUTHORITIES = "client_authorities"


def build_metrics(app: Flask, settings: Settings) -> Metrics | None:
    """Return the counters, or None if metrics are off."""
    if settings.metrics is None and settings.metrics_listen is None:
        return None
    from ..observe.metrics import Metrics

    try:
        metrics = Metrics()
    except OSError as error:
        # It only opens files if there is a directory that workers share.
        raise ConfigError([f"PROMETHEUS_MULTIPROC_DIR: {error.filename}: {error.strerror}"]) from None
    if settings.model is not None:
        metrics.set_model(settings.model.name, settings.model.version or "")
    # Signals hold weak references to receivers; the app keeps the metrics alive.
    limit_store_changed.connect(metrics.limit_store_changed, app)
    return metrics


def key_set_counter(settings: Settings, clock: Clock, metrics: Metrics | None) -> Callable[[str, bool], object]:
    """Return the callback for fetches of key sets."""
    if metrics is None:
        return lambda _issuer, _usable: None
    metrics.expect_key_sets(each.issuer for each in settings.token_issuers if each.jwks_uri or each.discover)
    return lambda issuer, usable: metrics.key_set_refreshed(issuer, clock.now(), fetched=usable)


def metrics_state(
    settings: Settings,
    clock: Clock,
    metrics: Metrics | None,
    readiness: Readiness,
    keys: KeyStore | None,
    anomalies: Anomalies | None,
) -> MetricsState | None:
    """Return the metrics with the facts of each scrape, and start the listener in each worker."""
    if metrics is None:
        return None
    from ..observe.metrics import (
        Certificates,
        Exposition,
        Facts,
        MetricsListener,
        key_facts,
        readiness_facts,
        score_facts,
    )

    files = {SERVER: settings.server_certificate, CLIENT_AUTHORITIES: settings.mtls_ca_file}
    certificates = Certificates({name: path for name, path in files.items() if path is not None})
    facts = Facts()
    facts.add(readiness_facts(readiness))
    facts.add(certificates)
    if keys is not None:
        facts.add(key_facts(keys.cached, clock.now))
    if anomalies is not None:
        facts.add(score_facts(anomalies.scores))
    exposition = Exposition(metrics, facts)
    if settings.metrics_listen is not None:
        listener = MetricsListener(settings.metrics_listen, exposition.text, settings.metrics_token)
        metrics.at_begin(listener.start)
    return MetricsState(metrics, exposition, certificates)
