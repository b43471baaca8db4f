"""The protocol for counters of the audit log."""

from __future__ import annotations

from typing import Protocol

INDEX = "index"
"""The name of the log itself among the sinks of checkpoints."""

SENT, FAILED, DROPPED = "sent", "failed", "dropped"


class Counts(Protocol):
    """Counts records and checkpoints; implemented by the metrics."""

    def audit_record_failed(self) -> None:
        """Count a record that could not be written."""

    def audit_uncovered(self, records: int) -> None:
        """Set the number of records of this process that no checkpoint covers."""

    def audit_checkpoint(self, sink: str, result: str, when: float) -> None:
        """Count a checkpoint by sink and result; ``when`` is in seconds since the epoch."""


class Uncounted:
    """Counts nothing."""

    def audit_record_failed(self) -> None:
        """Do nothing."""

    def audit_uncovered(self, records: int) -> None:
        """Do nothing."""

    def audit_checkpoint(self, sink: str, result: str, when: float) -> None:
        """Do nothing."""
