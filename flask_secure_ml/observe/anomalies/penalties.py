"""Penalties of callers, shared between processes if the store is."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from ...errors import DependencyUnavailable
from ...principal import Clock
from ...refresh import process_lock
from ...stores import SharedStore
from ...stores.snapshot import Snapshot
from ...strictjson import loads
from .detector import EPISODE, MAX_NETWORKS, MAX_PRINCIPALS, NETWORK, PRINCIPAL, Anomaly

log: logging.Logger = logging.getLogger(__name__)

DAY = 86_400
THROTTLE, BLOCK = "throttle", "block"
SECONDS = {THROTTLE: 300, BLOCK: 3_600}
"""Seconds for which a caller is rejected after the last unusual request, by action."""

LONGEST = {THROTTLE: 3_600, BLOCK: DAY}
"""Maximum penalty in seconds, for a caller with repeated penalties."""

SPACE = "anomaly-penalties"
CLOCK_SLACK = 300.0
"""Maximum clock difference between machines with the same store, in seconds."""

_LATEST = 2**38
_STORED_AFTER = 0.1
"""Minimum relative extension of a penalty that is written to the store."""


@dataclass(frozen=True)
class Penalty:
    """The time until which a caller is rejected, in seconds since the epoch.

    :param since: the start time.
    :param signal: the name of the signal.
    :param strikes: the number of earlier penalties within a day.
    :param cleared: the time at which an operator ended it, or 0.
    """

    until: float
    since: float
    signal: str
    action: str
    strikes: int = 0
    cleared: float = 0.0

    def left(self, now: float) -> float:
        """Return the remaining seconds; 0 if it has ended, or if the clock was set back since."""
        return 0.0 if self.is_ahead(now) else max(0.0, self.until - now)

    def is_ahead(self, now: float) -> bool:
        """Return True if it ends later than any penalty that is imposed now: the clock was set back.

        The caller would be rejected until the clock is again where it was by mistake.
        """
        return self.until - now > _seconds(self.action, self.strikes) + CLOCK_SLACK


_NONE = Penalty(0.0, 0.0, "", THROTTLE)


class Penalties:
    """The penalties of this process and of the shared store.

    A penalty ends some minutes after the last unusual request: each further anomaly extends it, and the next penalty
    within a day is twice as long. While the store is down, each process enforces the penalties that it knows.

    :param store: None if penalties are not shared.
    """

    def __init__(
        self,
        clock: Clock,
        store: SharedStore | None = None,
        max_principals: int = MAX_PRINCIPALS,
        max_networks: int = MAX_NETWORKS,
    ) -> None:
        self._clock = clock
        self._lock = process_lock()
        self._store = store
        # Stored separately, so that penalties of many networks cannot evict the penalty of a principal.
        self._own: dict[str, OrderedDict[str, Penalty]] = {PRINCIPAL: OrderedDict(), NETWORK: OrderedDict()}
        self._most = {PRINCIPAL: max_principals, NETWORK: max_networks}
        self._unsaved: dict[tuple[str, str], Penalty] = {}
        self._last: Mapping[str, Penalty] = {}
        self._shared = None if store is None else Snapshot[dict[str, Penalty]](store, SPACE, _parsed, clock, dict)

    def __len__(self) -> int:
        return sum(map(len, self._own.values())) + len(self._stored())

    def add(self, anomaly: Anomaly, action: str) -> Penalty | None:
        """Start or extend the penalty of an anomaly's subject, and return it.

        :returns: None for an identity that rejected credentials claim, as others caused the anomaly, and for an
            anomaly that continues after an operator cleared its penalty.
        """
        if anomaly.kind not in self._own:
            return None
        now = self._clock.now()
        old = self.get(anomaly.kind, anomaly.subject)
        if old is not None and old.cleared and _is_of_what_was_cleared(anomaly, old, now):
            return None
        if old is not None and old.left(now):
            until = max(old.until, now + _seconds(action, old.strikes))
            stronger = max(old.action, action, key=SECONDS.__getitem__)
            new = replace(old, until=until, action=stronger)
            is_saved = until - old.until < _STORED_AFTER * SECONDS[action] and stronger == old.action
        else:
            known = old is not None and not old.cleared and now < old.until + DAY
            strikes = old.strikes + 1 if old is not None and known else 0
            new, is_saved = Penalty(now + _seconds(action, strikes), now, anomaly.signal, action, strikes), False
        if is_saved:
            return old
        self._keep(anomaly.kind, anomaly.subject, new)
        return new

    def get(self, kind: str, subject: str) -> Penalty | None:
        """Return the penalty of a caller, including one that ended within a day, or None."""
        own = self._own[kind].get(subject) if kind in self._own else None
        stored = self._stored().get(_key(kind, subject))
        if own is None or stored is None:
            return own or stored
        # Another process may have extended it, or an operator may have ended it.
        if stored.cleared >= own.since:
            return stored
        now = self._clock.now()
        return max(own, stored, key=lambda each: (each.left(now), each.until))

    def current(self, kind: str, subject: str) -> Penalty | None:
        """Return the penalty for which a caller is rejected now, or None."""
        found = self.get(kind, subject)
        return None if found is None or not self.left_of(found) else found

    def left(self, kind: str, subject: str) -> float:
        """Return the remaining seconds for which a caller is rejected; 0 if it is not."""
        found = self.get(kind, subject)
        return 0.0 if found is None else self.left_of(found)

    def left_of(self, penalty: Penalty) -> float:
        """Return the remaining seconds of a penalty; 0 if it has ended."""
        return penalty.left(self._clock.now())

    def refresh(self) -> None:
        """Read the penalties of the store; other methods tolerate an outage.

        :raises DependencyUnavailable: the store cannot be reached.
        """
        if self._shared is not None:
            self._shared.invalidate()
            self._last = self._shared.read()

    def list(self) -> Iterator[tuple[str, str, Penalty]]:
        """Yield the kind, name and penalty of all callers that are rejected now."""
        now = self._clock.now()
        names = {(kind, name) for kind, known in self._own.items() for name in [*known]}
        names |= {_named(key) for key in [*self._stored()]}
        for kind, name in sorted(names):
            found = self.get(kind, name)
            if found is not None and found.left(now):
                yield kind, name, found

    def clear(self, kind: str, subject: str) -> bool:
        """End the penalty of a caller; return False if there is none.

        If the same traffic continues, it does not cause another penalty for an hour.

        :raises DependencyUnavailable: the store cannot be reached.
        """
        now = self._clock.now()
        found = self.get(kind, subject)
        if found is None or not found.left(now):
            return False
        self._keep(kind, subject, replace(found, until=now, strikes=0, cleared=now))
        self.save()
        if self._shared is not None:
            self._shared.invalidate()
        return True

    def save(self) -> None:
        """Write changes to the store; not called within requests.

        :raises DependencyUnavailable: the store cannot be reached.
        """
        if self._store is None:
            return
        while self._unsaved:
            with self._lock.get():
                (kind, subject), penalty = next(iter(self._unsaved.items()))
            if not self._is_outlasted(kind, subject, penalty):
                seconds = max(1.0, penalty.until + DAY - self._clock.now())
                self._store.put(SPACE, _key(kind, subject), json.dumps(asdict(penalty)).encode(), seconds=seconds)
            with self._lock.get():
                if self._unsaved.get((kind, subject)) is penalty:
                    del self._unsaved[kind, subject]

    def _keep(self, kind: str, subject: str, penalty: Penalty) -> None:
        own = self._own[kind]
        with self._lock.get():
            own[subject] = penalty
            own.move_to_end(subject)
            if self._store is not None:
                self._unsaved[kind, subject] = penalty
            if len(own) > self._most[kind]:
                evicted, _ = own.popitem(last=False)
                self._unsaved.pop((kind, evicted), None)

    def _is_outlasted(self, kind: str, subject: str, penalty: Penalty) -> bool:
        """Return True if another process stored a longer penalty and neither was cleared."""
        raw = None if self._store is None or penalty.cleared else self._store.get(SPACE, _key(kind, subject))
        stored = None if raw is None else _parsed(raw)
        if stored is None or stored.cleared or stored.is_ahead(self._clock.now()):
            return False
        return stored.until > penalty.until

    def _stored(self) -> Mapping[str, Penalty]:
        if self._shared is None:
            return self._last
        # The store logs its own outages. Cached penalties still expire.
        with suppress(DependencyUnavailable):
            self._last = self._shared.read()
        return self._last


def _is_of_what_was_cleared(anomaly: Anomaly, old: Penalty, now: float) -> bool:
    return anomaly.time <= old.cleared or (anomaly.again and now - old.cleared < EPISODE)


def _seconds(action: str, strikes: int) -> float:
    return min(SECONDS[action] << min(strikes, 32), LONGEST[action])


def _key(kind: str, subject: str) -> str:
    return f"{kind}:{subject}"


def _named(key: str) -> tuple[str, str]:
    kind, _, subject = key.partition(":")
    return kind, subject


def _parsed(raw: bytes) -> Penalty:
    """Return a stored penalty, or an expired one if the record is invalid.

    So an invalid record rejects no caller, and the other penalties can still be read.
    """
    try:
        return _checked(Penalty(**loads(raw, max_depth=1)))
    except (TypeError, ValueError) as error:
        log.warning("a penalty in the store cannot be read: %s", type(error).__name__)
        return _NONE


def _checked(found: Penalty) -> Penalty:
    instants = (found.until, found.since, found.cleared)
    if not all(type(each) in {int, float} and 0 <= each <= _LATEST for each in instants):
        raise ValueError("a time is missing or out of range")
    if type(found.strikes) is not int or found.strikes < 0:
        raise ValueError("the number of strikes is missing or negative")
    if not isinstance(found.signal, str) or found.action not in SECONDS:
        raise ValueError("the signal is missing, or the action is unknown")
    return found
