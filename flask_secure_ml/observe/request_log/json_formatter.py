"""A :mod:`logging` formatter for lines in the format of the request log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from ...exchange import exchange_or_none
from .entry import clean
from .lines import IS_LINE, MEMBERS, line_ending_with, line_of

_MESSAGE = 1_500


class JsonFormatter(logging.Formatter):
    """Formats a message as one line of JSON in ASCII, with credentials redacted.

    The members are ``time``, ``level``, ``logger``, ``process.pid`` and ``message``; within a request ``request_id``
    and ``trace_id``; with an exception ``exception.type`` and ``exception.stacktrace`` (as much of its end as fits
    into the line), as OpenTelemetry names them. A line of the request log is not changed.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break."""
        message = self.message(record)
        if getattr(record, IS_LINE, False):
            return message
        logged: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process.pid": record.process,
            "message": clean(message, _MESSAGE),
        }
        exchange = exchange_or_none()
        if exchange is not None:
            logged["request_id"] = exchange.request_id
            if exchange.trace_id:
                logged["trace_id"] = exchange.trace_id
        logged.update(getattr(record, MEMBERS, {}))
        if record.exc_info and record.exc_info[0] is not None:
            logged["exception.type"] = record.exc_info[0].__name__
            trace = clean(self.formatException(record.exc_info), 1 << 20)
            return line_ending_with(logged, "exception.stacktrace", trace)
        return line_of(logged)

    def message(self, record: logging.LogRecord) -> str:
        """Return the message of a record; subclasses may omit parts of it."""
        return record.getMessage()
