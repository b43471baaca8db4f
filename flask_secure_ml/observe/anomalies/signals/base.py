"""The protocol of a signal."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from ..observation import Observation


class Reading(NamedTuple):
    """The current state of a signal.

    :param score: the value relative to the threshold; 1 and above is unusual.
    :param value: a description of the current value.
    :param history: a description of the usual value and the threshold.
    """

    score: float
    value: str
    history: str


class Signal(Protocol):
    """The state of one signal for one subject, in bounded memory.

    Slots contain numbers, strings, arrays, and objects with such slots, never None, so that the state can be
    serialized.
    """

    name: ClassVar[str]
    """Name in settings, metrics and events."""
    of_principals: ClassVar[bool]
    """Whether it scores principals."""
    of_networks: ClassVar[bool]
    """Whether it scores networks of anonymous and rejected requests."""
    of_identities: ClassVar[bool] = False
    """Whether it scores identities that rejected credentials claim."""

    def __init__(self) -> None: ...

    def observe(self, seen: Observation, share: float) -> bool:
        """Add requests of the subject; return True if they complete an anomaly.

        Requests that were reported do not count again.

        :param share: the fraction of the threshold that is enough: less than 1 after a recent anomaly, and more than
            1 for amounts after an outage.
        """

    def explain(self) -> str:
        """Return a description of the last anomaly that :meth:`observe` reported."""

    def read(self, time: float) -> Reading:
        """Return the reading at a time."""
