"""Scores principals, networks and claimed identities in bounded memory."""

from __future__ import annotations

import logging
import math
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .observation import UNNAMED, Observation
from .outage import ALLOWANCE, Outage
from .signals import Reading, Signal

log: logging.Logger = logging.getLogger(__name__)

MAX_PRINCIPALS = 10_000
MAX_NETWORKS = 10_000
MAX_IDENTITIES = 10_000
"""Maximum number of subjects of each kind; the least recently active one is evicted."""

EPISODE = 3_600
"""Seconds without an anomaly after which a subject is no longer unusual; until then, an anomaly is not new."""

RECENT = 600
"""Seconds for which a score counts after the last request, and for which an anomaly counts as a score of 1."""

MOST_SCORED = 100
"""Maximum number of recently active subjects of each kind whose scores are read."""

LOWER = 0.5
"""Fraction of a threshold that continues an episode."""

_UNUSABLE = (ArithmeticError, LookupError, TypeError, ValueError)

PRINCIPAL, NETWORK, IDENTITY = KINDS = ("principal", "network", "identity")


@dataclass(frozen=True)
class Anomaly:
    """Unusual traffic of one subject.

    :param signal: the name of the signal.
    :param time: the time of the request that completed it, in seconds since the epoch.
    :param subject: the id of a principal, a network, or an identity that rejected credentials claim.
    :param kind: ``principal``, ``network`` or ``identity``.
    :param explanation: a description for people.
    :param again: whether it continues an anomaly that was reported less than an hour ago.
    :param penalty: ``throttle`` or ``block`` if the subject is rejected for it; set when the anomaly is reported.
    """

    signal: str
    time: float
    subject: str
    kind: str
    explanation: str
    again: bool = False
    penalty: str = ""


class Subject:
    """The state of all signals of one subject.

    The state of a signal may come from the store, which is not trusted. A signal that fails because of its state is
    reset; the others are not affected.

    :param kinds: the classes of the signals.
    """

    __slots__ = ("failed_until", "fired", "last", "signals")

    def __init__(self, kinds: Sequence[type[Signal]]) -> None:
        self.signals: list[Signal] = [kind() for kind in kinds]
        self.fired: array[float] = array("d", [-math.inf]) * len(kinds)
        """The time of the last anomaly of each signal."""
        self.last: float = 0.0
        self.failed_until: float = 0.0
        """The time until which this subject may retry requests that failed in an outage."""

    def observe(self, seen: Observation, name: str, kind: str) -> list[Anomaly]:
        """Score requests and return the anomalies that they cause."""
        now = seen.time
        self.last = max(self.last, now)
        most = ALLOWANCE if now < self.failed_until else 1.0
        found: list[Anomaly] = []
        for place, signal in enumerate(self.signals):
            again = 0 <= now - self.fired[place] < EPISODE
            try:
                if signal.observe(seen, LOWER * most if again else most):
                    found.append(Anomaly(signal.name, now, name, kind, signal.explain(), again))
                    self.fired[place] = now
            except _UNUSABLE as error:
                self._reset(place, error)
        return found

    def readings(self, now: float) -> Iterator[tuple[str, Reading]]:
        """Yield the name and the reading of each signal."""
        for place, signal in enumerate(self.signals):
            try:
                found = signal.read(now)
            except _UNUSABLE as error:
                found = self._reset(place, error).read(now)
            yield signal.name, found

    def scores(self, now: float) -> Iterator[tuple[str, float]]:
        """Yield the name and score of each signal, at least 1 for ten minutes after an anomaly."""
        for (name, reading), fired in zip(self.readings(now), self.fired, strict=True):
            yield name, max(reading.score, 1.0) if 0 <= now - fired < RECENT else reading.score

    def _reset(self, place: int, error: Exception) -> Signal:
        broken = self.signals[place]
        log.warning("the %s baseline of a caller cannot be used and is reset: %s", broken.name, type(error).__name__)
        self.signals[place] = fresh = type(broken)()
        return fresh


def subjects_of(seen: Observation) -> list[tuple[str, str]]:
    """Return the kind and name of each subject that requests count for.

    The identity that a rejected credential claims is never treated as the principal: it is a separate subject.
    """
    if seen.principal:
        return [(PRINCIPAL, seen.principal)]
    if not seen.attempted or UNNAMED in seen.attempted:
        return [(NETWORK, seen.network)]
    return [(NETWORK, seen.network), (IDENTITY, seen.attempted)]


class Detector:
    """Scores one request after another; not thread-safe.

    Principals, networks and identities are stored separately, so requests from many networks cannot evict the history
    of a principal.
    """

    def __init__(
        self,
        signals: Sequence[type[Signal]],
        max_principals: int = MAX_PRINCIPALS,
        max_networks: int = MAX_NETWORKS,
        max_identities: int = MAX_IDENTITIES,
    ) -> None:
        self._signals = {
            PRINCIPAL: [each for each in signals if each.of_principals],
            NETWORK: [each for each in signals if each.of_networks],
            IDENTITY: [each for each in signals if each.of_identities],
        }
        self._most = {PRINCIPAL: max_principals, NETWORK: max_networks, IDENTITY: max_identities}
        self._subjects: dict[str, OrderedDict[str, Subject]] = {kind: OrderedDict() for kind in KINDS}
        self._outage = Outage()

    def __len__(self) -> int:
        return sum(map(len, self._subjects.values()))

    def observe(self, seen: Observation) -> list[Anomaly]:
        """Score a request and return the anomalies of its principal, or of its network."""
        if seen.principal:
            subject = self.subject(PRINCIPAL, seen.principal)
            if self._outage.add(seen):
                subject.failed_until = self._outage.until
            return subject.observe(seen, seen.principal, PRINCIPAL)
        return [each for kind, name in subjects_of(seen) for each in self.subject(kind, name).observe(seen, name, kind)]

    def subject(self, kind: str, name: str) -> Subject:
        """Return the state of a subject, and mark it as recently used."""
        known = self._subjects[kind]
        found = known.get(name)
        if found is None:
            found = Subject(self._signals[kind])
            self.put(kind, name, found)
        else:
            known.move_to_end(name)
        return found

    def knows(self, kind: str, name: str) -> bool:
        """Return True if the subject is known."""
        return name in self._subjects[kind]

    def new(self, kind: str) -> Subject:
        """Return the empty state of a new subject."""
        return Subject(self._signals[kind])

    def put(self, kind: str, name: str, subject: Subject) -> None:
        """Set the state of a subject."""
        known = self._subjects[kind]
        if name not in known and len(known) >= self._most[kind]:
            known.popitem(last=False)
        known[name] = subject

    def subjects(self) -> Iterator[tuple[str, str, Subject]]:
        """Yield the kind, name and state of every subject."""
        for kind, known in self._subjects.items():
            for name, subject in known.items():
                yield kind, name, subject

    def recent(self, now: float) -> list[Subject]:
        """Return the subjects that were active within ten minutes, at most a hundred of each kind."""
        known = (islice(reversed(each.values()), MOST_SCORED) for each in self._subjects.values())
        return [subject for some in known for subject in some if now - subject.last < RECENT]

    def readings(self, kind: str, name: str, time: float) -> dict[str, Reading] | None:
        """Return the reading of each signal by name; None for an unknown subject."""
        found = self._subjects[kind].get(name)
        return None if found is None else dict(found.readings(time))
