"""The request log: one line of JSON for each request, without secrets and without the payload."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
import weakref
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import IO, Any, Protocol

from werkzeug.exceptions import HTTPException

from ..errors import own_text
from ..exchange import Exchange
from ..principal import Clock
from ..refresh import process_lock

_CREDENTIAL = re.compile(r"(sml_|eyJ)[A-Za-z0-9_.\-]+")
_LONGEST = 256
_POLL_SECONDS = 1.0
_ERRORS = 400


class Sink(Protocol):
    """Where the lines of the log go."""

    def write(self, line: str) -> None:
        """Write one line, which has no line break at its end."""


class HandlerSink:
    """Writes to the stream of a :mod:`logging` handler; a rotated file is opened again within a second.

    No log record is created: its line number, thread and process would cost more than the line itself.
    """

    def __init__(self, handler: logging.StreamHandler[Any], clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self._polled = -math.inf
        self._lock = process_lock()
        weakref.finalize(self, handler.close)

    def write(self, line: str) -> None:
        """Write one line.

        :raises OSError: the disk is full, or the stream is closed at its other end.
        """
        with self._lock.get():
            self._follow_rotation()
            _write(self._handler.stream, line + "\n")

    def _follow_rotation(self) -> None:
        # Polling for every line would cost more than the line; a second costs a few lines in the older file.
        now = self._clock.monotonic()
        if isinstance(self._handler, WatchedFileHandler) and now - self._polled >= _POLL_SECONDS:
            self._polled = now
            self._handler.reopenIfNeeded()


def _write(stream: IO[str], line: str) -> None:
    """Write a line past the buffer of the stream.

    The buffer has a lock of its own, which a forked process could inherit locked, and keeps a line that cannot be
    written, to write it later or twice.
    """
    try:
        descriptor = stream.fileno()
    except OSError:
        # Not a file: a stream in memory, such as tests put in place of stderr.
        stream.write(line)
        stream.flush()
        return
    left = memoryview(line.encode())
    while left:
        left = left[os.write(descriptor, left) :]


class _PrivateFileHandler(WatchedFileHandler):
    """A handler for a log file that only its owner and group can read."""

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class RequestLog:
    """Writes a line for each exchange."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def record(self, exchange: Exchange) -> None:
        """Write the line, in ASCII, so that no control or direction character reaches a terminal."""
        self._sink.write(json.dumps(entry(exchange)))

    def record_stream_end(self, exchange: Exchange) -> None:
        """Write a second line for a stream, with the reason if it ended too early."""
        logged = {"event": "stream_end"} | entry(exchange)
        if exchange.stream_error is not None:
            logged["reason"] = exchange.stream_error
        self._sink.write(json.dumps(logged))


def open_sink(where: str, clock: Clock) -> Sink | None:
    """Return the sink for a value of ``SECURE_ML_REQUEST_LOG``; None for ``off``.

    :raises OSError: the file cannot be opened.
    """
    if where == "off":
        return None
    if where in {"stderr", "stdout"}:
        return HandlerSink(logging.StreamHandler(sys.stderr if where == "stderr" else sys.stdout), clock)
    return HandlerSink(_PrivateFileHandler(where), clock)


def entry(exchange: Exchange) -> dict[str, Any]:
    """Return the members of the log line of an exchange."""
    rejection = exchange.rejection
    logged: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.time, UTC).isoformat(timespec="milliseconds"),
        "request_id": exchange.request_id,
        "client": exchange.client,
        "principal": exchange.principal.id if exchange.principal else None,
        "method": clean(exchange.method),
        "endpoint": exchange.endpoint,
        "status": exchange.status,
        "code": exchange.code,
        "reason": clean(rejection.reason) if rejection else _reason(exchange),
        "ms": round(exchange.milliseconds, 3),
        "bytes_in": exchange.received_bytes,
    }
    if exchange.out_of_range:
        logged["out_of_range"] = exchange.out_of_range
    if exchange.endpoint is None:
        logged["path"] = clean(exchange.path)
    return logged


def _reason(exchange: Exchange) -> str | None:
    """Return what the app raised, whether one of its handlers responded to it or not; None if that is no error."""
    error = exchange.fault or exchange.handled
    if error is None or (exchange.fault is None and exchange.status < _ERRORS):
        return None
    name = type(error).__name__
    if isinstance(error, HTTPException) and error.code == exchange.status:
        text = own_text(error) or _message(error)
        return name if text is None else clean(f"{name}: {text}")
    # The message of any other exception may quote the payload, so only its type is logged.
    return name if exchange.fault is None else f"unhandled {name}"


def _message(error: HTTPException) -> str | None:
    # Where flask-smorest and flask-restx keep the keyword of their abort().
    data = getattr(error, "data", None)
    message = data.get("message") if isinstance(data, dict) else None
    return message if isinstance(message, str) else None


def clean(value: str) -> str:
    """Return a string of the client with its credentials redacted, cut to 256 characters."""
    return _CREDENTIAL.sub("[redacted]", value[: 4 * _LONGEST])[:_LONGEST]
