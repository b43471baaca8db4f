"""A cached value that one caller refreshes while the others use the last valid one.

This module decides which caller fetches, which ones wait and how long, and what is returned while the source is down.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from ..errors import DependencyUnavailable
from .breaker import JITTER, Monotonic, Outage
from .process import process_lock

T = TypeVar("T")

_ROUNDS = 3


class Attempt:
    """One fetch in progress: its time limit, and the time from which the age of its result is measured.

    :param timeout: seconds for one read.
    :param total: seconds for all reads.
    :param patience: seconds for which other callers wait for one read.
    """

    def __init__(self, clock: Monotonic, timeout: float, total: float, patience: float, generation: object) -> None:
        self.generation = generation
        # Created for each attempt, so that it belongs to this process, and to its greenlets under gevent.
        self.landed: threading.Event = threading.Event()
        self.pid: int = os.getpid()
        self.reads: int = 1
        self._clock = clock
        self._timeout = timeout
        self._patience = patience
        self.as_of: float = clock.monotonic()
        self._ends = self.as_of + total

    def remaining(self) -> float:
        """Return the seconds that the current read may still take; 0 if it has timed out."""
        return max(0.0, min(self.as_of + self._timeout, self._ends) - self._clock.monotonic())

    def read_on(self) -> None:
        """Begin another read for a value that needs several; its age is measured from now."""
        self.as_of = self._clock.monotonic()
        self.reads += 1

    def wait(self) -> bool:
        """Wait until the fetch ends; return False if one of its reads takes too long."""
        while True:
            reads, left = self.reads, self.as_of + self._patience - self._clock.monotonic()
            if self.landed.wait(max(0.0, min(left, self._patience))):
                return True
            if reads == self.reads:
                return False


Fetch = Callable[[T | None, Attempt], T]
"""Returns the value, given the last valid one (None at first), within :meth:`Attempt.remaining` seconds."""


class _Good(NamedTuple, Generic[T]):
    value: T
    as_of: float
    due: float
    generation: object


class Refreshed(Generic[T]):
    """A value with a bounded age: :meth:`get` returns it, and refreshes it when it is due.

    A value that is older than ``promised`` is returned only while the source is down: if a fetch failed a moment ago or
    does not end in time. ``fetch`` runs in the thread of one of the callers, never twice at the same time in a process,
    and must observe :meth:`Attempt.remaining` itself, because it cannot be interrupted. The age of its result is
    measured from its start. It may update the object that it was given in place and return it.

    :param name: the name of the value in the log, in the plural.
    :param fresh: seconds for which the value is returned without calling the source.
    :param timeout: seconds for a fetch.
    :param promised: the maximum age of a returned value in seconds while the source works.
    :param keep: seconds for which the last valid value is returned while the source is down.
    :param pause: seconds for which a failed source is not called, plus or minus 20 %.
    :param total: seconds for a fetch of several reads (:meth:`Attempt.read_on`), each of which has ``timeout``.
    :param errors: the errors that ``fetch`` raises if the source fails. Others propagate to the caller that fetched.
    :param reported: those of ``errors`` that the source logs itself.
    :param unavailable: returns the error to raise if there is no value, given a private reason.
    :param uniform: returns a random number between two others.
    :raises ValueError: ``promised`` cannot be kept with these durations.
    """

    def __init__(
        self,
        fetch: Fetch[T],
        clock: Monotonic,
        *,
        name: str,
        fresh: float,
        timeout: float,
        promised: float,
        keep: float,
        pause: float,
        total: float | None = None,
        errors: tuple[type[Exception], ...] = (DependencyUnavailable,),
        reported: tuple[type[Exception], ...] = (),
        unavailable: Callable[[str], Exception] = DependencyUnavailable,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._total = timeout if total is None else total
        if not (min(fresh, timeout, pause) > 0 and fresh + timeout < promised <= keep and timeout <= self._total):
            raise ValueError("durations must be positive, fresh + timeout < promised <= keep, and timeout <= total")
        self._fetch = fetch
        self._clock = clock
        self._name = name
        self._fresh = fresh
        self._timeout = timeout
        self._promised = promised
        self._keep = keep
        self._pause = pause
        self._errors = errors
        self._reported = reported
        self._unavailable = unavailable
        self._uniform = uniform
        self._good: _Good[T] | None = None
        self._generation = object()
        self._paused = (0.0, 0.0)
        self._attempt: Attempt | None = None
        self._lock = process_lock()
        self._outage = Outage(f"{name} are not up to date", f"{name} are up to date again", clock.monotonic)

    def get(self, max_age: float | None = None) -> T:
        """Return the value: the cached one while it is fresh, or else the most current one available.

        :param max_age: seconds for which the value is fresh for this caller, if less than ``fresh``.
        :raises Exception: the error of ``unavailable``: the source is down, and the last valid value is too old.
        """
        if max_age is not None:
            return self._current(min(max_age, self._fresh))
        good = self._good
        if (
            good is not None
            and good.as_of <= self._clock.monotonic() < good.due
            and good.generation is self._generation
        ):
            return good.value
        return self._current(self._fresh)

    def poll(self, max_age: float) -> None:
        """Refresh the value if it is older than ``max_age`` seconds.

        This never waits for other callers, and never raises.
        """
        good, paused = self._good, self._paused
        if good is not None and self._within(good, max_age):
            return
        if not paused[0] <= self._clock.monotonic() < paused[1]:
            # On an unexpected error, the next get() raises it to a caller that needs the value.
            with suppress(Exception):
                self._fetch_or_join(good, paused)

    def invalidate(self) -> None:
        """Make the next :meth:`get` of any caller fetch the value again, because this process changed it."""
        self._generation = object()
        # This process has just reached the source, so it is not paused.
        self._paused = (0.0, 0.0)

    def _current(self, fresh: float) -> T:
        for _ in range(_ROUNDS):
            seen, paused = self._good, self._paused
            if seen is not None and self._within(seen, fresh):
                return seen.value
            if paused[0] <= self._clock.monotonic() < paused[1]:
                return self._kept()
            other = self._fetch_or_join(seen, paused)
            good = self._good
            if good is not None and self._within(good, self._promised):
                return good.value
            if other is not None and not other.wait():
                # No caller waits for this attempt again.
                self._outage.failed("the source does not respond in time")
                return self._kept()
        return self._kept()

    def _within(self, good: _Good[T], seconds: float) -> bool:
        # If the age is negative, the clock was set back, and the age is unknown.
        return 0 <= self._clock.monotonic() - good.as_of < seconds and good.generation is self._generation

    def _kept(self) -> T:
        """Return the last valid value although the source is down."""
        good = self._good
        if good is not None and 0 <= self._clock.monotonic() - good.as_of < self._keep:
            return good.value
        raise self._unavailable(f"no current {self._name}: the source is down")

    def _fetch_or_join(self, seen: _Good[T] | None, paused: tuple[float, float]) -> Attempt | None:
        """Fetch, unless another caller does so or just has; return the attempt of the other caller, or None."""
        patience = self._promised - self._fresh
        attempt = Attempt(self._clock, self._timeout, self._total, patience, self._generation)
        try:
            other = self._take_off(attempt, seen, paused)
            if self._attempt is attempt:
                self._run(attempt)
            return other
        finally:
            # After any error, because other callers would wait for an attempt that never ends.
            self._land(attempt)

    def _take_off(self, attempt: Attempt, seen: _Good[T] | None, paused: tuple[float, float]) -> Attempt | None:
        with self._lock.get():
            other = self._attempt
            # After a fork, the caller of an attempt is in another process.
            if other is not None and other.pid == attempt.pid:
                return other
            if self._good is seen and self._paused is paused:
                self._attempt = attempt
            return None

    def _land(self, attempt: Attempt) -> None:
        if self._attempt is attempt:
            with self._lock.get():
                self._attempt = None
            attempt.landed.set()

    def _run(self, attempt: Attempt) -> None:
        good = self._good
        try:
            value = self._fetch(None if good is None else good.value, attempt)
        except self._errors as error:
            now = self._clock.monotonic()
            self._paused = (now, now + self._pause * self._uniform(1 - JITTER, 1 + JITTER))
            if not isinstance(error, self._reported):
                self._outage.failed(getattr(error, "reason", None) or str(error) or type(error).__name__)
        else:
            self._good = _Good(value, attempt.as_of, attempt.as_of + self._fresh, attempt.generation)
            self._outage.ended()
