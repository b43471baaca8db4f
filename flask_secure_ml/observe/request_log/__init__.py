"""The request log: one line of JSON per request, without secrets and payloads.

A line that cannot be written is dropped and counted: the log neither fails nor delays a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flask import Response

from ...exchange import Exchange
from ...principal import Clock
from ..instants import Instants
from .drops import Drops
from .entry import entry
from .json_formatter import JsonFormatter
from .lines import line_of
from .streams import Sink, StreamSink, file_of, standard_stream

__all__ = ["THROUGH_LOGGING", "JsonFormatter", "RequestLog", "ResponseSize", "Sink", "entry", "open_log", "open_sink"]

THROUGH_LOGGING = "logging:"
"""Prefix of a value of ``SECURE_ML_REQUEST_LOG`` that names a logger."""

_OK = range(200, 300)
_SHARES = 1 << 32


class DropCounter(Protocol):
    """Counts dropped lines; implemented by the metrics."""

    def log_line_dropped(self) -> None:
        """Count one line."""


class RequestLog:
    """Writes a line for each exchange.

    :param sink: the destination of the lines; any exception means that a line was dropped.
    :param drops: counts and reports them.
    :param sample: the fraction of 2xx responses that are logged, from 0 to 1; all others are always logged.
    :param model: the name and version of the model of requests for which the view names none.
    """

    def __init__(self, sink: Sink, drops: Drops, sample: float = 1.0, model: Mapping[str, str] | None = None) -> None:
        self._sink = sink
        self._drops = drops
        self._model = {f"model.{name}": value for name, value in (model or {}).items()}
        self._instants = Instants()
        self._below = None if sample >= 1 else int(sample * _SHARES)

    def record(self, exchange: Exchange) -> None:
        """Write the line in ASCII, so that no control or bidirectional character reaches a terminal."""
        if self._below is None or exchange.status not in _OK or self._sampled(exchange):
            self._write(entry(exchange, self._instants))

    def record_stream_end(self, exchange: Exchange) -> None:
        """Write a second line for a stream, with the reason if it ended prematurely."""
        broken = exchange.stream_error
        if self._below is None or broken is not None or exchange.status not in _OK or self._sampled(exchange):
            logged = {"event": "stream_end"} | entry(exchange, self._instants)
            if broken is not None:
                logged["reason"] = broken
            self._write(logged)

    def _write(self, logged: dict[str, Any]) -> None:
        if self._model and "model.name" not in logged:
            logged.update(self._model)
        drops = self._drops
        try:
            self._sink.write(line_of(logged))
        except Exception as error:  # noqa: BLE001 - the sink may be the user's
            drops.failed(error)
            return
        if drops.failing:
            drops.succeeded()

    def _sampled(self, exchange: Exchange) -> bool:
        # The same for both lines of a stream. The hash is keyed for each process, so clients cannot influence it.
        return hash(exchange.request_id) % _SHARES < (self._below or 0)


class ResponseSize:
    """Records the size of a response body, if it is known."""

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Record the size on the exchange, without changing the response."""
        parts = response.response
        if isinstance(parts, (list, tuple)):
            exchange.body_size = sum(map(len, parts))
        else:
            exchange.body_size = response.content_length


def open_log(
    where: str,
    sink: Sink | None,
    clock: Clock,
    sample: float = 1.0,
    model: Mapping[str, str] | None = None,
    dropped: DropCounter | None = None,
) -> RequestLog | None:
    """Return the request log; None for ``off``.

    :param where: the value of ``SECURE_ML_REQUEST_LOG``.
    :param sink: a sink to use instead.
    :param dropped: counts dropped lines.
    :raises OSError: the file cannot be opened.
    """
    count = None if dropped is None else dropped.log_line_dropped
    sink = sink or open_sink(where, clock, count)
    return None if sink is None else RequestLog(sink, Drops(clock.monotonic, count), sample, model)


def open_sink(where: str, clock: Clock, count: Callable[[], object] | None = None) -> Sink | None:
    """Return the sink for a value of ``SECURE_ML_REQUEST_LOG``; None for ``off``.

    :param count: called for each line that a :mod:`logging` handler does not accept.
    :raises OSError: the file cannot be opened.
    """
    if where == "off":
        return None
    if where in {"stderr", "stdout"}:
        return StreamSink(standard_stream(where), clock)
    if where.startswith(THROUGH_LOGGING):
        from .through_logging import LoggingSink

        return LoggingSink(where.removeprefix(THROUGH_LOGGING), clock, count)
    return StreamSink(file_of(where), clock, at_once=True)
