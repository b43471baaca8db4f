"""Anomalies of traffic: what is unusual about a principal, or about a network of anonymous and rejected requests.

Each process scores what it serves itself, in bounded memory, and nothing of it outlives the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...errors import ConfigError
from ...exchange import Exchange
from ...policy.schema import closest
from ...refresh import PerProcess, process_lock
from .detector import Anomaly, Detector
from .guard import SECONDS, AnomalyGuard, Penalties
from .observation import Observation, observation_in, observation_of
from .signals import SIGNALS

__all__ = [
    "SIGNALS",
    "Anomalies",
    "Anomaly",
    "AnomalyGuard",
    "Detector",
    "Observation",
    "Penalties",
    "observation_in",
    "observation_of",
]

OFF = "off"
OBSERVE = "observe"


class _Guarded:
    """The detector of one process, and its lock."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.lock = process_lock().get()


class Anomalies:
    """The recorder that scores requests.

    :param actions: what happens, by signal: ``off``, ``observe``, ``event``, ``throttle`` or ``block``; a signal that
        is missing is observed.
    :param count: counts each anomaly by its signal.
    :param report: is called for each anomaly of a signal that is more than observed.
    :param penalties: gets those of signals with ``throttle`` or ``block``.
    :raises ConfigError: there is no signal of a name.
    """

    def __init__(
        self,
        actions: Mapping[str, str],
        count: Callable[[str], object],
        report: Callable[[Anomaly], object],
        penalties: Penalties,
    ) -> None:
        names = [each.name for each in SIGNALS]
        if problems := [_unknown(name, names) for name in actions if name not in names]:
            raise ConfigError(problems)
        used = [each for each in SIGNALS if actions.get(each.name, OBSERVE) != OFF]
        self.signals = tuple(each.name for each in used)
        """The names of those that are not off."""
        self._reported = {name: action for name, action in actions.items() if action not in {OFF, OBSERVE}}
        self._penalties = penalties
        self._count = count
        self._report = report
        self._guarded = PerProcess(lambda: _Guarded(Detector(used)))

    def record(self, exchange: Exchange) -> None:
        """Score a request when its response starts."""
        guarded = self._guarded.get()
        seen = observation_of(exchange)
        with guarded.lock:
            found = guarded.detector.observe(seen)
        for anomaly in found:
            self._count(anomaly.signal)
            action = self._reported.get(anomaly.signal)
            if action is None:
                continue
            if (seconds := SECONDS.get(action)) is not None:
                self._penalties.add(anomaly.subject, seconds, is_principal=anomaly.is_principal)
            self._report(anomaly)


def _unknown(name: str, names: list[str]) -> str:
    guess = closest(name, names)
    known = f"did you mean {guess!r}?" if guess else f"known are {', '.join(names)}"
    return f"SECURE_ML_ANOMALIES: there is no signal {name!r}; {known}"
