"""Objects that must not be carried over a fork, and calls that the threads of one process share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object that each process creates for itself, when it is first needed.

    A lock that another thread holds during a fork stays locked in the child, and one that was created before gevent
    patched the standard library blocks all greenlets of a worker. What a child inherits is kept and never used: its
    destructor could act on what belongs to the parent.

    :param make: creates the object.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """Return the object of this process."""
        try:
            return self._made[os.getpid()]
        except KeyError:
            # Of two threads that create it at the same time, both get the first one.
            return self._made.setdefault(os.getpid(), self._make())

    def made(self) -> T | None:
        """Return the object of this process, or None if it has not been needed."""
        return self._made.get(os.getpid())

    def inherited(self) -> list[T]:
        """Return the objects of the processes that this one was forked from."""
        pid = os.getpid()
        return [each for owner, each in self._made.items() if owner != pid]


def process_lock() -> PerProcess[threading.Lock]:
    """Return a lock for the threads of each process: ``with lock.get(): ...``."""
    # Looked up when the lock is created: until then gevent may replace it.
    return PerProcess(lambda: threading.Lock())  # noqa: PLW0108


class SingleFlight:
    """One call at a time for each key; callers that come meanwhile wait for its result."""

    def __init__(self) -> None:
        self._flights: dict[tuple[int, Hashable], threading.Event] = {}

    def run(self, key: Hashable, cached: Callable[[], T | None], fetch: Callable[[], T], patience: float) -> T:
        """Return the cached value, or what ``fetch`` returns, which one caller at a time runs.

        Whatever ``fetch`` raises reaches the caller that runs it; of those that waited, the next one runs it again.

        :param cached: returns the value that ``fetch`` left behind, or None.
        :param patience: seconds to wait for one call of another thread.
        :raises TimeoutError: the call of another thread takes longer.
        """
        # The flights of the parent process never land in a child.
        key = (os.getpid(), key)
        while (found := cached()) is None:
            own = threading.Event()
            try:
                current = self._flights.setdefault(key, own)
                if current is own:
                    # Another call may have ended since this caller looked.
                    found = cached()
                    return fetch() if found is None else found
            finally:
                if self._flights.get(key) is own:
                    del self._flights[key]
                    own.set()
            if not current.wait(patience):
                raise TimeoutError("the call of another thread takes too long")
        return found
