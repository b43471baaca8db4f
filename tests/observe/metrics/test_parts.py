"""Metrics of the parts of an app: key sets, certificates, API keys, the audit log; and exemplars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from audit_logs import Site, append
from audited_app import Audited
from certificates import authority, issue
from flask_secure_ml import SecureML
from flask_secure_ml.authentication.api_keys.lifecycle import disable_key, rotate_key
from flask_secure_ml.config.audit import SinkAddress
from flask_secure_ml.observe.audit.sinks import WAITING, Delivery, sink_names
from flask_secure_ml.observe.metrics import Certificates, Metrics
from flask_secure_ml.secrets import SecretRing, secret_ring
from flask_secure_ml.state import MetricsState, state_of
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key
from published_keys import Published, published
from stored_keys import stored_key
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

DAY = 86_400


def metrics_of(app: Flask) -> MetricsState:
    found = state_of(app).metrics
    assert found is not None
    return found


def sample(app: Flask, name: str, **labels: str) -> float | None:
    """Return a value as a scrape has it."""
    text = metrics_of(app).exposition.text("application/openmetrics-text").body.decode()
    for family in parsed(text):
        for each in family.samples:
            if each.name == f"secure_ml_{name}" and each.labels == labels:
                return float(each.value)
    return None


@pytest.fixture
def issuer() -> Iterator[Published]:
    with published(make_key_set(make_signing_key("ES256", "one"))) as found:
        yield found


def test_key_sets(protected: MakeApp, clock: FakeClock, issuer: Published) -> None:
    """When one was fetched last, whether the last fetch succeeded, and how many did; a set without a key is none."""
    name = "https://issuer.example"
    settings = {"issuer": name, "audience": "x", "algorithms": ["ES256"], "jwks_uri": issuer.uri, "insecure_http": True}
    app = protected(METRICS="/metrics", TOKEN_ISSUERS=[settings], JWKS_CACHE_SECONDS=300)
    metrics = metrics_of(app).counters.registry

    def value(metric: str, **labels: str) -> float | None:
        found: float | None = metrics.get_sample_value(f"secure_ml_{metric}", {"issuer": name, **labels})
        return found

    assert value("jwks_refreshes_total", result="failed") == 0
    assert value("jwks_fetched_timestamp_seconds") is None
    assert SecureML.ready(app) == []
    first = clock.now()
    assert (value("jwks_fetched_timestamp_seconds"), value("jwks_refresh_ok")) == (first, 1)
    good = issuer.document
    for issuer.document in (None, b'{"keys": []}'):
        clock.advance(400)
        SecureML.ready(app)
    assert value("jwks_refresh_ok") == 0
    assert value("jwks_refreshes_total", result="failed") == 2
    issuer.document = good
    clock.advance(400)
    assert SecureML.ready(app) == []
    assert (value("jwks_refresh_ok"), value("jwks_refreshes_total", result="fetched")) == (1, 2)
    assert value("jwks_fetched_timestamp_seconds") == clock.now()


def test_certificates(protected: MakeApp, tmp_path: Path) -> None:
    """The first expiry in each file, updated when the file changes, and 0 if unknown."""
    now = 2_000_000_000.0
    ca, other = authority(now=now, lifetime=90 * DAY), authority("Other", now=now, lifetime=40 * DAY)
    bundle, server = tmp_path / "ca.pem", tmp_path / "server.pem"
    bundle.write_bytes(ca.pem + other.pem)
    server.write_bytes(issue("CN=localhost", ca, now=now, lifetime=20 * DAY).pem + ca.pem)
    app = protected(
        METRICS="/metrics",
        SERVER_CERTIFICATE=str(server),
        MTLS_CA_FILE=str(bundle),
        MTLS_CLIENTS=[{"client": "a", "subject_dn": "CN=a"}],
    )
    name = "certificate_expiry_timestamp_seconds"
    assert sample(app, name, certificate="server") == now + 20 * DAY
    assert sample(app, name, certificate="client_authorities") == now + 40 * DAY
    server.write_bytes(issue("CN=localhost", ca, now=now, lifetime=80 * DAY).pem + ca.pem)
    assert sample(app, name, certificate="server") == now + 80 * DAY
    server.write_bytes(b"no certificate")
    assert sample(app, name, certificate="server") == 0
    server.unlink()
    assert sample(app, name, certificate="server") == 0


def test_the_first_file_of_a_name_counts(tmp_path: Path) -> None:
    """SECURE_ML_SERVER_CERTIFICATE takes precedence over gunicorn's file."""
    (tmp_path / "a").write_bytes(authority(now=1_000_000).pem)
    found = Certificates({"server": str(tmp_path / "a")})
    found.watch("server", str(tmp_path / "b"))
    assert [(name, ends > 0) for _, name, ends in found()] == [("server", True)]


@pytest.fixture
def pepper(monkeypatch: pytest.MonkeyPatch) -> SecretRing:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    return secret_ring("env:PEPPER")


@pytest.mark.parametrize("where", ["file", "store"])
def test_api_keys(protected: MakeApp, clock: FakeClock, tmp_path: Path, pepper: SecretRing, where: str) -> None:
    """The next expiry of those in use, and how many expire soon; no name of one."""
    keys = {"API_KEYS": "store", "STORE_URI": f"sqlite:{tmp_path}/s.db"}
    if where == "file":
        keys = {"API_KEYS": str(tmp_path / "keys.json")}
    app = protected(METRICS="/metrics", API_KEY_PEPPER="env:PEPPER", **keys)
    store = state_of(app).keys
    assert store is not None
    now = clock.now()
    stored_key(store, pepper, clock)
    assert sample(app, "api_key_expiry_timestamp_seconds") is None
    ids = []
    for days in (3, 20, 25, 90, 0.5):
        key = stored_key(store, pepper, clock, lifetime=days * DAY)
        ids.append(key[4:16])
    assert sample(app, "api_key_expiry_timestamp_seconds") == now + DAY / 2
    disable_key(store, ids[4])
    rotate_key(store, pepper, ids[1], now=now, overlap=3600)
    clock.advance(0.2)
    assert sample(app, "api_key_expiry_timestamp_seconds") == now + 3 * DAY
    assert [sample(app, "api_keys_expiring", days=days) for days in ("1", "7", "30")] == [0, 1, 3]
    store.revoke(ids[0])
    clock.advance(2)
    assert [sample(app, "api_keys_expiring", days=days) for days in ("1", "7", "30")] == [0, 0, 2]
    clock.advance(22 * DAY)
    assert sample(app, "api_keys_expiring", days="7") == 1
    text = metrics_of(app).exposition.text().body.decode()
    assert not [each for each in ids if each in text]


def test_api_keys_that_cannot_be_read(protected: MakeApp, tmp_path: Path, pepper: SecretRing) -> None:
    """Their series are missing, the part is not ready, and everything else is there."""
    path = tmp_path / "keys.json"
    path.write_text("damaged")
    app = protected(METRICS="/metrics", API_KEYS=str(path), API_KEY_PEPPER="env:PEPPER")
    assert sample(app, "api_keys_expiring", days="7") is None
    assert sample(app, "part_ready", part="api_keys") == 0
    assert sample(app, "part_ready", part="limit store") == 1


class Counted(Site):
    """A log whose counts are metrics."""

    def __init__(self, base: Path, clock: FakeClock) -> None:
        super().__init__(base, clock)
        self.metrics = Metrics()

    def value(self, name: str, **labels: str) -> float | None:
        found: float | None = self.metrics.registry.get_sample_value(f"secure_ml_audit_{name}", labels)
        return found


def test_checkpoints(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last one reached the index and each sink, and how many records none covers."""
    site = Counted(tmp_path, clock)
    writer = site.writer(counts=site.metrics)
    append([writer], 3, clock)
    writer.checkpoint()
    first = clock.now()
    assert site.value("uncovered_records") == 0
    assert [site.value("checkpoint_timestamp_seconds", sink=name) for name in ("index", "file")] == [first, first]
    append([writer], 5, clock)
    with monkeypatch.context() as patch:
        patch.setattr("flask_secure_ml.observe.audit.writer.open_index", _fails)
        with pytest.raises(OSError, match="full"):
            writer.checkpoint()
    assert site.value("uncovered_records") == 5
    assert site.value("checkpoint_timestamp_seconds", sink="index") == first
    assert site.value("checkpoints_total", sink="index", result="failed") == 1
    clock.advance(10)
    writer.checkpoint()
    assert (site.value("uncovered_records"), site.value("checkpoints_total", sink="index", result="sent")) == (0, 2)
    assert site.value("checkpoint_timestamp_seconds", sink="index") == clock.now()
    append([writer], 2, clock)
    writer.close()
    assert site.value("uncovered_records") == 0


def _fails(*_: object, **__: object) -> None:
    raise OSError(28, "disk full")


def test_sinks(tmp_path: Path, clock: FakeClock) -> None:
    """Each by its kind, with a number from the second one; checkpoints that wait too long are dropped."""
    paths = [tmp_path / "none" / "a", tmp_path / "b"]
    addresses = [SinkAddress("file", str(path)) for path in paths]
    assert sink_names([*addresses, SinkAddress("stdout")]) == ["file", "file#2", "stdout"]
    metrics = Metrics()
    delivery = Delivery(addresses, clock, metrics)
    for _ in range(WAITING + 2):
        delivery.send("note\n")

    def value(sink: str, result: str) -> float | None:
        labels = {"sink": sink, "result": result}
        found: float | None = metrics.registry.get_sample_value("secure_ml_audit_checkpoints_total", labels)
        return found

    assert [value("file", result) for result in ("failed", "dropped", "sent")] == [WAITING + 2, 2, None]
    assert [value("file#2", result) for result in ("failed", "dropped", "sent")] == [None, None, WAITING + 2]


def test_audit_records_that_are_lost(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an app; its sinks have series from the start."""
    audited = Audited(tmp_path, clock, METRICS="/metrics")
    registry = metrics_of(audited.app).counters.registry
    assert registry.get_sample_value("secure_ml_audit_checkpoints_total", {"sink": "file", "result": "failed"}) == 0
    audited.client.get("/x", base_url=HTTPS, headers=caller())
    with monkeypatch.context() as patch:
        patch.setattr("flask_secure_ml.observe.audit.stream.os.write", _fails)
        for _ in range(2):
            audited.client.get("/x", base_url=HTTPS, headers=caller())
    audited.client.get("/x", base_url=HTTPS, headers=caller())
    audited.log.close()
    assert registry.get_sample_value("secure_ml_audit_failed_records_total") == 2


@pytest.mark.parametrize(("sampler", "sampled"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)])
def test_exemplars(protected: MakeApp, sampler: Sampler, sampled: bool) -> None:
    """The trace of a request that is slow or rejected, if it is sampled; only in OpenMetrics."""
    app = protected(METRICS="/metrics")
    app.add_url_rule("/x", "x", lambda: "ok")
    tracer = TracerProvider(sampler=sampler).get_tracer("tests")
    with tracer.start_as_current_span("one") as span, trace.use_span(span):
        app.test_client().get("/x", base_url=HTTPS, headers=caller())
        app.test_client().get("/x", base_url=HTTPS)
        wanted = f"{span.get_span_context().trace_id:032x}"
    headers = caller("prometheus", "metrics") | {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = app.test_client().get("/metrics", base_url=HTTPS, headers=headers)
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {
        each.name: each.exemplar.labels
        for family in parsed(response.text)
        for each in family.samples
        if each.exemplar is not None
    }
    names = ("secure_ml_request_duration_seconds_bucket", "secure_ml_rejections_total")
    assert found == ({name: {"trace_id": wanted} for name in names} if sampled else {})
    assert wanted not in metrics_of(app).exposition.text("text/plain").body.decode()


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("text/plain;version=x", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=abc,application/openmetrics-text;version=1.0.0;q=0", False),
        # Some releases of Werkzeug drop a parameter that they cannot parse.
        ('application/openmetrics-text;version="\\', None),
        ("application/openmetrics-text;q=0", False),
    ],
)
def test_the_format(protected: MakeApp, accept: str, openmetrics: bool | None) -> None:
    """It is one that the scraper accepts, for any Accept header."""
    app = protected(METRICS="/metrics")
    headers: dict[str, Any] = caller("prometheus", "metrics") | {"Accept": accept}
    response = app.test_client().get("/metrics", base_url=HTTPS, headers=headers)
    assert response.status_code == 200
    is_openmetrics = response.text.endswith("# EOF\n")
    assert openmetrics in {is_openmetrics, None}
    assert response.mimetype == ("application/openmetrics-text" if is_openmetrics else "text/plain")
