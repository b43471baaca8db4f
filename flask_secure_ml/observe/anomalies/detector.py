"""Scoring every principal and network, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from .observation import Observation
from .signals import Signal

MAX_PRINCIPALS = 10_000
MAX_NETWORKS = 10_000
"""How many of each are known at a time; the one that was idle for longest is evicted."""


@dataclass(frozen=True)
class Anomaly:
    """Something unusual about one subject.

    :param signal: the name of the signal.
    :param time: of the request that completed it, in seconds since the epoch.
    :param subject: the id of a principal, or a network.
    :param is_principal: which of them.
    :param explanation: what is unusual, in words.
    """

    signal: str
    time: float
    subject: str
    is_principal: bool
    explanation: str


class Detector:
    """Scores one request after the other. It is not safe for threads.

    Principals and networks are kept apart, so that nobody evicts the history of a principal with requests from many
    networks.
    """

    def __init__(
        self,
        signals: Sequence[type[Signal]],
        max_principals: int = MAX_PRINCIPALS,
        max_networks: int = MAX_NETWORKS,
    ) -> None:
        self._of_principals = [each for each in signals if each.of_principals]
        self._of_networks = [each for each in signals if each.of_networks]
        self._max_principals = max_principals
        self._max_networks = max_networks
        self._principals: OrderedDict[str, list[Signal]] = OrderedDict()
        self._networks: OrderedDict[str, list[Signal]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._principals) + len(self._networks)

    def observe(self, seen: Observation) -> list[Anomaly]:
        """Take a request into account; return what it makes unusual about its principal, or else its network."""
        if seen.principal:
            subject = seen.principal
            known, maximum, kinds = self._principals, self._max_principals, self._of_principals
        else:
            subject = seen.network
            known, maximum, kinds = self._networks, self._max_networks, self._of_networks
        states = known.get(subject)
        if states is None:
            if len(known) >= maximum:
                known.popitem(last=False)
            states = known[subject] = [kind() for kind in kinds]
        else:
            known.move_to_end(subject)
        found: list[Anomaly] = []
        for state in states:
            explanation = state.observe(seen)
            if explanation is not None:
                is_principal = bool(seen.principal)
                found.append(Anomaly(state.name, seen.time, subject, is_principal, explanation))
        return found
