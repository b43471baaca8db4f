"""Canaries never leave the trust domain: Sentry events and transactions, and OpenTelemetry spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.transport import Transport

from canary_app import CANARIES, UNKNOWN_URL, add_routes, planted_requests
from flask_secure_ml import SecureML
from flask_secure_ml.exchange import exchange_or_none
from flask_secure_ml.observe.sentry import add_sentry
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key
from support import HTTPS, RANDOM_SECRET

DSN = "https://public@sentry.example/1"
METHOD = "C4N4RYMETHOD"
HIDDEN = {**CANARIES, "unknown": UNKNOWN_URL, "method": METHOD}


class Kept(Transport):
    """Keeps the data that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep one envelope as it would be on the wire."""
        self.texts.append(envelope.serialize().decode())


@pytest.fixture
def kept() -> Iterator[Kept]:
    yield Kept()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def make_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = Flask("canaries")
    app.config.update(
        SECURE_ML_API_KEYS=str(folder / "keys.json"),
        SECURE_ML_API_KEY_PEPPER="env:PEPPER",
        SECURE_ML_API_KEY_SCHEMES=["x-api-key", "apikey", "basic"],
        SECURE_ML_FAILED_AUTH_LIMITS=[],
    )
    SecureML(app, clock=FakeClock(), sink=MemorySink())
    add_routes(app)
    return app


def send_all(app: Flask) -> set[int]:
    """Send every request, and one with a method of its own."""
    key, wrong = make_api_key(app, scopes=()), make_api_key(app, scopes=())
    client = app.test_client()
    statuses = set()
    for planted in planted_requests({"X-API-Key": key}, wrong):
        options: dict[str, Any] = {"base_url": HTTPS, "headers": planted.headers, "data": planted.body}
        try:
            response = client.open(planted.target, method=planted.method, buffered=True, **options)
        except ValueError:
            # The stream that breaks.
            continue
        statuses.add(response.status_code)
    statuses.add(client.open("/stream", method=METHOD, base_url=HTTPS, headers={"X-API-Key": key}).status_code)
    return statuses


def assert_clean(text: str) -> None:
    assert not {place for place, canary in HIDDEN.items() if canary in text}


# What replaces it in newer releases is missing in older ones.
@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
@pytest.mark.parametrize("own", [False, True], ids=["ours", "the app's"])
def test_sentry(kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: bool) -> None:
    """Errors and, of a client that the app has set up itself to send everything, transactions."""
    if own:
        sentry_sdk.init(
            DSN,
            transport=kept,
            traces_sample_rate=1.0,
            send_default_pii=True,
            max_request_body_size="always",
            include_local_variables=True,
            integrations=[FlaskIntegration(transaction_style="url")],
        )
        add_sentry(DSN, exchange_or_none)
    else:
        add_sentry(DSN, exchange_or_none, transport=kept)
    app = make_app(tmp_path, monkeypatch)
    assert send_all(app) >= {400, 401, 404, 405, 415, 422, 500}
    sentry_sdk.flush()
    sent = "\n".join(kept.texts)
    kinds = {json.loads(line).get("type", "") for text in kept.texts for line in text.splitlines() if line[:1] == "{"}
    assert kinds >= {"event", "transaction"} if own else kinds >= {"event"}
    assert '"type":"ValueError"' in sent.replace(" ", "")
    assert_clean(sent)
    assert "sml_" not in sent


@pytest.mark.parametrize("instrumented", [False, True])
def test_traces(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, instrumented: bool
) -> None:
    """Spans of our own, and attributes on those of an instrumentation."""
    app = make_app(tmp_path, monkeypatch)
    if instrumented:
        with trace.get_tracer("instrumentation").start_as_current_span("request"):
            statuses = send_all(app)
    else:
        statuses = send_all(app)
    assert statuses >= {400, 401, 404, 405, 415, 422, 500}
    spans = exporter.get_finished_spans()
    assert len(spans) == 1 if instrumented else len(spans) > 50
    assert_clean("\n".join(span.to_json() for span in spans))
