"""Metrics: counts, labels, and access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request, stream_with_context
from marshmallow import Schema
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from flask_secure_ml import ConfigError, SecureML, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.signals import limit_store_changed
from flask_secure_ml.state import state_of
from support import HTTPS, MakeApp, caller


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


@pytest.fixture
def app(protected: MakeApp) -> Flask:
    app = protected(
        METRICS="/metrics", PLANS={"default": {"requests": ["20/minute"], "quotas": ["100/day"]}}, FAILED_AUTH_LIMITS=[]
    )
    app.add_url_rule("/x", "x", lambda: "ok")
    app.add_url_rule("/open", "open", public(lambda: "ok"))
    predict = protect(body=Rows, cost="instances")(lambda payload: "ok")
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])
    return app


def scrape(app: Flask) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and the values of its labels, in the order of their names."""
    response = app.test_client().get("/metrics", base_url=HTTPS, headers=caller("prometheus", "metrics"))
    assert response.status_code == 200
    return dict(_samples(response.text))


def _samples(text: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (
                (sample.name.removeprefix("secure_ml_"), *(value for _, value in sorted(sample.labels.items()))),
                sample.value,
            )


def get(app: Flask, path: str, name: str = "ada", method: str = "GET", **options: Any) -> TestResponse:
    return app.test_client().open(path, method=method, base_url=HTTPS, headers=caller(name), **options)


def test_requests(app: Flask) -> None:
    """By endpoint, method and status; URLs that lead nowhere and invented methods share a label each."""
    for _ in range(3):
        get(app, "/x")
    get(app, "/nowhere/1")
    get(app, "/nowhere/2")
    get(app, "/x", method="BREW")
    get(app, "/x", method="FROTH")
    found = scrape(app)
    assert found["requests_total", "x", "GET", "200"] == 3
    assert found["requests_total", "unknown", "GET", "404"] == 2
    assert found["requests_total", "unknown", "other", "405"] == 2
    assert found["request_duration_seconds_count", "x"] == 3
    assert found["rejections_total", "not_found", "unknown"] == 2


def test_authentication(app: Flask) -> None:
    """By the name of the authenticator and the result; public routes and requests without a credential have none."""
    get(app, "/x")
    get(app, "/x", "bad")
    get(app, "/open")
    app.test_client().get("/x", base_url=HTTPS)
    found = scrape(app)
    assert {name[1:]: value for name, value in found.items() if name[0] == "authentications_total"} == {
        ("test", "accepted"): 1,
        ("test", "rejected"): 1,
    }
    assert found["rejections_total", "not_authenticated", "x"] == 2


def test_limits(app: Flask) -> None:
    """Which limit rejected, and how much of the fullest one is used at each charge."""
    statuses = [get(app, "/x").status_code for _ in range(22)]
    found = scrape(app)
    assert statuses.count(429) == 2
    assert found["limit_rejections_total", "requests-60s"] == 2
    assert found["limit_use_ratio_count", "requests-60s"] >= 22
    assert found["limit_use_ratio_bucket", "0.5", "requests-60s"] == 10


@pytest.mark.parametrize("quotas", [["100/day"], []], ids=["quota", "no_quota"])
def test_rows_and_bytes(protected: MakeApp, quotas: list[str]) -> None:
    """Of requests that were admitted, whether or not a limit counts rows."""
    app = protected(METRICS="/metrics", PLANS={"default": {"requests": ["20/minute"], "quotas": quotas}})
    predict = protect(body=Rows, cost="instances")(lambda payload: "ok")
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])
    body = {"instances": [[0, 1]] * 7}
    assert get(app, "/predict", method="POST", json=body).status_code == 200
    get(app, "/predict", method="POST", json={"instances": "no"})
    found = scrape(app)
    assert found["rows_total", "predict"] == 7
    assert found["received_bytes_total", "predict"] > 40


def test_the_limit_store(app: Flask) -> None:
    """Down and up, by the signal."""
    limit_store_changed.send(app, up=False)
    found = scrape(app)
    assert (found["limit_store_up",], found["limit_store_changes_total", "down"]) == (0, 1)
    limit_store_changed.send(app, up=True)
    assert scrape(app)["limit_store_up",] == 1


def test_workers(app: Flask) -> None:
    """This process, once."""
    get(app, "/x")
    found = scrape(app)
    assert (found["workers",], found["worker_starts_total",]) == (1, 1)


def test_loading_begins(app: Flask) -> None:
    """A worker counts from its start, before its first request."""
    SecureML.load(app)
    metrics = state_of(app).metrics
    assert metrics is not None
    assert b"secure_ml_workers 1.0" in metrics.exposition.text().body


def test_parts(app: Flask) -> None:
    """Each part that requests need, as the readiness probe sees it."""
    assert scrape(app)["part_ready", "limit store"] == 1


def test_streams(app: Flask) -> None:
    """Those that ended too early."""
    app.add_url_rule("/stream", "stream", lambda: Response(iter(["a", "b"])))
    response = get(app, "/stream", buffered=False)
    response.close()
    assert scrape(app)["broken_streams_total", "stream"] == 1


@pytest.mark.parametrize(("scopes", "status"), [((), 403), (("predict",), 403), (("metrics",), 200)])
def test_who_may_read(app: Flask, scopes: tuple[str, ...], status: int) -> None:
    """Callers with the scope ``metrics``; strangers get 401."""
    client = app.test_client()
    response = client.get("/metrics", base_url=HTTPS, headers=caller("ada", *scopes))
    assert response.status_code == status
    assert client.get("/metrics", base_url=HTTPS).status_code == 401


def test_no_label_is_chosen_by_a_client(app: Flask) -> None:
    """The number of series does not grow with names, paths, methods and keys of clients."""
    for number in range(3):
        get(app, f"/x{number}", f"user{number}", method=f"M{number}")
    scrape(app)
    before = set(scrape(app))
    for number in range(3, 60):
        get(app, f"/x{number}", f"user{number}", method=f"M{number}")
    assert set(scrape(app)) - before == set()


def test_off_by_default(protected: MakeApp) -> None:
    """Metrics are neither counted nor served."""
    app = protected()
    assert state_of(app).metrics is None
    assert get(app, "/metrics").status_code == 404


def test_two_apps(protected: MakeApp) -> None:
    """Each has metrics of its own."""
    apps = [protected(METRICS="/metrics") for _ in range(2)]
    get(apps[0], "/x")
    assert ("requests_total", "unknown", "GET", "404") not in scrape(apps[1])


@pytest.mark.parametrize("path", ["metrics", "/a b", "/<x>", ""])
def test_a_path_that_is_none(protected: MakeApp, path: str) -> None:
    """It is named."""
    with pytest.raises(ConfigError, match="SECURE_ML_METRICS"):
        protected(METRICS=path)


def test_requests_in_flight(protected: MakeApp) -> None:
    """Until the response starts or the stream ends, whatever the response; the scrape counts itself."""
    app = protected(METRICS="/metrics")
    seen: list[float] = []

    def streamed() -> Iterator[str]:
        seen.append(scrape(app)["requests_in_flight",])
        yield "a"
        if request.args:
            raise RuntimeError("broken")

    app.add_url_rule("/x", "x", lambda: str(scrape(app)["requests_in_flight",]))
    app.add_url_rule("/stream", "stream", lambda: Response(stream_with_context(streamed())))
    app.add_url_rule("/crash", "crash", lambda: str(1 / 0))
    assert scrape(app)["requests_in_flight",] == 1
    assert get(app, "/x").text == "2.0"
    assert get(app, "/stream").text == "a"
    with pytest.raises(RuntimeError, match="broken"), get(app, "/stream?broken=1") as broken:
        broken.get_data()
    unread = app.test_client().get("/stream", base_url=HTTPS, headers=caller())
    assert scrape(app)["requests_in_flight",] == 2
    unread.close()
    assert [get(app, path).status_code for path in ("/crash", "/unknown")] == [500, 404]
    assert app.test_client().get("/x", base_url=HTTPS).status_code == 401
    assert seen == [2, 2, 2]
    assert scrape(app)["requests_in_flight",] == 1
