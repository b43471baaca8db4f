"""A gunicorn logger that writes lines of JSON; set by :mod:`flask_secure_ml.deploy.gunicorn`."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from flask.logging import default_handler
from gunicorn.glogging import Logger

from ..errors import ConfigError
from ..observe.request_log import JsonFormatter
from ..observe.request_log.streams import StreamSink, standard_stream
from ..principal import SystemClock

_QUERY = re.compile(r"\?\S*")
_QUOTED = re.compile(r"b?['\"].*", re.DOTALL)
_INVALID = "Invalid request from ip="
_FAILED = "Error handling request"
_BROKEN = "Socket error processing request."


class WithoutRequestData(JsonFormatter):
    """Omits parts of requests in messages: all parts of rejected ones, and the query of others."""

    def message(self, record: logging.LogRecord) -> str:
        """Return the message without parts of requests."""
        message = super().message(record)
        if message.startswith(_INVALID):
            return _QUOTED.sub("[withheld]", message)
        return _QUERY.sub("", message) if message.startswith(_FAILED) else message


class UnwaitingHandler(logging.Handler):
    """Writes to a standard stream without blocking; drops and counts messages that are not read.

    Each malformed request causes a message, so otherwise anonymous clients could block all threads while the reader is
    slow.

    :param stream: ``stderr`` or ``stdout``.
    """

    def __init__(self, stream: str) -> None:
        super().__init__()
        self._sink = StreamSink(standard_stream(stream), SystemClock())
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop and count it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - handleError() would wait for the same reader
            self._lost += 1
        else:
            self.print(line, record.name)

    def print(self, line: str, name: str) -> None:
        """Write the number of dropped lines, if any, and a line, or drop and count it.

        :param name: the logger that reports the number.
        """
        try:
            if self._lost:
                self._sink.write(self.format(_dropped(name, self._lost)))
                self._lost = 0
            self._sink.write(line)
        except Exception:  # noqa: BLE001 - as above
            self._lost += 1


class UnwaitingStream:
    """The stream of Flask's handler: the lines are printed by a handler that does not wait."""

    def __init__(self, handler: UnwaitingHandler) -> None:
        self._handler = handler

    def write(self, text: str) -> None:
        """Print one message."""
        self._handler.print(text.removesuffix("\n"), "flask")

    def flush(self) -> None:
        """Do nothing: messages are not buffered."""


def _dropped(name: str, count: int) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, "dropped lines that were not read: %d", (count,), None)


class JsonLogger(Logger):  # type: ignore[misc, unused-ignore]  # gunicorn has no types
    """A gunicorn logger whose error log is lines of JSON, for any destination.

    So are the messages of other loggers that Python and Flask print if the app does not configure logging.
    """

    _is_set_up = False

    def setup(self, cfg: Any) -> None:
        """Set up the logger, also when the configuration is reloaded.

        Requests do not wait for the reader of a standard stream. A formatter from ``--log-config`` or
        ``logconfig_dict`` is kept. A daemon has no standard error, so messages of other loggers go to the error log
        file.
        """
        if cfg.daemon and cfg.errorlog != "-":
            cfg.set("capture_output", True)
        super().setup(cfg)
        if not self._is_set_up:
            # Once, before the app is loaded: it may set a formatter of its own.
            self._is_set_up = True
            _print_others_without_waiting(to_file=cfg.errorlog != "-")
        if cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json:
            return
        for log in (self.error_log, self.access_log):
            log.handlers[:] = map(_unwaiting, log.handlers)
        for handler in self.error_log.handlers:
            handler.setFormatter(WithoutRequestData())

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an error with its traceback, unless a client was too slow."""
        error = sys.exc_info()[1]
        if msg == _BROKEN and isinstance(error, TimeoutError):
            self.debug("A connection was closed after an idle timeout")
        elif isinstance(error, ConfigError):
            # An operator needs the problems, which are at the end of the traceback.
            super().exception("%s: %s", msg, error)
        else:
            super().exception(msg, *args, **kwargs)


def _print_others_without_waiting(*, to_file: bool) -> None:
    """Replace the handlers by which Python and Flask print messages of loggers without one.

    They write to standard error and wait, and clients can cause messages, such as a block of their network.

    :param to_file: gunicorn passes what Flask prints to its error log file.
    """
    others = UnwaitingHandler("stderr")
    others.setLevel(logging.WARNING)
    others.setFormatter(JsonFormatter())
    logging.lastResort = others
    default_handler.setFormatter(JsonFormatter())
    if not to_file:
        default_handler.setStream(UnwaitingStream(others))


def _unwaiting(handler: logging.Handler) -> logging.Handler:
    """Return a non-blocking handler for the same standard stream; other handlers are unchanged."""
    if type(handler) is logging.StreamHandler:
        for name in ("stderr", "stdout"):
            if handler.stream is getattr(sys, name):
                found = UnwaitingHandler(name)
                found.setFormatter(handler.formatter)
                # gunicorn identifies its own handler by this attribute when it reloads.
                setattr(found, "_gunicorn", True)  # noqa: B010
                return found
    return handler
