"""OpenTelemetry: what the guards found out, on the span of the request. Nothing is done where its API is not installed.

Names are those of the semantic conventions where they exist: ``enduser.id`` holds a digest, because a trace leaves the
trust domain of the log, and the attributes of this package begin with ``secure_ml.``.
"""

from __future__ import annotations

from hashlib import blake2b

from flask import Response
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind

from ..exchange import Exchange

NANOSECONDS = 1_000_000_000
_DIGEST = 8


class TraceFilter:
    """Sets attributes on the current span, and notes its trace id on the exchange."""

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Set the attributes while the span of an instrumented app is current."""
        span = trace.get_current_span()
        context = span.get_span_context()
        if context.is_valid:
            exchange.trace_id = f"{context.trace_id:032x}"
        if span.is_recording():
            describe(span, exchange, response.status_code)


class TraceRecorder:
    """Makes one span for a request that no instrumentation has made one for."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("flask_secure_ml")

    def record(self, exchange: Exchange) -> None:
        """Make the span, with the times of the request."""
        if exchange.trace_id:
            return
        began = int(exchange.time * NANOSECONDS)
        name = f"{exchange.method} {exchange.endpoint or 'unknown'}"
        span = self._tracer.start_span(name, kind=SpanKind.SERVER, start_time=began)
        if isinstance(span, NonRecordingSpan):
            return
        describe(span, exchange, exchange.status)
        span.end(began + int((exchange.finished - exchange.started) * NANOSECONDS))


def describe(span: Span, exchange: Exchange, status: int) -> None:
    """Set what is known of a request; no value is the client's, except the method if it is a standard one."""
    span.set_attribute("secure_ml.request_id", exchange.request_id)
    span.set_attribute("http.response.status_code", status)
    if exchange.principal is not None:
        span.set_attribute("enduser.id", blake2b(exchange.principal.id.encode(), digest_size=_DIGEST).hexdigest())
        span.set_attribute("secure_ml.credential", exchange.principal.kind)
        span.set_attribute("secure_ml.plan", exchange.principal.plan)
    if exchange.code is not None:
        span.set_attribute("secure_ml.code", exchange.code)
