"""A store for one process: for development, for tests, and for servers with a single worker."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from threading import Lock

from ..exchange import Clock
from .base import unavailable

MAX_SEEN = 1_000_000
"""How many keys of one space ``add`` remembers; one more is refused rather than an old one forgotten."""

Entry = tuple[float, bytes]


class MemoryStore:
    """Keeps everything in the memory of this process; what other processes do is not seen.

    :param clock: tells when an entry is over.
    :param max_seen: the most keys of one space that ``add`` remembers.
    """

    shared = False

    def __init__(self, clock: Clock, max_seen: int = MAX_SEEN) -> None:
        self._clock = clock
        self._max_seen = max_seen
        self._lock = Lock()
        self._seen: dict[str, _Seen] = defaultdict(_Seen)
        self._records: dict[str, dict[str, Entry]] = defaultdict(dict)
        self._versions: Counter[str] = Counter()

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Remember a key for a time; False when it is remembered already.

        :raises DependencyUnavailable: there is no room; no key may be forgotten before its time.
        """
        now = self._clock.monotonic()
        with self._lock:
            seen = self._seen[space]
            seen.forget(now)
            if key in seen.keys:
                return False
            if len(seen.keys) >= self._max_seen:
                raise unavailable(f"no room in memory for more keys of {space}; set SECURE_ML_STORE_URI")
            seen.remember(key, now + seconds)
            return True

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; False, and nothing stored, when ``new`` is wanted and the key is taken."""
        until = math.inf if seconds is None else self._clock.monotonic() + seconds
        with self._lock:
            records = self._current(space)
            if new and key in records:
                return False
            records[key] = (until, value)
            self._versions[space] += 1
            return True

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        with self._lock:
            until, value = self._records[space].get(key, (-math.inf, b""))
        return value if until > self._clock.monotonic() else None

    def delete(self, space: str, key: str) -> bool:
        """Forget a record; False when there is none."""
        with self._lock:
            found = self._current(space).pop(key, None)
            self._versions[space] += 1
            return found is not None

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, in the order of their keys."""
        with self._lock:
            return {key: value for key, (_, value) in sorted(self._current(space).items())}

    def version(self, space: str) -> int:
        """Return a number that is another one after every ``put`` and ``delete`` in the space."""
        return self._versions[space]

    def _current(self, space: str) -> dict[str, Entry]:
        """Return the records of a space, without those that are over."""
        records, now = self._records[space], self._clock.monotonic()
        for key in [key for key, (until, _) in records.items() if until <= now]:
            del records[key]
        return records


class _Seen:
    """Keys and when each is over, the earliest first."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._ends: list[tuple[float, str]] = []

    def remember(self, key: str, until: float) -> None:
        self.keys.add(key)
        heapq.heappush(self._ends, (until, key))

    def forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self.keys.remove(heapq.heappop(self._ends)[1])
