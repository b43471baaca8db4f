"""Where anomalies are reported that cause an event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import ref

from flask import Flask

from ..observe.request_log.entry import clean
from ..signals import anomaly_detected

if TYPE_CHECKING:
    from ..observe.alerts import Alerts
    from ..observe.anomalies import Anomaly
    from ..observe.audit.log import AuditLog

log: logging.Logger = logging.getLogger(__name__)


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
