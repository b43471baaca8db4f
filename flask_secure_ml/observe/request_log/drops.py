"""Lines that were dropped: counted, and reported when it begins and when it ends."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable

from ...refresh import process_lock

log: logging.Logger = logging.getLogger(__name__)

QUIET = 60.0
"""The fewest seconds between two reports of a beginning, so that a slow reader does not fill another log."""


class Drops:
    """Counts dropped lines, with one message when it begins and one when it ends.

    :param monotonic: returns seconds that never run backwards.
    :param count: called for each line, by the metrics.
    """

    def __init__(self, monotonic: Callable[[], float], count: Callable[[], object] | None = None) -> None:
        self.total: int = 0
        self.failing: bool = False
        """Whether a beginning was noted whose end is not reported."""
        self._monotonic = monotonic
        self._count = count
        self._since = 0
        self._last: float | None = None
        self._unreported = ""
        self._lock = process_lock()

    def failed(self, error: BaseException) -> None:
        """Count one line, and report the beginning unless another one was less than a minute ago."""
        with self._lock.get():
            self.total += 1
            self._since += 1
            if not self.failing:
                now = self._monotonic()
                if self._last is None or not 0 <= now - self._last < QUIET:
                    self.failing, self._last = True, now
                    self._unreported = _describe(error)
            reason = self._unreported
            begins = bool(reason) and can_log(log)
            if begins:
                self._unreported = ""
        if self._count is not None:
            self._count()
        if begins:
            log.error("the request log drops lines: %s", reason)

    def succeeded(self) -> None:
        """Report the end: a line was written."""
        with self._lock.get():
            if not self.failing or not can_log(log):
                return
            self.failing, self._unreported = False, ""
            lost, self._since = self._since, 0
        log.warning("the request log is written again; lines dropped: %d", lost)


def can_log(logger: logging.Logger) -> bool:
    """Return False if a message of a logger would wait for the reader of a stream.

    That stream is often the one that the request log could not be written to.
    """
    current: logging.Logger | None = logger
    handlers: list[logging.Handler] = []
    while current is not None:
        handlers += current.handlers
        current = current.parent if current.propagate else None
    if not handlers and logging.lastResort is not None:
        handlers = [logging.lastResort]
    return all(_is_ready(handler) for handler in handlers)


def _is_ready(handler: logging.Handler) -> bool:
    try:
        descriptor = handler.stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return True  # no stream, or none that could make anyone wait
    return is_writable(descriptor)


def is_writable(descriptor: int) -> bool:
    """Return True if a write to a descriptor would not wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _describe(error: BaseException) -> str:
    # The message of any other exception may quote the line.
    text = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
