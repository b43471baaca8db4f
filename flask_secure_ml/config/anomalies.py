"""The setting for anomalies of traffic."""

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
    """An object with an action for each signal. Which signals there are is checked where they are built."""

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
    """What happens when the traffic of a caller or a network is unusual."""

    anomalies: Mapping[str, str] | None = setting(
        Actions(),
        None,
        """What happens, by signal, when traffic is unusual, such as ``{"rate": "event", "silence": "off"}``:
        ``observe`` counts it in the metrics, ``event`` also sends the signal ``anomaly_detected``, logs, and writes to
        the audit log and to the webhook of alerts where they are on, ``throttle`` also rejects the caller for five
        minutes with 429 ``abnormal_usage``, and ``block`` does for an hour. Signals that are not named are observed, so
        ``{}`` observes all. Without it nothing is scored. See :doc:`/howto/anomalies`.""",
    )

    @property
    def anomalies_reject(self) -> bool:
        """Whether a signal causes requests to be rejected."""
        return any(action in REJECTING for action in (self.anomalies or {}).values())
