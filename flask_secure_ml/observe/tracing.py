"""OpenTelemetry: sets the results of the guards on the span of a request; inactive if the API is not installed.

Names follow the semantic conventions where these exist. ``enduser.id`` is a digest, because traces leave the trust
domain of the log. Other attributes start with ``secure_ml.``.
"""

from __future__ import annotations

import math
from hashlib import blake2b

from flask import Response
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind

from ..exchange import Exchange
from .request_log.entry import known_method

NANOSECONDS = 1_000_000_000
_POLL_SECONDS = 1.0
_DIGEST = 8


class TraceFilter:
    """Sets attributes on the current span, and records its trace id on the exchange."""

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Set the attributes while the span of an instrumented app is current."""
        span = trace.get_current_span()
        if span is trace.INVALID_SPAN:
            return
        context = span.get_span_context()
        if context.is_valid:
            exchange.trace_id = f"{context.trace_id:032x}"
            exchange.trace_sampled = context.trace_flags.sampled
        if span.is_recording():
            describe(span, exchange, response.status_code)


class TraceRecorder:
    """Creates a span for a request that is not instrumented otherwise.

    Without a tracer provider, spans are not created; this is checked once per second.
    """

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("flask_secure_ml")
        self._has_provider = not isinstance(self._tracer, trace.ProxyTracer)
        self._polled = -math.inf

    def record(self, exchange: Exchange) -> None:
        """Create the span with the times of the request."""
        if exchange.trace_id or not (self._has_provider or self._finds_provider(exchange.finished)):
            return
        began = int(exchange.time * NANOSECONDS)
        name = f"{known_method(exchange.method)} {exchange.endpoint or 'unknown'}"
        span = self._tracer.start_span(name, kind=SpanKind.SERVER, start_time=began)
        if isinstance(span, NonRecordingSpan):
            return
        describe(span, exchange, exchange.status)
        span.end(began + int((exchange.finished - exchange.started) * NANOSECONDS))

    def _finds_provider(self, now: float) -> bool:
        # A span that is not exported costs as much as a line of the request log.
        if 0 <= now - self._polled < _POLL_SECONDS:
            return False
        self._polled = now
        self._has_provider = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        return self._has_provider


def describe(span: Span, exchange: Exchange, status: int) -> None:
    """Set the attributes of a request; none is a client value except a standard method."""
    span.set_attribute("secure_ml.request_id", exchange.request_id)
    span.set_attribute("http.response.status_code", status)
    if exchange.principal is not None:
        span.set_attribute("enduser.id", blake2b(exchange.principal.id.encode(), digest_size=_DIGEST).hexdigest())
        span.set_attribute("secure_ml.credential", exchange.principal.kind)
        span.set_attribute("secure_ml.plan", exchange.principal.plan)
    if exchange.code is not None:
        span.set_attribute("secure_ml.code", exchange.code)
