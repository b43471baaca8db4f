"""The parts that score traffic, and where anomalies are reported."""

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
    from ..observe.anomalies import Anomaly
    from ..observe.audit.log import AuditLog
    from ..observe.metrics import Metrics

log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scoring:
    """The parts that score traffic and reject who was unusual; none without the setting."""

    guards: tuple[Guard, ...] = ()
    recorders: tuple[Recorder, ...] = ()


def build_scoring(
    settings: Settings,
    clock: Clock,
    metrics: Metrics | None,
    report: Callable[[Anomaly], None],
    exempt: frozenset[str],
) -> Scoring:
    """Return the parts for the settings.

    :param report: is called for each anomaly of a signal that is more than observed.
    :param exempt: the endpoints that nobody is rejected at.
    :raises ConfigError: there is no signal of a name.
    """
    if settings.anomalies is None:
        return Scoring()
    from ..observe.anomalies import Anomalies, AnomalyGuard, Penalties

    penalties = Penalties(clock)
    count = (lambda _signal: None) if metrics is None else metrics.anomaly
    anomalies = Anomalies(settings.anomalies, count, report, penalties)
    if metrics is not None:
        metrics.expect_anomalies(anomalies.signals)
    guards = (AnomalyGuard(penalties, exempt),) if settings.anomalies_reject else ()
    return Scoring(guards, (anomalies,))


def reporter(app: Flask, audit: AuditLog | None, alerts: Iterable[Alerts]) -> Callable[[Anomaly], None]:
    """Return what reports an anomaly: to the log, the audit log, the webhook and the receivers of the signal."""
    sender = ref(app)
    webhooks = tuple(alerts)

    def report(anomaly: Anomaly) -> None:
        subject = clean(anomaly.subject)
        log.warning("anomaly %s: %r: %s", anomaly.signal, subject, anomaly.explanation)
        if audit is not None:
            # An outage of the audit log is reported by the log itself.
            audit.event("anomaly", {"signal": anomaly.signal, "subject": subject, "explanation": anomaly.explanation})
        for each in webhooks:
            each.anomaly(anomaly.signal, subject, anomaly.explanation)
        anomaly_detected.send(sender(), anomaly=anomaly)

    return report
