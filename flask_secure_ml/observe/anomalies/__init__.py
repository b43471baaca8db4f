"""Anomaly detection for principals, and for networks of anonymous and rejected requests.

With a shared store, every process scores the requests of all processes, and learned baselines survive restarts. Without
one, each process scores its own requests, and its baselines end with it.
"""

from __future__ import annotations

from .detector import EPISODE, Anomaly, Detector
from .episodes import Episodes
from .guard import AnomalyGuard
from .observation import Observation, observation_in, observation_of
from .penalties import Penalties, Penalty
from .recorder import Anomalies
from .sharing import load
from .signals import SIGNALS, Reading

__all__ = [
    "EPISODE",
    "SIGNALS",
    "Anomalies",
    "Anomaly",
    "AnomalyGuard",
    "Detector",
    "Episodes",
    "Observation",
    "Penalties",
    "Penalty",
    "Reading",
    "load",
    "observation_in",
    "observation_of",
]
