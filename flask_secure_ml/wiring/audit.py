"""Builds the audit log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import ref

from flask import Flask

from ..config import Settings
from ..config.audit import OFF
from ..describing import is_described_only
from ..refresh import Changed
from ..signals import audit_log_changed
from ..transport.probes import Part

if TYPE_CHECKING:
    from ..observe.audit.log import AuditLog
    from ..observe.metrics import Metrics
    from ..principal import Clock

log: logging.Logger = logging.getLogger(__name__)


def build_audit(
    app: Flask, settings: Settings, clock: Clock, metrics: Metrics | None
) -> tuple[AuditLog | None, Callable[[bytes], str] | None]:
    """Return the audit log and its input digest function."""
    if settings.audit_log == OFF or is_described_only():
        return None, None
    from ..observe.audit.log import open_audit_log

    audit, keys = open_audit_log(settings, clock, app.config, metrics, _changed(app))
    if metrics is not None:
        metrics.expect_checkpoints(audit.sinks)
    return audit, keys.digest_of if settings.audit_input_digest else None


def audit_part(audit: AuditLog | None) -> dict[str, Part]:
    """Return the audit log as a part that readiness depends on, if its records are required."""
    return {"audit log": audit.ready} if audit is not None and audit.required else {}


def _changed(app: Flask) -> Changed:
    """Return a function that sends the signal ``audit_log_changed``."""
    # A thread of the log keeps the function, and must not keep the app.
    sender = ref(app)

    def changed(up: bool, message: str) -> None:
        found = sender()
        if found is not None:
            try:
                audit_log_changed.send(found, up=up, message=message)
            except Exception:
                log.exception("a receiver of audit_log_changed failed")

    return changed
