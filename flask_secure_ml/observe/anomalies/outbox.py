"""The requests that one process served since its last summary, and the entries of a summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .codec import MOST_INTEGER, integer
from .detector import NETWORK, PRINCIPAL, subjects_of
from .observation import Observation

MOST_ENTRIES = 5_000
"""Maximum entries of principals and of networks in a summary; only this process scores further requests."""

MOST_TIMES = 32
_MEMBERS = 10
_MOST_STATUS = 999
_LONGEST_NAME = 4_096
_LATEST = 2**38


class Outbox:
    """The requests that this process served since its last summary, in bounded memory."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[tuple[str, str, int, int, str], Observation]] = {PRINCIPAL: {}, NETWORK: {}}

    def __bool__(self) -> bool:
        return any(self._entries.values())

    def add(self, seen: Observation) -> None:
        """Add requests to the entry of similar ones."""
        entries = self._entries[PRINCIPAL if seen.principal else NETWORK]
        key = seen.principal, seen.network, seen.status, seen.target, seen.attempted
        known = entries.get(key)
        times = seen.times or (seen.time,)
        if known is None:
            if len(entries) < MOST_ENTRIES:
                entries[key] = Observation(seen.time, *key, seen.rows, seen.size, seen.count, times)
            return
        known.time = max(known.time, seen.time)
        known.rows = min(known.rows + seen.rows, MOST_INTEGER)
        known.size = min(known.size + seen.size, MOST_INTEGER)
        known.count += seen.count
        if len(known.times) < MOST_TIMES:
            known.times += times

    def subjects(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and name of each subject, possibly with duplicates."""
        for entries in self._entries.values():
            for each in entries.values():
                yield from subjects_of(each)

    def take(self) -> list[Observation]:
        """Return the entries in the order of their last requests, and empty the outbox."""
        found = [each for entries in self._entries.values() for each in entries.values()]
        self._entries = {PRINCIPAL: {}, NETWORK: {}}
        return sorted(found, key=lambda each: each.time)


def members_of(seen: Observation) -> list[Any]:
    """Return an entry of a summary as JSON values."""
    key = [seen.time, seen.principal, seen.network, seen.status, seen.target, seen.attempted]
    return [*key, seen.rows, seen.size, seen.count, [round(each, 3) for each in seen.times]]


def observation_from(members: Any) -> Observation:
    """Return an entry of a summary.

    :raises ValueError: the members are not those of an observation.
    """
    if not isinstance(members, list) or len(members) != _MEMBERS:
        raise ValueError("an entry has invalid members")
    time, principal, network, status, target, attempted, rows, size, count, times = members
    # Times are appended to an entry that has fewer than the maximum, so it can have almost twice as many.
    if not isinstance(times, list) or len(times) > 2 * MOST_TIMES:
        raise ValueError("an entry has invalid times")
    return Observation(
        _instant(time),
        _name(principal),
        _name(network),
        integer(status, 0, _MOST_STATUS),
        integer(target, 0, 2**63 - 1),
        _name(attempted),
        integer(rows, 0),
        integer(size, 0),
        integer(count, 1),
        tuple(map(_instant, times)),
    )


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise ValueError("a name is missing or too long")
    return value


def _instant(value: Any) -> float:
    # The comparison also rejects infinity and NaN.
    if type(value) not in {int, float} or not 0 <= value <= _LATEST:
        raise ValueError("a time is missing or out of range")
    return float(value)
