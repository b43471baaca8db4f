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
"""Seconds between two reads of changes."""

TIMEOUT = 0.25
"""Seconds for one read."""

PROMISED = 1.0
"""Seconds after which a change takes effect in every process, if the store responds."""

KEEP = 60.0
"""Seconds for which the last content is used while the store does not respond and may have changes."""

PAUSE = 0.4
"""Seconds for which a failed store is not called."""

TOTAL = 10.0
"""Seconds for reading all records in pages, in a process that starts or missed too many changes."""

POLLED = 20.0
"""Seconds after which any request reads changes, so that a process without credentials to check stays up to date."""


class Snapshot(Generic[M]):
    """The parsed records of one space, updated with the changes in the store.

    :param parse: returns the value for the bytes of a record; raises ValueError to reject them.
    :param table: returns an empty mapping for the values; setting a value may raise ValueError too.
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
            unavailable=lambda _: unavailable(f"the store does not respond, so its {_words(space)} are unknown"),
        )

    def read(self) -> M:
        """Return the records by key, in a mapping that is updated with them.

        :raises DependencyUnavailable: the store has not responded for a minute, or never.
        :raises ValueError: a record cannot be parsed, so the content is incomplete.
        """
        content = self._content.get()
        if content.faults:
            # A copy, because another thread may change them.
            raise ValueError(next(iter([*content.faults.values()]), "a record could not be parsed"))
        return content.table

    def invalidate(self) -> None:
        """Read changes at the next :meth:`read`, because this process made some itself."""
        self._content.invalidate()

    def poll(self) -> None:
        """Read changes if they are due; never wait for other threads, and never raise.

        It is called for every request, so that a worker without credentials to check is as prepared for an outage as
        others.
        """
        self._content.poll(POLLED)

    def _read(self, content: _Content[M] | None, attempt: Attempt) -> _Content[M]:
        # Continue reading all records where an earlier attempt stopped.
        content = self._unfinished or content
        while True:
            left = attempt.remaining()
            if left <= 0:
                raise DependencyUnavailable(f"reading all {_words(self._space)} takes too long")
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


def _words(space: str) -> str:
    return space.replace("-", " ")


class _Content(Generic[M]):
    """The records in one process; one thread at a time changes them while others read them."""

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
        # Last: changes that were interrupted before this are read and applied again, which is idempotent.
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
