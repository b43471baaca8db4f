"""Counters of requests and of events that other parts of an app report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ...exchange import Exchange
from ..request_log.entry import METHODS

if TYPE_CHECKING:
    from ...limits.guard import Report

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Latency buckets in seconds, from a cached prediction to one of half a minute."""

USE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

UNKNOWN = "unknown"
"""The endpoint label of unknown URLs."""


class Metrics:
    """Counts requests when their responses start, and other events.

    :param registry: a separate registry by default, so that two apps in one process do not conflict.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry: CollectorRegistry = registry or CollectorRegistry()
        options: dict[str, Any] = {"namespace": "secure_ml", "registry": self.registry}
        labels = ["endpoint", "method", "status"]
        self._requests = Counter("requests", "Responses that started.", labels, **options)
        self._seconds = Histogram(
            "request_duration_seconds",
            "Seconds from the first byte of a request to the first byte of its response.",
            ["endpoint"],
            buckets=BUCKETS,
            **options,
        )
        self._in_flight = Gauge(
            "requests_in_flight",
            "Requests whose response has not started, and streams that have not ended.",
            multiprocess_mode="livesum",
            **options,
        )
        self._rejections = Counter("rejections", "Error responses, by code.", ["endpoint", "code"], **options)
        self._authentications = Counter(
            "authentications", "Requests by kind of credential and result.", ["method", "result"], **options
        )
        self._limited = Counter("limit_rejections", "Requests that a limit rejected.", ["limit"], **options)
        self._use = Histogram(
            "limit_use_ratio", "Used fraction of a limit, at each charge.", ["limit"], buckets=USE_BUCKETS, **options
        )
        self._rows = Counter("rows", "Input rows that were charged.", ["endpoint"], **options)
        self._bytes = Counter("received_bytes", "Request body bytes that were read.", ["endpoint"], **options)
        self._streams = Counter("broken_streams", "Streams that ended prematurely.", ["endpoint"], **options)
        self._dropped = Counter("log_dropped_lines", "Request log lines that were dropped.", **options)
        self._store_up = Gauge(
            "limit_store_up", "1 while the limit store works.", multiprocess_mode="livemin", **options
        )
        # Also set in the parent, which never begins: the minimum of all processes counts.
        self._store_up.set(1)
        self._store_changes = Counter(
            "limit_store_changes", "Outages of the limit store and recoveries.", ["to"], **options
        )
        self._alerts = Counter(
            "alerts",
            "Alerts for the webhook: sent, failed, or dropped because the queue was full.",
            ["result"],
            **options,
        )
        self._anomalies = Counter("anomalies", "Traffic anomalies, by signal.", ["signal"], **options)
        self._workers = Gauge(
            "workers", "Worker processes that serve requests.", multiprocess_mode="livesum", **options
        )
        self._starts = Counter("worker_starts", "Worker processes that started to serve requests.", **options)
        self._keys_fetched = Gauge(
            "jwks_fetched_timestamp_seconds",
            "Time of the last fetch of an issuer's key set by a worker.",
            ["issuer"],
            multiprocess_mode="livemax",
            **options,
        )
        self._keys_ok = Gauge(
            "jwks_refresh_ok",
            "1 if the last fetch of a key set succeeded in all workers.",
            ["issuer"],
            multiprocess_mode="livemin",
            **options,
        )
        self._keys_refreshes = Counter("jwks_refreshes", "Fetches of key sets.", ["issuer", "result"], **options)
        self._audit_failed = Counter("audit_failed_records", "Audit records that could not be written.", **options)
        self._audit_uncovered = Gauge(
            "audit_uncovered_records",
            "Audit records that no checkpoint covered at the last attempt.",
            multiprocess_mode="livesum",
            **options,
        )
        self._audit_reached = Gauge(
            "audit_checkpoint_timestamp_seconds",
            "Time of the last audit checkpoint in the index or a sink, for the worker with the oldest one.",
            ["sink"],
            multiprocess_mode="livemin",
            **options,
        )
        self._audit_checkpoints = Counter(
            "audit_checkpoints",
            "Audit checkpoints by sink and result; index is the log itself.",
            ["sink", "result"],
            **options,
        )
        self._alone = not shared_directory()
        # Only read at a scrape, because adding to a set takes less time than a gauge.
        self._began: set[int] = set()
        if self._alone:
            self._in_flight.set_function(self._began.__len__)
        self._at_begin: list[Callable[[], object]] = []
        # Creating a child takes longer than counting with it.
        self._children: dict[tuple[str, str, int], tuple[Any, Any, Any, Any]] = {}
        self._others: dict[tuple[Any, ...], Any] = {}
        self._begun: dict[int, object] = {}
        # Start at zero, so that the first event is an increase.
        for metric, values in ((self._store_changes, ("up", "down")), (self._alerts, ("sent", "failed", "dropped"))):
            for value in values:
                self._child(metric, value)

    def begin(self) -> None:
        """Count this process as a worker, once.

        :raises ConfigError: a callback of :meth:`at_begin` cannot start.
        """
        own = object()
        if self._begun.setdefault(os.getpid(), own) is own:
            self._workers.set(1)
            self._starts.inc()
            # Set here, because after a fork the shared directory has a 0 for every gauge without labels.
            self._store_up.set(1)
            for each in self._at_begin:
                each()

    def at_begin(self, call: Callable[[], object]) -> None:
        """Register a callback for the start of a worker process."""
        self._at_begin.append(call)

    def request_began(self, exchange: Exchange) -> None:
        """Count a request as in flight."""
        if self._alone:
            self._began.add(id(exchange))
        else:
            self._in_flight.inc()

    def request_ended(self, exchange: Exchange) -> None:
        """Count a request whose response started, or whose stream ended; called once for each that began."""
        if self._alone:
            self._began.discard(id(exchange))
        else:
            self._in_flight.dec()

    def record(self, exchange: Exchange) -> None:
        """Count one response."""
        endpoint = exchange.endpoint or UNKNOWN
        method = exchange.method if exchange.method in METHODS else "other"
        name = (endpoint, method, exchange.status)
        found = self._children.get(name)
        if found is None:
            # Checked here, so that other requests need not read the process id. A worker starts without children.
            self.begin()
            found = self._children[name] = (
                self._requests.labels(endpoint, method, str(exchange.status)),
                self._seconds.labels(endpoint),
                self._bytes.labels(endpoint),
                self._rows.labels(endpoint),
            )
        requests, seconds, received, rows = found
        requests.inc()
        # A trace that was not sampled cannot be looked up.
        exemplar = {"trace_id": exchange.trace_id} if exchange.trace_sampled and self._alone else None
        seconds.observe(exchange.finished - exchange.started, exemplar)
        if exchange.received_bytes:
            received.inc(exchange.received_bytes)
        if exchange.code is not None:
            self._child(self._rejections, endpoint, exchange.code).inc(1, exemplar)
        if exchange.credential:
            result = "rejected" if exchange.principal is None else "accepted"
            self._child(self._authentications, exchange.credential, result).inc()
        if exchange.limits is not None:
            self._record_limits(exchange.limits)
        if exchange.rows:
            rows.inc(exchange.rows)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Count a broken stream."""
        if exchange.stream_error is not None:
            self._child(self._streams, exchange.endpoint or UNKNOWN).inc()

    def limit_store_changed(self, _app: object, *, up: bool) -> None:
        """Record an outage of the limit store or its end; a signal receiver."""
        self._store_up.set(int(up))
        self._child(self._store_changes, "up" if up else "down").inc()

    def alert(self, result: str) -> None:
        """Count an alert by its result."""
        self._child(self._alerts, result).inc()

    def expect_anomalies(self, signals: Iterable[str]) -> None:
        """Start the series of signals at zero, so that the first anomaly is an increase."""
        for signal in signals:
            self._child(self._anomalies, signal)

    def anomaly(self, signal: str) -> None:
        """Count a traffic anomaly."""
        self._child(self._anomalies, signal).inc()

    def set_model(self, name: str, version: str) -> None:
        """Set the served model, for joins with other series."""
        labels = {"multiprocess_mode": "livemax", "namespace": "secure_ml", "registry": self.registry}
        Gauge("model_info", "The model that is served.", ["name", "version"], **labels).labels(name, version).set(1)

    def key_set_refreshed(self, issuer: str, when: float, *, fetched: bool) -> None:
        """Record the result of a key set fetch."""
        self._child(self._keys_refreshes, issuer, "fetched" if fetched else "failed").inc()
        self._child(self._keys_ok, issuer).set(int(fetched))
        if fetched:
            self._child(self._keys_fetched, issuer).set(when)

    def expect_key_sets(self, issuers: Iterable[str]) -> None:
        """Start the series of issuers at zero."""
        for issuer in issuers:
            for result in ("fetched", "failed"):
                self._child(self._keys_refreshes, issuer, result)

    def audit_record_failed(self) -> None:
        """Count an audit record that could not be written."""
        self._audit_failed.inc()

    def audit_uncovered(self, records: int) -> None:
        """Set the number of records of this process that no checkpoint covers."""
        self._audit_uncovered.set(records)

    def audit_checkpoint(self, sink: str, result: str, when: float) -> None:
        """Count a checkpoint: ``sent``, ``failed`` (it will be retried) or ``dropped``.

        :param sink: ``index`` for the log itself.
        :param when: seconds since the epoch.
        """
        self._child(self._audit_checkpoints, sink, result).inc()
        if result == "sent":
            self._child(self._audit_reached, sink).set(when)

    def expect_checkpoints(self, sinks: Iterable[str]) -> None:
        """Start the series of sinks at zero."""
        for sink in sinks:
            for result in ("sent", "failed", "dropped"):
                self._child(self._audit_checkpoints, sink, result)

    def log_line_dropped(self) -> None:
        """Count a line that the request log could not write."""
        self._dropped.inc()

    def _record_limits(self, report: Report) -> None:
        highest, label = -1.0, ""
        for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
            for rule, count in zip(charge.rules.rules, verdict.counts, strict=True):
                share = count.used / rule.capacity
                if count.wait:
                    self._child(self._limited, rule.label).inc()
                if share > highest:
                    highest, label = share, rule.label
            if verdict.penalty:
                self._child(self._limited, "backoff").inc()
        if label:
            self._child(self._use, label).observe(highest)

    def _child(self, metric: Any, *labels: str) -> Any:
        name = (metric, *labels)
        found = self._others.get(name)
        if found is None:
            found = self._others[name] = metric.labels(*labels)
        return found


def shared_directory() -> str:
    """Return the directory in which workers store their values; empty for a single process."""
    return os.environ.get(DIRECTORY, "")
