"""The setting of anomaly detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError

from ..policy.fields import StrictField, described
from .fields import setting

REJECTING = frozenset({"throttle", "block"})
ACTIONS = ("off", "observe", "event", *sorted(REJECTING, reverse=True))


class Actions(StrictField):
    """An object with an action for each signal; the names of signals are validated where signals are built."""

    def __init__(self) -> None:
        super().__init__('an object such as {"rate": "event"}')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, str]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise self.wrong(value)
        wrong = {name: action for name, action in value.items() if action not in ACTIONS}
        if wrong:
            choices = ", ".join(map(repr, ACTIONS))
            raise ValidationError(
                {name: f"must be one of {choices}, not {described(action)}" for name, action in wrong.items()}
            )
        return dict(value)


@dataclass(frozen=True)
class AnomalySettings:
    """The reactions to unusual traffic of a caller or a network."""

    anomalies: Mapping[str, str] | None = setting(
        Actions(),
        None,
        """The action of each signal when traffic is unusual, such as ``{"rate": "event", "silence": "off"}``:
        ``observe`` counts it in the metrics, ``event`` also sends the signal ``anomaly_detected``, logs, and writes to
        the audit log and to the alert webhook if they are configured, ``throttle`` also rejects the caller with 429
        ``abnormal_usage`` until five minutes after the last unusual request, and ``block`` until an hour after it. The
        default action is ``observe``, so ``{}`` observes all signals. Without this setting, traffic is not scored. See
        :doc:`/howto/anomalies`.""",
    )

    @property
    def anomalies_reject(self) -> bool:
        """Return True if the action of a signal rejects requests."""
        return any(action in REJECTING for action in (self.anomalies or {}).values())
