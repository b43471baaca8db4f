"""The request log: one line of JSON for each request, without a secret and without the payload."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
import threading
import weakref
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any, Protocol

from ..exchange import Exchange
from ..principal import Clock

_CREDENTIAL = re.compile(r"(sml_|eyJ)[A-Za-z0-9_.\-]+")
_LONGEST = 256
_LOOK_SECONDS = 1.0


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: str) -> None:
        """Write one line; the line has no line break of its own."""


class HandlerSink:
    """Writes to the stream of a standard handler, under its lock; a rotated file is opened anew within a second.

    A log record is not made: its line number, thread and process would cost more than the line itself.
    """

    def __init__(self, handler: logging.StreamHandler[Any], clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self._looked = -math.inf
        self._lock = threading.Lock()
        weakref.finalize(self, handler.close)

    def write(self, line: str) -> None:
        """Write one line.

        :raises OSError: the disk is full, or the reader of the stream is gone.
        """
        with self._lock:
            self._follow_rotation()
            self._handler.stream.write(line + "\n")
            self._handler.flush()

    def _follow_rotation(self) -> None:
        # A second costs nothing but a few lines in the older file, and one look a line costs more than the line.
        now = self._clock.monotonic()
        if isinstance(self._handler, WatchedFileHandler) and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._handler.reopenIfNeeded()


class _PrivateFileHandler(WatchedFileHandler):
    """A log file that only its owner and group can read."""

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class RequestLog:
    """Writes each exchange as one line."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def record(self, exchange: Exchange) -> None:
        """Write the line. ASCII only, so that no control or direction character reaches a terminal."""
        self._sink.write(json.dumps(entry(exchange)))

    def record_stream_end(self, exchange: Exchange) -> None:
        """Write a second line for a stream, with the reason if it ended too early."""
        logged = {"event": "stream_end"} | entry(exchange)
        if exchange.stream_error is not None:
            logged["reason"] = exchange.stream_error
        self._sink.write(json.dumps(logged))


def open_sink(where: str, clock: Clock) -> Sink | None:
    """Return the sink for ``SECURE_ML_REQUEST_LOG``; None for ``off``.

    :raises OSError: the file cannot be opened.
    """
    if where == "off":
        return None
    if where in {"stderr", "stdout"}:
        return HandlerSink(logging.StreamHandler(sys.stderr if where == "stderr" else sys.stdout), clock)
    return HandlerSink(_PrivateFileHandler(where), clock)


def entry(exchange: Exchange) -> dict[str, Any]:
    """Return what is logged of an exchange."""
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
        "reason": clean(rejection.reason) if rejection else _fault(exchange),
        "ms": round(exchange.milliseconds, 3),
        "bytes_in": exchange.received_bytes,
    }
    if exchange.out_of_range:
        logged["out_of_range"] = exchange.out_of_range
    if exchange.endpoint is None:
        logged["path"] = clean(exchange.path)
    return logged


def _fault(exchange: Exchange) -> str | None:
    # The text of an exception may quote the payload, so only its type is written here.
    return None if exchange.fault is None else f"unhandled {type(exchange.fault).__name__}"


def clean(text: str) -> str:
    """Return the text with credentials blacked out and cut to 256 characters."""
    return _CREDENTIAL.sub("[redacted]", text[: 4 * _LONGEST])[:_LONGEST]
