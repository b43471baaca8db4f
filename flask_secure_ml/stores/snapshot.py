"""All records of a space in memory, so that a request pays nothing for a store on another machine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, TypeVar

from ..principal import Clock
from ..refresh import Attempt, Refreshed
from .base import Changes, Cursor, Record, SharedStore, unavailable

M = TypeVar("M", bound=MutableMapping[str, Any])

FRESH = 0.5
"""Seconds between two reads of what changed."""

TIMEOUT = 0.25
"""Seconds for one read."""

PROMISED = 1.0
"""Seconds after which a change holds in every process, if the store answers."""

KEEP = 60.0
"""Seconds for which the last content serves while the store does not answer; it could know of a change."""

PAUSE = 0.4
"""Seconds for which a store that failed is not asked."""

TOTAL = 10.0
"""Seconds in which all records are read, page by page, by a process that starts or missed too much."""


class Snapshot(Generic[M]):
    """The parsed records of one space, brought up to date by what changed.

    :param parse: makes a value from the bytes of a record; raises ValueError for bytes that it rejects.
    :param table: makes an empty mapping for the values; setting one may raise ValueError too.
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
            unavailable=lambda _: unavailable(f"the store has not answered about {space}"),
        )

    def read(self) -> M:
        """Return the records by key, in a mapping that changes with them.

        :raises DependencyUnavailable: the store has not answered for a minute, or never.
        :raises ValueError: a record cannot be read; what the others would say is then not known.
        """
        content = self._content.get()
        if content.faults:
            # Copied at once: another thread may be changing them.
            raise ValueError(next(iter([*content.faults.values()]), "a record could not be read"))
        return content.table

    def refresh(self) -> None:
        """Read what changed at the next :meth:`read`: this process changed something itself."""
        self._content.invalidate()

    def _read(self, content: _Content[M] | None, attempt: Attempt) -> _Content[M]:
        # Reading all records goes on where an attempt before this one broke off.
        content = self._unfinished or content
        while True:
            left = attempt.remaining()
            if left <= 0:
                raise unavailable(f"reading all {self._space} takes too long")
            changes = self._store.changes(self._space, None if content is None else content.cursor, timeout=left)
            if content is None or changes.whole:
                # A new one, while the old one serves the others.
                content = self._unfinished = _Content(self._parse, self._table())
            now = self._clock.monotonic()
            content.apply(changes, now)
            content.expire(now)
            if not changes.more:
                self._unfinished = None
                return content
            attempt.read_on()


class _Content(Generic[M]):
    """The records that one process knows; changed by one thread at a time while others read them."""

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
        # Last: what breaks off before this is read and applied again, which changes nothing.
        self.cursor = changes.cursor

    def expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            # A record that was put again meanwhile has another end.
            if self._until.get(key) == until:
                self._drop(key)

    def _put(self, key: str, record: Record, now: float) -> None:
        try:
            self.table[key] = self._parse(record.value)
            self.faults.pop(key, None)
        except ValueError as error:
            self.faults[key] = str(error) or "a record cannot be read"
        self._until.pop(key, None)
        if record.seconds is not None:
            self._until[key] = until = now + record.seconds
            heapq.heappush(self._ends, (until, key))

    def _drop(self, key: str) -> None:
        self.table.pop(key, None)
        self.faults.pop(key, None)
        self._until.pop(key, None)
