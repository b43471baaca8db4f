"""Counts dropped lines, and reports the start and end of an outage."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable

from ...refresh import process_lock

log: logging.Logger = logging.getLogger(__name__)

QUIET = 60.0
"""Minimum number of seconds between two error messages, so that a slow reader does not flood another log."""


class Drops:
    """Counts dropped lines, and logs one message at the start and one at the end.

    :param monotonic: returns monotonic time in seconds.
    :param count: called for each dropped line.
    """

    def __init__(self, monotonic: Callable[[], float], count: Callable[[], object] | None = None) -> None:
        self.total: int = 0
        self.failing: bool = False
        """Whether an outage was reported but not its end."""
        self._monotonic = monotonic
        self._count = count
        self._since = 0
        self._last: float | None = None
        self._unreported = ""
        self._lock = process_lock()

    def failed(self, error: BaseException) -> None:
        """Count a line, and report the outage unless one was reported less than a minute ago."""
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
            log.error("the request log is dropping lines: %s", reason)

    def succeeded(self) -> None:
        """Report the end of an outage after a line was written."""
        with self._lock.get():
            if not self.failing or not can_log(log):
                return
            self.failing, self._unreported = False, ""
            lost, self._since = self._since, 0
        log.warning("the request log works again; dropped lines: %d", lost)


def can_log(logger: logging.Logger) -> bool:
    """Return False if logging a message would block on the reader of a stream.

    That stream is often the one that the request log failed to write to.
    """
    handlers = handlers_of(logger)
    if not handlers and logging.lastResort is not None:
        handlers = [logging.lastResort]
    return all(_is_ready(handler) for handler in handlers)


def handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that receive the messages of a logger, its own first."""
    current: logging.Logger | None = logger
    handlers: list[logging.Handler] = []
    while current is not None:
        handlers += current.handlers
        current = current.parent if current.propagate else None
    return handlers


def _is_ready(handler: logging.Handler) -> bool:
    try:
        descriptor = handler.stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return True  # no stream, or one that cannot block
    return is_writable(descriptor)


def is_writable(descriptor: int) -> bool:
    """Return True if a write to a descriptor would not block."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _describe(error: BaseException) -> str:
    # The message of any other exception may contain the line.
    text = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
