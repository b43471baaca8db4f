"""OpenTelemetry: attributes on the span of the request, or one span of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp, caller


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_a_span_of_our_own(exporter: InMemorySpanExporter, protected: MakeApp) -> None:
    """With the times of the request, a digest of the caller, and the reason of a rejection."""
    app = protected()
    app.add_url_rule("/x", "x", lambda: "ok")
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller("ada"))
    span = only(exporter)
    attributes = dict(span.attributes or {})
    assert span.name == "GET x"
    assert attributes.pop("secure_ml.request_id") == response.headers["X-Request-ID"]
    assert len(str(attributes.pop("enduser.id"))) == 16
    assert attributes == {
        "http.response.status_code": 200,
        "secure_ml.credential": "test",
        "secure_ml.plan": "default",
    }


def test_a_rejection(exporter: InMemorySpanExporter, protected: MakeApp) -> None:
    """The code, without a principal."""
    protected().test_client().get("/x", base_url=HTTPS)
    assert dict(only(exporter).attributes or {})["secure_ml.code"] == "not_authenticated"
    assert "enduser.id" not in (only(exporter).attributes or {})


def test_the_span_of_an_instrumented_app(exporter: InMemorySpanExporter, protected: MakeApp, sink: MemorySink) -> None:
    """It gets the attributes, and no second span is created."""
    app: Flask = protected()
    app.add_url_rule("/x", "x", lambda: "ok")
    with trace.get_tracer("instrumentation").start_as_current_span("GET /x"):
        app.test_client().get("/x", base_url=HTTPS, headers=caller("ada"))
    span = only(exporter)
    assert (span.name, dict(span.attributes or {})["secure_ml.plan"]) == ("GET /x", "default")


def test_nobody_listens(protected: MakeApp) -> None:
    """Without an SDK no span is exported, and requests are served."""
    assert protected().test_client().get("/x", base_url=HTTPS, headers=caller()).status_code == 404


def test_a_provider_that_comes_late(protected: MakeApp, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one no span is made; one that is set up later is found within a second."""
    client = protected().test_client()
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert client.get("/x", base_url=HTTPS).status_code == 401
    # What set_tracer_provider() does, which can be called once in a process.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    clock.advance(0.5)
    assert client.get("/x", base_url=HTTPS).status_code == 401
    assert exporter.get_finished_spans() == ()
    clock.advance(0.5)
    assert client.get("/x", base_url=HTTPS).status_code == 401
    assert client.get("/x", base_url=HTTPS).status_code == 401
    assert len(exporter.get_finished_spans()) == 2
    provider.shutdown()
