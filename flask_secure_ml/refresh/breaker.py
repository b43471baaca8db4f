"""A circuit breaker, and a log of outages with one line for the beginning and one for the end."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from .process import process_lock

log: logging.Logger = logging.getLogger(__name__)

JITTER = 0.2
"""The fraction by which pauses vary, so that workers do not call a source again at the same time."""

QUIET = 60.0
"""The minimum of seconds between two logged outages, so that a flapping source does not fill the log."""


Changed = Callable[[bool, str], object]
"""Called with whether a source is up, and with a line that describes it."""


class Monotonic(Protocol):
    """A clock that measures ages."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes backwards."""


def failure_reason(error: BaseException) -> str:
    """Return the reason of a system error, or the type of any other, whose message may contain data."""
    return getattr(error, "strerror", None) or type(error).__name__


class Outage:
    """Logs the beginning and the end of an outage, once each.

    :param began: the line for the beginning; the reason is appended.
    :param ended: the line for the end.
    :param monotonic: returns the seconds of a clock that never goes backwards.
    :param changed: called with each line: with False at the beginning, and with True at the end.
    """

    def __init__(
        self,
        began: str,
        ended: str,
        monotonic: Callable[[], float] = time.monotonic,
        changed: Changed = lambda _up, _line: None,
    ) -> None:
        self._began = began
        self._ended = ended
        self._monotonic = monotonic
        self._changed = changed
        self._logged = False
        self._last: float | None = None

    def failed(self, reason: str) -> None:
        """Log the beginning, unless it is already logged or another outage began less than a minute ago."""
        if self._logged:
            return
        now = self._monotonic()
        if self._last is None or not 0 <= now - self._last < QUIET:
            self._logged, self._last = True, now
            log.error("%s: %s", self._began, reason)
            self._changed(False, f"{self._began}: {reason}")

    def ended(self) -> None:
        """Log the end of an outage whose beginning is logged."""
        if self._logged:
            self._logged = False
            log.warning("%s", self._ended)
            self._changed(True, self._ended)


class Breaker:
    """Prevents the callers in a process from waiting for a source that failed a moment ago.

    After the pause one caller tries; until it reports the outcome, the others get the next pause.

    :param clock: measures the pauses.
    :param pause: seconds for which a failed source is not called, plus or minus 20 %.
    :param outage: logs when the source goes down and when it is up again.
    :param doubts: the number of consecutive doubtful outcomes that count as a failure.
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
        # The beginning and the end of the last pause; None while the source works.
        self._paused: tuple[float, float] | None = None
        self._doubts = 0

    def wait(self) -> float:
        """Return 0 if the caller may call the source, or else the seconds until one may."""
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
        """Count an outcome that may affect only one call; ``doubts`` of them in a row are a failure."""
        with self._lock.get():
            self._doubts += 1
            down = self._doubts >= self._tolerated
        if down:
            self.failed(reason)

    def _pause_from(self, now: float) -> tuple[float, float]:
        return now, now + self._pause * self._uniform(1 - JITTER, 1 + JITTER)
