"""All records of a space in memory, so that a request pays nothing for a store on another machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Generic, TypeVar

from ..errors import DependencyUnavailable
from ..exchange import Clock
from .base import SharedStore, unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL = 0.5
"""Seconds between two looks at the version: a change holds in every process within a second."""

STALE = 60.0
"""Seconds for which the last content serves while the store does not answer; it could know of a change."""


class Snapshot(Generic[T]):
    """The parsed records of one space, loaded again when their version has changed.

    One thread of the process asks; the others go on with what there is, and wait only for the first content. A record
    whose time is over may stay until something else changes.

    :param parse: makes a value from the bytes of a record; raises ValueError for bytes that it refuses.
    :param poll: seconds between two looks.
    :param stale: seconds for which old content serves while the store is down.
    """

    def __init__(
        self,
        store: SharedStore,
        space: str,
        parse: Callable[[bytes], T],
        clock: Clock,
        *,
        poll: float = POLL,
        stale: float = STALE,
    ) -> None:
        self._store = store
        self._space = space
        self._parse = parse
        self._clock = clock
        self._poll = poll
        self._stale = stale
        self._lock = Lock()
        self._content: Mapping[str, T] | None = None
        self._version: int | None = None
        self._fault = ""
        self._down = False
        self._checked = self._due = -math.inf

    def read(self) -> Mapping[str, T]:
        """Return the records by key: the same object until they change.

        :raises DependencyUnavailable: the store has not answered for ``stale`` seconds, or never.
        :raises ValueError: a record cannot be read; what the others would say is then not known.
        """
        now = self._clock.monotonic()
        if now >= self._due and self._lock.acquire(blocking=self._content is None or self._is_stale(now)):
            try:
                self._look(now)
            finally:
                self._lock.release()
        if self._fault:
            raise ValueError(self._fault)
        if self._content is None or self._is_stale(now):
            raise unavailable(f"the store has not answered about {self._space}")
        return self._content

    def _is_stale(self, now: float) -> bool:
        """Tell whether the last answer is too old: after a quiet time too, and then every thread waits for the next."""
        return now >= self._checked + self._stale

    def refresh(self) -> None:
        """Look at the version at the next :meth:`read`: this process changed something itself."""
        self._due = -math.inf

    def _look(self, now: float) -> None:
        if now < self._due:
            return
        try:
            self._load_if_changed()
            self._checked = now
            self._tell(down=False)
        except DependencyUnavailable as error:
            self._tell(down=True, why=error.reason)
        finally:
            # Last: a thread that has no content yet waits for this one until then.
            self._due = now + self._poll

    def _load_if_changed(self) -> None:
        # The version first: a change that comes between the two is found at the next look.
        version = self._store.version(self._space)
        if version == self._version:
            return
        try:
            self._content = {key: self._parse(raw) for key, raw in self._store.items(self._space).items()}
            self._fault = ""
        except ValueError as error:
            self._fault = str(error) or "a record cannot be read"
        self._version = version

    def _tell(self, *, down: bool, why: str = "") -> None:
        """Log the beginning and the end of an outage, not every look in between."""
        if down and not self._down:
            log.error("%s are not up to date: %s", self._space, why)
        if self._down and not down:
            log.warning("%s are up to date again", self._space)
        self._down = down
