"""The sink for ``SECURE_ML_REQUEST_LOG="logging:NAME"``: a bounded queue and a thread that calls the handlers."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

from ...principal import Clock
from ...refresh import process_lock
from .drops import Drops
from .lines import IS_LINE

LONGEST_QUEUE = 10_000
"""Maximum length of the queue; further lines are dropped."""

PATIENCE = 2.0
"""Seconds to wait for the handlers at process exit."""

PAUSE = 5.0
"""Seconds to pause after a handler has failed, because :mod:`logging` prints a traceback for each failure."""


class LoggingSink:
    """Passes lines to a logger at the level ``INFO``.

    The thread starts in each process with its first line, which is after a fork and after gevent has patched the
    standard library, which makes it a greenlet.

    :param name: the name of the logger.
    :param count: called for each line that a handler does not accept.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        count: Callable[[], object] | None = None,
        *,
        longest: int = LONGEST_QUEUE,
        patience: float = PATIENCE,
    ) -> None:
        self._logger = logging.getLogger(name)
        self._clock = clock
        self._drops = Drops(clock.monotonic, count)
        self._longest = longest
        self._patience = patience
        self._lock = process_lock()
        self._workers: dict[int, _Worker] = {}

    def write(self, line: str) -> None:
        """Add one line to the queue.

        :raises OSError: the queue is full.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        if worker.lines.qsize() >= self._longest:
            raise BlockingIOError(0, "the logging handlers are too slow")
        worker.lines.put(line)

    def _start(self) -> _Worker:
        with self._lock.get():
            worker = self._workers.get(os.getpid())
            if worker is None:
                worker = self._workers[os.getpid()] = _Worker(self._logger, self._clock, self._drops, self._patience)
            return worker


class _Worker:
    """The queue and the thread of one process."""

    def __init__(self, logger: logging.Logger, clock: Clock, drops: Drops, patience: float) -> None:
        # Looked up when it is created, because gevent may replace it until then.
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._logger = logger
        self._monotonic = clock.monotonic
        self._drops = drops
        self._patience = patience
        self._process = os.getpid()
        self._failed: float | None = None
        self._thread = threading.Thread(target=self._run, name="secure-ml-request-log", daemon=True)
        self._thread.start()
        atexit.register(self._drain)

    def _run(self) -> None:
        while (line := self.lines.get()) is not None:
            try:
                self._pass_on(line)
            except Exception as error:  # noqa: BLE001 - a handler or filter of the user
                self._failed = self._monotonic()
                self._drops.failed(error)
            else:
                if self._drops.failing:
                    self._drops.succeeded()

    def _pass_on(self, line: str) -> None:
        """Call the handlers.

        :raises Exception: a handler failed, or none accepts the line.
        """
        if self._failed is not None and 0 <= self._monotonic() - self._failed < PAUSE:
            raise _NotTakenError("a handler failed a moment ago")
        self._failed = None
        if not self._logger.isEnabledFor(logging.INFO) or not self._logger.hasHandlers():
            raise _NotTakenError(f"the logger {self._logger.name!r} has no handler for INFO")
        message = _Message(line)
        record = logging.LogRecord(self._logger.name, logging.INFO, "", 0, message, None, None)
        setattr(record, IS_LINE, True)
        self._logger.handle(record)
        if message.failure is not None:
            raise message.failure

    def _drain(self) -> None:
        """Wait for the handlers at process exit, for at most two seconds."""
        if os.getpid() != self._process:
            return
        self.lines.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            # logging.shutdown() would wait indefinitely for the lock of a blocked handler.
            atexit.unregister(logging.shutdown)
            _flush_others()


class _NotTakenError(OSError):
    """No handler accepted the line."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text)


class _Message(str):
    """A line that records the failure of a handler.

    :meth:`logging.Handler.handleError` swallows the exception, and prints the representation of the message.
    """

    __slots__ = ("failure",)
    failure: BaseException | None

    def __new__(cls, line: str) -> Self:
        made = super().__new__(cls, line)
        made.failure = None
        return made

    def __repr__(self) -> str:
        self.failure = sys.exception()
        return super().__repr__()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def _flush_others() -> None:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in {each for logger in loggers for each in getattr(logger, "handlers", ())}:
        lock = handler.lock
        if lock is None or not lock.acquire(timeout=0.1):
            continue
        try:
            handler.flush()
        except Exception:  # noqa: BLE001, S112 - as logging.shutdown() does
            continue
        finally:
            lock.release()
