"""All records of a space in memory, so that requests do not wait for a store on another machine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, TypeVar

from ..errors import DependencyUnavailable
from ..principal import Clock
from ..refresh import Attempt, Refreshed
from .base import Changes, Cursor, Record, SharedStore, StoreUnavailable, unavailable

M = TypeVar("M", bound=MutableMapping[str, Any])

FRESH = 0.5
"""Seconds between two reads of what changed."""

TIMEOUT = 0.25
"""Seconds for one read."""

PROMISED = 1.0
"""Seconds after which a change takes effect in every process, if the store responds."""

KEEP = 60.0
"""Seconds for which the last content is used while the store does not respond; it could have a change."""

PAUSE = 0.4
"""Seconds for which a store that failed is not called."""

TOTAL = 10.0
"""Seconds for reading all records, page by page, in a process that starts or missed too much."""

POLLED = 20.0
"""Seconds after which any request reads what changed, so that a process without credentials to check stays current."""


class Snapshot(Generic[M]):
    """The parsed records of one space, updated with what changed in the store.

    :param parse: returns the value for the bytes of a record; raises ValueError for bytes that it rejects.
    :param table: returns an empty mapping for the values; setting one may raise ValueError too.
    """

    def __init__(
        self, store: SharedStore, space: str, parse: Callable[[bytes], Any], clock: Clock, table: Callable[[], M]
    ) -> None:
        self._store = store
        self._space = space
        self._parse = parse
        self._clock = clock
        self._table = table
        self._unfinished: _Content[M] | None = None
        self._content: Refreshed[_Content[M]] = Refreshed(
            self._read,
            clock,
            name=space,
            fresh=FRESH,
            timeout=TIMEOUT,
            promised=PROMISED,
            keep=KEEP,
            pause=PAUSE,
            total=TOTAL,
            reported=(StoreUnavailable,),
            unavailable=lambda _: unavailable(f"the store does not respond about {space}"),
        )

    def read(self) -> M:
        """Return the records by key, in a mapping that changes with them.

        :raises DependencyUnavailable: the store has not responded for a minute, or never.
        :raises ValueError: a record cannot be parsed, so that the content is not known completely.
        """
        content = self._content.get()
        if content.faults:
            # Copied at once: another thread may be changing them.
            raise ValueError(next(iter([*content.faults.values()]), "a record could not be parsed"))
        return content.table

    def invalidate(self) -> None:
        """Read what changed at the next :meth:`read`: this process changed something itself."""
        self._content.invalidate()

    def poll(self) -> None:
        """Read what changed if that was last done some time ago; wait for no other thread, and raise nothing.

        Called for every request, it lets a worker that had no credential to check survive an outage like its
        neighbours.
        """
        self._content.poll(POLLED)

    def _read(self, content: _Content[M] | None, attempt: Attempt) -> _Content[M]:
        # Reading all records continues where an earlier attempt stopped.
        content = self._unfinished or content
        while True:
            left = attempt.remaining()
            if left <= 0:
                raise DependencyUnavailable(f"reading all {self._space} takes too long")
            changes = self._store.changes(self._space, None if content is None else content.cursor, timeout=left)
            if content is None or changes.whole:
                # A new one, while other threads use the old one.
                content = self._unfinished = _Content(self._parse, self._table())
            now = self._clock.monotonic()
            content.apply(changes, now)
            content.expire(now)
            if not changes.more:
                self._unfinished = None
                return content
            attempt.read_on()


class _Content(Generic[M]):
    """The records that one process has; one thread at a time changes them while others read them."""

    def __init__(self, parse: Callable[[bytes], Any], table: M) -> None:
        self.table = table
        self.faults: dict[str, str] = {}
        self.cursor: Cursor | None = None
        self._parse = parse
        self._until: dict[str, float] = {}
        self._ends: list[tuple[float, str]] = []

    def apply(self, changes: Changes, now: float) -> None:
        for key, record in changes.records.items():
            if record is None:
                self._drop(key)
            else:
                self._put(key, record, now)
        # Last: what is interrupted before this is read and applied again, which changes nothing.
        self.cursor = changes.cursor

    def expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            # A record that was put again meanwhile has another expiry.
            if self._until.get(key) == until:
                self._drop(key)

    def _put(self, key: str, record: Record, now: float) -> None:
        try:
            self.table[key] = self._parse(record.value)
            self.faults.pop(key, None)
        except ValueError as error:
            self.faults[key] = str(error) or "a record cannot be parsed"
        self._until.pop(key, None)
        if record.seconds is not None:
            self._until[key] = until = now + record.seconds
            heapq.heappush(self._ends, (until, key))

    def _drop(self, key: str) -> None:
        self.table.pop(key, None)
        self.faults.pop(key, None)
        self._until.pop(key, None)
