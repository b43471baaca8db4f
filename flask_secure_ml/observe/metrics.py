"""Metrics in the format of Prometheus (extra ``metrics``).

Labels have few values: endpoints and never paths, the standard methods, codes of errors, the names of limits. So a
client cannot make a series of its own, and no label holds a key, a principal or an address.

Under several workers, ``PROMETHEUS_MULTIPROC_DIR`` names a directory where each worker keeps its values, and any of
them responds with the sum of all; :mod:`flask_secure_ml.deploy.gunicorn` creates and cleans it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from ..exchange import Exchange
from ..policy.policy import MARK, Policy

if TYPE_CHECKING:
    from ..limits.guard import Report

ENDPOINT = "secure_ml_metrics"
SCOPE = "metrics"
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: from a cached prediction to one that takes half a minute."""

USE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

UNKNOWN = "unknown"
"""The endpoint of URLs that lead nowhere."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Readiness(Protocol):
    """Which parts requests need, and which of them do not work now."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all parts."""

    def problems(self) -> Sequence[str]:
        """Return the names of those that do not work."""


class Metrics:
    """Counts requests when their responses start.

    :param registry: of these metrics; one of their own, so that two apps in one process do not clash.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry: CollectorRegistry = registry or CollectorRegistry()
        options: dict[str, Any] = {"namespace": "secure_ml", "registry": self.registry}
        labels = ["endpoint", "method", "status"]
        self._requests = Counter("requests", "Responses that started.", labels, **options)
        self._seconds = Histogram(
            "request_duration_seconds",
            "Seconds from the first byte of a request to that of its response.",
            ["endpoint"],
            buckets=BUCKETS,
            **options,
        )
        self._rejections = Counter("rejections", "Error responses, by code.", ["endpoint", "code"], **options)
        self._authentications = Counter(
            "authentications", "Requests by kind of credential and result.", ["method", "result"], **options
        )
        self._limited = Counter("limit_rejections", "Requests that a limit rejected.", ["limit"], **options)
        self._use = Histogram(
            "limit_use_ratio", "Used share of a limit, at each charge.", ["limit"], buckets=USE_BUCKETS, **options
        )
        self._rows = Counter("rows", "Rows of input that were charged.", ["endpoint"], **options)
        self._bytes = Counter("received_bytes", "Bytes of request bodies that were read.", ["endpoint"], **options)
        self._streams = Counter("broken_streams", "Streams that ended too early.", ["endpoint"], **options)
        self._dropped = Counter("log_dropped_lines", "Lines of the request log that were dropped.", **options)
        self._store_up = Gauge(
            "limit_store_up", "1 while the store of the limits works.", multiprocess_mode="livemin", **options
        )
        self._store_up.set(1)
        self._store_changes = Counter("limit_store_changes", "Times that it went down or up.", ["to"], **options)
        self._alerts = Counter(
            "alerts", "Alerts for the webhook: sent, failed, or dropped while too many waited.", ["result"], **options
        )
        self._anomalies = Counter("anomalies", "Anomalies of traffic, by signal.", ["signal"], **options)
        self._workers = Gauge(
            "workers", "Worker processes that serve requests.", multiprocess_mode="livesum", **options
        )
        self._starts = Counter("worker_starts", "Worker processes that began to serve requests.", **options)
        self._ready = Gauge(
            "part_ready", "1 while a part that requests need is up.", ["part"], multiprocess_mode="livemin", **options
        )
        # Making a child takes longer than counting with it.
        self._children: dict[tuple[str, str, int], tuple[Any, Any, Any, Any]] = {}
        self._others: dict[tuple[Any, ...], Any] = {}
        self._begun: dict[int, object] = {}
        # From zero, so that the first event is an increase.
        for metric, values in ((self._store_changes, ("up", "down")), (self._alerts, ("sent", "failed", "dropped"))):
            for value in values:
                self._child(metric, value)

    def begin(self) -> None:
        """Count this process as a worker, once."""
        own = object()
        if self._begun.setdefault(os.getpid(), own) is own:
            self._workers.set(1)
            self._starts.inc()

    def record(self, exchange: Exchange) -> None:
        """Count one response."""
        endpoint = exchange.endpoint or UNKNOWN
        method = exchange.method if exchange.method in _METHODS else "other"
        name = (endpoint, method, exchange.status)
        found = self._children.get(name)
        if found is None:
            # Here, so that no other request asks for the id of the process. A worker begins without children.
            self.begin()
            found = self._children[name] = (
                self._requests.labels(endpoint, method, str(exchange.status)),
                self._seconds.labels(endpoint),
                self._bytes.labels(endpoint),
                self._rows.labels(endpoint),
            )
        requests, seconds, received, rows = found
        requests.inc()
        seconds.observe(exchange.finished - exchange.started)
        if exchange.received_bytes:
            received.inc(exchange.received_bytes)
        if exchange.code is not None:
            self._child(self._rejections, endpoint, exchange.code).inc()
        if exchange.credential:
            result = "rejected" if exchange.principal is None else "accepted"
            self._child(self._authentications, exchange.credential, result).inc()
        if exchange.limits is not None:
            self._record_limits(exchange.limits, rows)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Count a stream that broke."""
        if exchange.stream_error is not None:
            self._child(self._streams, exchange.endpoint or UNKNOWN).inc()

    def limit_store_changed(self, _app: object, *, up: bool) -> None:
        """Note that the store of the limits went down or up: a receiver of the signal."""
        self._store_up.set(int(up))
        self._child(self._store_changes, "up" if up else "down").inc()

    def alert(self, result: str) -> None:
        """Count what became of an alert."""
        self._child(self._alerts, result).inc()

    def expect_anomalies(self, signals: Iterable[str]) -> None:
        """Begin the series of signals, from zero, so that the first anomaly is an increase."""
        for signal in signals:
            self._child(self._anomalies, signal)

    def anomaly(self, signal: str) -> None:
        """Count an anomaly of traffic."""
        self._child(self._anomalies, signal).inc()

    def set_model(self, name: str, version: str) -> None:
        """Note which model is served, for joins with the other series."""
        labels = {"multiprocess_mode": "livemax", "namespace": "secure_ml", "registry": self.registry}
        Gauge("model_info", "The model that is served.", ["name", "version"], **labels).labels(name, version).set(1)

    def log_line_dropped(self) -> None:
        """Count a line that the request log could not write."""
        self._dropped.inc()

    def set_ready(self, parts: Iterable[str], problems: Iterable[str]) -> None:
        """Note which parts are ready."""
        down = set(problems)
        for part in parts:
            self._child(self._ready, part).set(int(part not in down))

    def exposition(self) -> bytes:
        """Return the text for a scraper, of all workers where they share a directory."""
        if not os.environ.get(DIRECTORY):
            return bytes(generate_latest(self.registry))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return bytes(generate_latest(registry))

    def _record_limits(self, report: Report, rows: Any) -> None:
        highest, label, price = -1.0, "", 0
        for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
            for rule, count, each in zip(charge.rules.rules, verdict.counts, charge.prices, strict=True):
                share = count.used / rule.capacity
                if count.wait:
                    self._child(self._limited, rule.label).inc()
                if share > highest:
                    highest, label = share, rule.label
                if rule.unit == "rows":
                    price = each
            if verdict.penalty:
                self._child(self._limited, "backoff").inc()
        if label:
            self._child(self._use, label).observe(highest)
        if price and report.outcome.allowed:
            rows.inc(price)

    def _child(self, metric: Any, *labels: str) -> Any:
        name = (metric, *labels)
        found = self._others.get(name)
        if found is None:
            found = self._others[name] = metric.labels(*labels)
        return found


def add_metrics(app: Flask, path: str, metrics: Metrics, readiness: Readiness) -> None:
    """Serve the metrics to callers with the scope ``metrics``.

    :param readiness: which parts work, read for each scrape.
    """

    def view() -> Any:
        metrics.set_ready(readiness.names, readiness.problems())
        response = app.response_class(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
        response.headers["Cache-Control"] = "no-store"
        return response

    setattr(view, MARK, Policy.build(scopes=[SCOPE], scores=False))
    app.add_url_rule(path, ENDPOINT, view, methods=["GET"])
