"""A circuit breaker, and a log that has one line when something goes down and one when it is back."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from .process import process_lock

log: logging.Logger = logging.getLogger(__name__)

JITTER = 0.2
"""The share by which a pause varies, so that workers do not return to a source in step."""

QUIET = 60.0
"""The fewest seconds between two reported beginnings of outages, so that a flapping source does not fill the log."""


class Monotonic(Protocol):
    """A clock that measures ages."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class Outage:
    """Logs the beginning and the end of an outage, however often it is reported in between.

    :param began: the line for the beginning; the reason follows it.
    :param ended: the line for the end.
    :param monotonic: returns seconds that never run backwards.
    """

    def __init__(self, began: str, ended: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._began = began
        self._ended = ended
        self._monotonic = monotonic
        self._logged = False
        self._last: float | None = None

    def failed(self, reason: str) -> None:
        """Log the beginning, unless it is logged already or another outage began less than a minute ago."""
        if self._logged:
            return
        now = self._monotonic()
        if self._last is None or not 0 <= now - self._last < QUIET:
            self._logged, self._last = True, now
            log.error("%s: %s", self._began, reason)

    def ended(self) -> None:
        """Log the end of an outage whose beginning is logged."""
        if self._logged:
            self._logged = False
            log.warning("%s", self._ended)


class Breaker:
    """Keeps the callers of a process from waiting for a source that failed a moment ago.

    After the pause one caller tries; until it reports the outcome, the others get the next pause.

    :param clock: measures the pauses.
    :param pause: seconds for which a source that failed is not called, give or take a fifth.
    :param outage: logs when the source goes down and when it is back.
    :param doubts: how many doubtful outcomes in a row count as a failure.
    :param uniform: returns a random number between two others.
    """

    def __init__(
        self,
        clock: Monotonic,
        *,
        pause: float,
        outage: Outage,
        doubts: int = 1,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._outage = outage
        self._tolerated = doubts
        self._uniform = uniform
        self._lock = process_lock()
        # When the last pause began and when it ends; None while the source works.
        self._paused: tuple[float, float] | None = None
        self._doubts = 0

    def wait(self) -> float:
        """Return 0 if the caller may call the source, otherwise the seconds until one may."""
        paused = self._paused
        if paused is None:
            return 0.0
        with self._lock.get():
            now, paused = self._clock.monotonic(), self._paused
            if paused is None:
                return 0.0
            if paused[0] <= now < paused[1]:
                return paused[1] - now
            self._paused = self._pause_from(now)
            return 0.0

    def succeeded(self) -> None:
        """End the pause: the source works."""
        if self._paused is None and not self._doubts:
            return
        with self._lock.get():
            self._paused, self._doubts = None, 0
        self._outage.ended()

    def failed(self, reason: str) -> None:
        """Begin a pause: the source is down."""
        with self._lock.get():
            self._paused = self._pause_from(self._clock.monotonic())
        self._outage.failed(reason)

    def doubted(self, reason: str) -> None:
        """Count an outcome that may concern one call only; so many in a row are a failure."""
        with self._lock.get():
            self._doubts += 1
            down = self._doubts >= self._tolerated
        if down:
            self.failed(reason)

    def _pause_from(self, now: float) -> tuple[float, float]:
        return now, now + self._pause * self._uniform(1 - JITTER, 1 + JITTER)
