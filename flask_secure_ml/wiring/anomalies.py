"""Builds the parts that score traffic and report anomalies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

from flask import Flask

from ..config import Settings
from ..observe.request_log.entry import clean
from ..pipeline import Guard, Recorder
from ..principal import Clock
from ..signals import anomaly_detected

if TYPE_CHECKING:
    from ..observe.alerts import Alerts
    from ..observe.anomalies import Anomalies, Anomaly
    from ..observe.audit.log import AuditLog
    from ..observe.metrics import Metrics
    from ..stores import SharedStore

log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scoring:
    """The parts that score traffic and reject unusual callers; empty without the setting."""

    guards: tuple[Guard, ...] = ()
    recorders: tuple[Recorder, ...] = ()
    anomalies: Anomalies | None = None


def build_scoring(
    settings: Settings,
    clock: Clock,
    store: SharedStore,
    metrics: Metrics | None,
    report: Callable[[Anomaly], None],
    exempt: frozenset[str],
) -> Scoring:
    """Return the parts for the settings.

    :param report: called for each episode of signals with an action beyond ``observe``.
    :param exempt: the endpoints that penalties do not apply to.
    :raises ConfigError: a signal is unknown.
    """
    if settings.anomalies is None:
        return Scoring()
    from ..observe.anomalies import Anomalies, AnomalyGuard, Penalties

    shared = store if store.shared else None
    penalties = Penalties(clock, shared)
    count = (lambda _signal: None) if metrics is None else metrics.anomaly
    anomalies = Anomalies(settings.anomalies, count, report, penalties, clock, shared)
    if metrics is not None:
        metrics.expect_anomalies(anomalies.signals)
    guards = (AnomalyGuard(penalties, exempt),) if settings.anomalies_reject else ()
    return Scoring(guards, (anomalies,), anomalies)


def reporter(app: Flask, audit: AuditLog | None, alerts: Iterable[Alerts]) -> Callable[[Anomaly], None]:
    """Return a function that reports an anomaly to the log, the audit log, the webhook and the signal."""
    sender = ref(app)
    webhooks = tuple(alerts)

    def report(anomaly: Anomaly) -> None:
        subject = clean(anomaly.subject)
        result = f"; rejected ({anomaly.penalty})" if anomaly.penalty else ""
        log.warning("anomaly %s: %r: %s%s", anomaly.signal, subject, anomaly.explanation, result)
        if audit is not None:
            # The audit log reports its own outages.
            members = {"signal": anomaly.signal, "subject": subject, "kind": anomaly.kind}
            if anomaly.penalty:
                members["penalty"] = anomaly.penalty
            audit.event("anomaly", {**members, "explanation": anomaly.explanation})
        for each in webhooks:
            each.anomaly(anomaly.signal, subject, anomaly.explanation, anomaly.penalty)
        anomaly_detected.send(sender(), anomaly=anomaly)

    return report
