"""The content of one alert."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Alert:
    """One alert.

    :param event: ``network_blocked``, ``caller_penalized``, ``caller_blocked``, ``limit_store_down``,
        ``limit_store_up``, ``audit_degraded``, ``audit_restored`` or ``anomaly_detected``.
    :param time: in seconds since the epoch.
    :param subject: the network or the caller.
    :param seconds: the duration of the block or penalty.
    :param strikes: the number of recent penalties of the caller.
    :param signal: the signal of an anomaly.
    :param explanation: what is unusual, or the state of the audit log.
    :param penalty: the penalty of an anomaly's subject, or empty.
    """

    event: str
    time: float
    subject: str = ""
    seconds: int = 0
    strikes: int = 0
    signal: str = ""
    explanation: str = ""
    penalty: str = ""

    @property
    def summary(self) -> str:
        """One sentence that summarizes the alert."""
        return {
            "network_blocked": f"{self.subject} is blocked for {self.seconds} s: too many invalid credentials.",
            "caller_penalized": f"{self.subject} repeatedly exceeded its limits and is rejected for {self.seconds} s.",
            "caller_blocked": f"{self.subject} repeatedly exceeded its limits and is blocked for {self.seconds} s.",
            "limit_store_down": "The limit store is down.",
            "limit_store_up": "The limit store is up again.",
            "audit_degraded": f"{_capitalized(self.explanation)}.",
            "audit_restored": f"{_capitalized(self.explanation)}.",
            "anomaly_detected": f"{self.subject}: {self.explanation}{'; rejected' if self.penalty else ''}.",
        }[self.event]

    def members(self) -> dict[str, Any]:
        """Return the members of the JSON object that describe the alert."""
        found: dict[str, Any] = {"event": self.event, "summary": self.summary}
        found["time"] = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        if self.event == "network_blocked":
            found |= {"network": self.subject, "seconds": self.seconds}
        elif self.event == "anomaly_detected":
            found |= {"subject": self.subject, "signal": self.signal}
            if self.penalty:
                found["penalty"] = self.penalty
        elif self.subject:
            found |= {"caller": self.subject, "seconds": self.seconds, "strikes": self.strikes}
        return found


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
