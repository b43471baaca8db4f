"""Objects that must not be carried over a fork, and calls that the threads of one process share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object that each process creates for itself on first use.

    A lock that another thread holds during a fork stays locked in the child, and one that was created before gevent
    patched the standard library blocks all greenlets of a worker. Inherited objects are kept but never used, because
    their destructors could affect resources of the parent.

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
            # If two threads create it at the same time, both get the first one.
            return self._made.setdefault(os.getpid(), self._make())

    def made(self) -> T | None:
        """Return the object of this process, or None if it has not been created."""
        return self._made.get(os.getpid())

    def inherited(self) -> list[T]:
        """Return the objects of the processes from which this one was forked."""
        pid = os.getpid()
        return [each for owner, each in self._made.items() if owner != pid]


def process_lock() -> PerProcess[threading.Lock]:
    """Return a lock for the threads of each process: ``with lock.get(): ...``."""
    # Looked up when the lock is created, because gevent may replace the class until then.
    return PerProcess(lambda: threading.Lock())  # noqa: PLW0108


class SingleFlight:
    """One call at a time for each key; concurrent callers wait for its result."""

    def __init__(self) -> None:
        self._flights: dict[tuple[int, Hashable], threading.Event] = {}

    def run(self, key: Hashable, cached: Callable[[], T | None], fetch: Callable[[], T], patience: float) -> T:
        """Return the cached value, or the result of ``fetch``, which one caller at a time runs.

        An exception of ``fetch`` propagates to the caller that runs it; the next waiting caller then runs it again.

        :param cached: returns the value that ``fetch`` has cached, or None.
        :param patience: seconds to wait for one call of another thread.
        :raises TimeoutError: the call of another thread takes longer.
        """
        # Flights of the parent process never end in a child.
        key = (os.getpid(), key)
        while (found := cached()) is None:
            own = threading.Event()
            try:
                current = self._flights.setdefault(key, own)
                if current is own:
                    # Another call may have ended since the last check.
                    found = cached()
                    return fetch() if found is None else found
            finally:
                if self._flights.get(key) is own:
                    del self._flights[key]
                    own.set()
            if not current.wait(patience):
                raise TimeoutError("timed out waiting for the call of another thread")
        return found
