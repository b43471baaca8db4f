"""A store in the memory of one process, for development, tests, and servers with a single worker."""

from __future__ import annotations

import heapq
import math
import secrets
from collections import defaultdict, deque
from collections.abc import Mapping

from ..errors import DependencyUnavailable
from ..principal import Clock
from ..refresh import process_lock
from .base import KEPT_CHANGES, Changes, Cursor, Record, all_items

MAX_SEEN = 1_000_000
"""The maximum number of keys of one space that ``add`` stores; more are rejected, because none may be evicted."""

Entry = tuple[float, bytes]


class MemoryStore:
    """Stores everything in the memory of this process, which other processes cannot access.

    :param clock: decides when an entry expires.
    :param max_seen: the maximum number of keys of one space that ``add`` stores.
    """

    shared = False

    def __init__(self, clock: Clock, max_seen: int = MAX_SEEN) -> None:
        self._clock = clock
        self._max_seen = max_seen
        self._lock = process_lock()
        self._seen: dict[str, _Seen] = defaultdict(_Seen)
        self._spaces: dict[str, _Space] = defaultdict(_Space)

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Store a key for some seconds; return False if it is already stored.

        :raises DependencyUnavailable: the memory is full; no key may be evicted before it expires.
        """
        now = self._clock.monotonic()
        with self._lock.get():
            seen = self._seen[space]
            seen.expire(now)
            if key in seen.keys:
                return False
            if len(seen.keys) >= self._max_seen:
                reason = f"the memory store of {space} is full; set SECURE_ML_STORE_URI"
                raise DependencyUnavailable(reason, headers=[("Retry-After", "1")])
            seen.add(key, now + seconds)
            return True

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; with ``new``, return False without storing it if the key is taken."""
        now = self._clock.monotonic()
        with self._lock.get():
            records = self._current(space, now)
            if new and key in records.entries:
                return False
            records.put(key, (math.inf if seconds is None else now + seconds, value))
            return True

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        with self._lock.get():
            until, value = self._spaces[space].entries.get(key, (-math.inf, b""))
        return value if until > self._clock.monotonic() else None

    def delete(self, space: str, key: str) -> bool:
        """Delete a record; return False if there is none."""
        with self._lock.get():
            return self._current(space, self._clock.monotonic()).delete(key)

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, sorted by key."""
        return all_items(self, space)

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return the records that changed since a cursor, or all records."""
        now = self._clock.monotonic()
        with self._lock.get():
            records = self._current(space, now)
            keys = None if cursor is None else records.changed_since(cursor.version)
            found = {key: records.entries.get(key) for key in (records.entries if keys is None else keys)}
            version = records.version
        left = {key: entry and _record(entry, now) for key, entry in found.items()}
        return Changes(left, Cursor(version), more=False, whole=keys is None)

    def _current(self, space: str, now: float) -> _Space:
        """Return the records of a space, without those that have expired."""
        records = self._spaces[space]
        records.expire(now)
        return records


def _record(entry: Entry, now: float) -> Record:
    until, value = entry
    return Record(value, None if until == math.inf else until - now)


class _Space:
    """The records of a space, their expiry, and the last changes."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._ends: list[tuple[float, str]] = []
        self._changed: deque[str] = deque(maxlen=KEPT_CHANGES)
        self._number = 0
        self._tag = secrets.token_hex(8)

    @property
    def version(self) -> str:
        return f"{self._number}-{self._tag}"

    def put(self, key: str, entry: Entry) -> None:
        self.entries[key] = entry
        if entry[0] < math.inf:
            heapq.heappush(self._ends, (entry[0], key))
        self._change(key)

    def delete(self, key: str) -> bool:
        found = self.entries.pop(key, None) is not None
        if found:
            self._change(key)
        return found

    def expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            # A record that was put again meanwhile has another expiry.
            if key in self.entries and self.entries[key][0] == until:
                del self.entries[key]

    def changed_since(self, version: str) -> set[str] | None:
        """Return the keys that changed since a version; None if that is unknown."""
        number, _, tag = version.partition("-")
        if tag != self._tag:
            return None
        missed = self._number - int(number)
        if missed > len(self._changed):
            return None
        return {self._changed[-1 - index] for index in range(missed)}

    def _change(self, key: str) -> None:
        self._number += 1
        self._changed.append(key)


class _Seen:
    """Keys and their expiry, the earliest first."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._ends: list[tuple[float, str]] = []

    def add(self, key: str, until: float) -> None:
        self.keys.add(key)
        heapq.heappush(self._ends, (until, key))

    def expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self.keys.remove(heapq.heappop(self._ends)[1])
