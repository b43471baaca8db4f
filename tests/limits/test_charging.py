"""Charging and refunding of requests: one evaluation for all limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import http_sf
import pytest
from flask import Flask, Response
from marshmallow import Schema, fields

from flask_secure_ml import ConfigError, current_exchange, protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp, caller


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


Post = Callable[..., Any]


def client_of(app: Flask) -> Post:
    client = app.test_client()

    def post(rows: int = 1, path: str = "/predict", name: str = "ada", body: Any = None) -> Any:
        sent = {"instances": [[0, 1]] * rows} if body is None else body
        return client.post(path, base_url=HTTPS, headers=caller(name), json=sent)

    return post


def app_of(protected: MakeApp, plan: dict[str, Any], view: Callable[..., Any] | None = None, **options: Any) -> Flask:
    settings = {name: options.pop(name) for name in list(options) if name.isupper()}
    app = protected(PLANS={"default": plan}, **settings)
    given: Any = {"body": Rows, "cost": "instances"} | options
    app.add_url_rule("/predict", "predict", protect(**given)(view or (lambda payload: "ok")), methods=["POST"])
    return app


# --- one evaluation ---------------------------------------------------------------------------------------------


def test_a_rejected_request_costs_nothing_under_the_other_limits(protected: MakeApp, clock: FakeClock) -> None:
    """The wider window, the quota and the route's limit stay as they were."""
    app = app_of(protected, {"requests": ["2/second", "4/minute"], "quotas": ["100/day"]}, limits=["50/hour"])
    post = client_of(app)
    assert [post(10).status_code for _ in range(20)].count(200) == 2
    clock.advance(2)
    assert [post(10).status_code for _ in range(20)].count(200) == 2
    clock.advance(121)
    header = dict(_items(post(10).headers["RateLimit"]))
    assert {name: found["r"] for name, found in header.items()} == {
        "requests-1s": 1,
        "requests-60s": 3,
        "route-requests-3600s": 45,
        "rows-86400s": 50,
    }


def test_bodies_that_are_rejected_count(protected: MakeApp) -> None:
    """Malformed, too large, of another type, invalid: each is a request, at a price of no rows, and 429 comes first."""
    app = app_of(protected, {"requests": ["4/minute"], "quotas": ["5/day"]}, caps={"max_body_bytes": 1000})
    client = app.test_client()

    def send(data: bytes, kind: str = "application/json") -> int:
        return client.post("/predict", base_url=HTTPS, headers=caller(), data=data, content_type=kind).status_code

    found = [send(b"{"), send(b"x" * 2000), send(b"{}", "text/plain"), send(b'{"instances": "no"}'), send(b"{")]
    assert found == [400, 413, 415, 422, 429]
    assert client_of(app)(5, name="bob").status_code == 200


def test_a_caller_who_is_over_is_not_parsed(protected: MakeApp, clock: FakeClock) -> None:
    """Once rejected, the next request is rejected before its body is read; a second later it is evaluated again."""
    app = app_of(protected, {"requests": ["1/minute"]})
    post = client_of(app)
    assert [post().status_code, post().status_code] == [200, 429]
    malformed = app.test_client()
    rejected = malformed.post("/predict", base_url=HTTPS, headers=caller(), data=b"{")
    assert rejected.status_code == 429
    assert rejected.headers["Retry-After"] == post().headers["Retry-After"]
    clock.advance(1.5)
    assert malformed.post("/predict", base_url=HTTPS, headers=caller(), data=b"{").status_code == 429
    clock.advance(120)
    assert malformed.post("/predict", base_url=HTTPS, headers=caller(), data=b"{").status_code == 415


def test_a_large_batch_does_not_lock_out_small_ones(protected: MakeApp) -> None:
    """A cached rejection for rows applies to rows only."""
    post = client_of(app_of(protected, {"requests": ["50/minute"], "quotas": ["10/day"]}))
    assert [post(rows).status_code for rows in (6, 6, 6, 4, 1)] == [200, 429, 429, 200, 429]


def test_requests_without_a_body_that_is_priced(protected: MakeApp) -> None:
    """Unknown URLs and wrong methods are charged at LIMIT."""
    app = app_of(protected, {"requests": ["3/minute"], "quotas": ["1/day"]})
    client = app.test_client()
    found = [client.get(path, base_url=HTTPS, headers=caller()).status_code for path in ("/predict", "/x", "/x", "/x")]
    assert found == [405, 404, 404, 429]


# --- prices -----------------------------------------------------------------------------------------------------


class Free(Schema):
    prompt = fields.String()
    matrix = fields.List(fields.List(fields.Integer()))


@pytest.mark.parametrize(
    ("options", "body", "price"),
    [
        pytest.param({"cost": lambda payload: len(payload["prompt"])}, {"prompt": "four"}, 4, id="a function"),
        pytest.param({"cost": 3}, {"prompt": "x"}, 3, id="a number"),
        pytest.param({"cost": "matrix", "cost_unit": "elements"}, {"matrix": [[1, 2], [3, 4], [5]]}, 5, id="elements"),
        pytest.param({"cost": "matrix"}, {"matrix": [[1, 2], [3, 4], [5]]}, 3, id="rows"),
    ],
)
def test_prices(protected: MakeApp, options: dict[str, Any], body: Any, price: int) -> None:
    """Rows, elements, a number, or the result of a function."""
    app = app_of(protected, {"quotas": ["100/day"]}, body=Free, **options)
    headers = client_of(app)(body=body).headers
    assert dict(_items(headers["RateLimit"]))["rows-86400s"]["r"] == 100 - price


def test_elements_of_an_array(protected: MakeApp) -> None:
    """A tensor has as many as its size."""
    app = app_of(protected, {"quotas": ["100/day"]}, cost_unit="elements")
    assert dict(_items(client_of(app)(7).headers["RateLimit"]))["rows-86400s"]["r"] == 86


@pytest.mark.parametrize("price", [-1, True, 1.0, None, "3"])
def test_a_function_that_returns_no_price(protected: MakeApp, price: Any) -> None:
    """The request is not served without a charge."""
    app = app_of(protected, {"quotas": ["100/day"]}, cost=lambda _: price)
    assert client_of(app)().status_code == 500


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cost": lambda _: 1, "body": None}, id="a function without a body"),
        {"cost": 3, "cost_unit": "elements"},
        {"cost": -1},
        {"cost": True},
        {"cost": "nothing:here"},
        {"limits": [{"limit": "5/minute", "burst": 3}]},
        {"limits": ["0/minute"]},
        {"in_flight": 0},
        {"refund": "always"},
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """Each is named when the policy is made."""
    with pytest.raises(ConfigError):
        protect(**({"body": Rows} | options))(lambda: "ok")


def test_batch(protected: MakeApp) -> None:
    """More rows than the plan allows at once are 413, which time does not change; they cost a request."""
    app = app_of(protected, {"requests": ["9/minute"], "quotas": ["100/day"], "batch": 10})
    post = client_of(app)
    assert [post(rows).status_code for rows in (10, 11)] == [200, 413]
    header = dict(_items(post(1).headers["RateLimit"]))
    assert (header["rows-86400s"]["r"], header["requests-60s"]["r"]) == (89, 6)


# --- settlement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("report", "left"), [(0, 99), (3, 96), (20, 79), (300, 0), (None, 89)])
def test_the_price_is_corrected(protected: MakeApp, report: int | None, left: int) -> None:
    """exchange.charge() reports the actual cost, which may exceed the reserved and the remaining amount."""

    def view(payload: Any) -> str:
        if report is not None and len(payload["instances"]) == 10:
            current_exchange.charge(report)
        return "ok"

    post = client_of(app_of(protected, {"quotas": ["100/day"]}, view))
    assert post(10).status_code == 200
    assert post(1).status_code == (200 if left else 429)
    assert dict(_items(post(101).headers.get("RateLimit") or post(1).headers["RateLimit"]))["rows-86400s"]["r"] == max(
        0, left - 1 if left > 1 else left
    )


@pytest.mark.parametrize(
    ("refund", "status", "left"),
    [
        ("errors", 500, 99),
        ("errors", 404, 89),
        ("failures", 404, 99),
        ("failures", 200, 89),
        ("never", 500, 89),
    ],
)
def test_refunds(protected: MakeApp, refund: str, status: int, left: int) -> None:
    """Failed requests give their rows back by policy, and still count as requests."""
    plan = {"quotas": ["100/day"], "requests": ["50/minute"]}

    def view(payload: Any) -> Any:
        return "ok", status if len(payload["instances"]) == 10 else 200

    post = client_of(app_of(protected, plan, view, refund=refund))
    assert post(10).status_code == status
    header = dict(_items(post(1).headers["RateLimit"]))
    assert (header["rows-86400s"]["r"], header["requests-60s"]["r"]) == (left, 48)


def test_an_exception_gives_back(protected: MakeApp) -> None:
    """Also where the app has no handler for it."""

    def view(payload: Any) -> str:
        if len(payload["instances"]) == 10:
            raise ValueError
        return "ok"

    app = app_of(protected, {"quotas": ["100/day"]}, view)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    post = client_of(app)
    assert post(10).status_code == 500
    assert dict(_items(post(1).headers["RateLimit"]))["rows-86400s"]["r"] == 99


def test_a_stream_is_settled_at_its_end(protected: MakeApp) -> None:
    """The cost reported by the generator is charged."""

    def view(payload: Any) -> Response:
        exchange = current_exchange._get_current_object()  # type: ignore[attr-defined]

        def parts() -> Iterator[str]:
            yield "a"
            exchange.charge(40)
            yield "b"

        return Response(parts()) if len(payload["instances"]) == 10 else Response("ok")

    app = app_of(protected, {"quotas": ["100/day"], "in_flight": 1}, view)
    post = client_of(app)
    response = post(10)
    assert post(1).status_code == 429
    assert response.text == "ab"
    assert dict(_items(post(1).headers["RateLimit"]))["rows-86400s"]["r"] == 59


# --- in flight --------------------------------------------------------------------------------------------------


class Gate:
    """A view that blocks its requests until the test releases them."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Event()

    def __call__(self, payload: Any) -> str:
        self.entered.release()
        assert self.leave.wait(20)
        return "ok"


@pytest.mark.parametrize(
    ("plan", "route", "names", "statuses"),
    [
        pytest.param({"in_flight": 2}, None, ["ada", "ada", "ada"], [200, 200, 429], id="of a caller"),
        pytest.param({"in_flight": 2}, None, ["ada", "ada", "bob"], [200, 200, 200], id="of several callers"),
        pytest.param({}, 2, ["ada", "bob", "eve"], [200, 200, 429], id="of a route"),
        pytest.param({"in_flight": 1}, 2, ["ada", "ada", "bob"], [200, 429, 200], id="of both"),
    ],
)
@pytest.mark.parametrize("cost", ["instances", None])
def test_in_flight(
    protected: MakeApp, plan: dict[str, Any], route: int | None, names: list[str], statuses: list[int], cost: Any
) -> None:
    """So many at once; the next one is 429 with Retry-After, and gets in when one of them has ended."""
    gate, found = Gate(), {}
    app = app_of(protected, plan | {"requests": ["90/minute"]}, gate, in_flight=route, cost=cost)

    def send(index: int) -> None:
        found[index] = client_of(app)(1, name=names[index])

    threads = []
    for index, status in enumerate(statuses):
        thread = threading.Thread(target=send, args=(index,))
        thread.start()
        threads.append(thread)
        if status == 200:
            assert gate.entered.acquire(timeout=20)
        else:
            thread.join(20)
    rejected = [found[index] for index, status in enumerate(statuses) if status == 429]
    gate.leave.set()
    for thread in threads:
        thread.join(20)
    assert [found[index].status_code for index in range(len(names))] == statuses
    for response in rejected:
        assert response.json["code"] == "too_many_in_flight"
        assert response.headers["Retry-After"] == "1"
    assert [client_of(app)(1, name=name).status_code for name in names] == [200] * len(names)
    limiter: Any = state_of(app).limiter
    assert not limiter.leases._local.get().leases
    assert not limiter.counters._leases


@pytest.mark.parametrize("kind", ["error", "exception", "stream", "closed stream", "rejected"])
def test_leases_are_released(protected: MakeApp, kind: str) -> None:
    """However a request ends."""

    def view(payload: Any) -> Any:
        if kind == "error":
            return "no", 500
        if kind == "exception":
            raise ValueError
        return Response(iter(["a", "b"])) if "stream" in kind else "ok"

    app = app_of(protected, {"in_flight": 1}, view, in_flight=1)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    post = client_of(app)
    for _ in range(3):
        response = post(body={"instances": "no"} if kind == "rejected" else None)
        assert response.status_code == {"error": 500, "exception": 500, "rejected": 422}.get(kind, 200)
        response.close()
    counters: Any = state_of(app).limiter.counters
    assert not counters._leases


def test_head_of_a_stream(protected: MakeApp, sink: MemorySink) -> None:
    """It has no body, so the lease is released and the request logged once when the response starts."""
    app = protected(PLANS={"default": {"in_flight": 1}})
    app.add_url_rule("/stream", "stream", lambda: Response(iter(["a", "b"])))
    client = app.test_client()
    found = [client.head("/stream", base_url=HTTPS, headers=caller()).status_code for _ in range(3)]
    assert found == [200, 200, 200]
    assert ["event" in line for line in sink.records] == [False] * 3


# --- groups, strategies, headers --------------------------------------------------------------------------------


def test_routes_that_count_together(protected: MakeApp) -> None:
    """limit_group is one counter for each caller; without it each route has its own."""
    app = protected()
    for path in ("a", "b"):
        view = protect(limits=["3/minute"], limit_group="gpu")(lambda: "ok")
        app.add_url_rule(f"/{path}", path, view, methods=["POST"])
    post = client_of(app)
    assert [post(path=f"/{path}").status_code for path in "abab"] == [200, 200, 200, 429]
    assert post(path="/a", name="bob").status_code == 200


def test_a_limit_of_its_own_strategy(protected: MakeApp, clock: FakeClock) -> None:
    """GCRA accepts a burst and then a steady rate."""
    smooth = {"limit": "60/minute", "strategy": "gcra", "burst": 3}
    post = client_of(app_of(protected, {"requests": [smooth]}))
    assert [post().status_code for _ in range(4)] == [200, 200, 200, 429]
    clock.advance(1)
    assert [post().status_code for _ in range(2)] == [200, 429]


def _items(header: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found: Any = http_sf.parse(header.encode(), tltype="list")
    yield from found


def test_headers(protected: MakeApp, clock: FakeClock) -> None:
    """Lists of strings with parameters (RL-1 to RL-4): the policy is constant, and names are those of the policy."""
    plan = {"requests": ["2/second", "4/minute"], "quotas": ["100/day"], "in_flight": 3}
    app = app_of(protected, plan, limits=["9/hour"], in_flight=7)
    post = client_of(app)
    responses = [post(10), post(10), post(10)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert len({response.headers["RateLimit-Policy"] for response in responses}) == 1
    assert dict(_items(responses[0].headers["RateLimit-Policy"])) == {
        "requests-1s": {"q": 2, "w": 1},
        "requests-60s": {"q": 4, "w": 60},
        "route-requests-3600s": {"q": 9, "w": 3600},
        "rows-86400s": {"q": 100, "w": 86400, "qu": "rows"},
        "in-flight": {"q": 3, "qu": "concurrent-requests"},
        "route-in-flight": {"q": 7, "qu": "concurrent-requests"},
    }
    left = [dict(_items(response.headers["RateLimit"])) for response in responses]
    assert [each["requests-1s"]["r"] for each in left] == [1, 0, 0]
    assert [each["rows-86400s"]["r"] for each in left] == [90, 80, 80]
    assert all(0 < each["requests-60s"]["t"] <= 60 for each in left)
    assert "Retry-After" not in responses[0].headers
    assert int(responses[2].headers["Retry-After"]) >= left[2]["requests-1s"]["t"]


def test_headers_can_be_off(protected: MakeApp) -> None:
    """SECURE_ML_LIMIT_HEADERS."""
    app = app_of(protected, {"requests": ["5/minute"]}, LIMIT_HEADERS=False)
    assert "RateLimit" not in client_of(app)().headers


def test_an_authenticated_caller_learns_which_limit(protected: MakeApp) -> None:
    """In the problem document, by the name in the headers."""
    post = client_of(app_of(protected, {"requests": ["5/minute"], "quotas": ["10/day"]}))
    assert post(10).status_code == 200
    assert post(1).json["violated-policies"] == ["rows-86400s"]


STRATEGIES = ["fixed-window", "sliding-window-counter", "gcra"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", [1, 30, 100])
def test_whoever_waits_gets_in(protected: MakeApp, clock: FakeClock, strategy: str, rows: int) -> None:
    """Retry-After is true for every limit together, at every moment."""
    plan = {"requests": ["3/10 second", "8/minute"], "quotas": ["100/hour", "300/day"]}
    post = client_of(app_of(protected, plan, RATELIMIT_STRATEGY=strategy))
    for _ in range(25):
        response = post(rows)
        if response.status_code == 429:
            clock.advance(int(response.headers["Retry-After"]))
            assert post(rows).status_code == 200
        clock.advance(0.7)


def test_going_on_beyond_a_limit(protected: MakeApp, clock: FakeClock) -> None:
    """A client that does not wait is rejected for longer, other callers are not; a client that waits gets in."""
    backoff = {"tolerance": 3, "base": 200, "maximum": 400, "jitter": 0, "block_after": 3, "block": 5000}
    app = app_of(protected, {"requests": ["2/minute"]}, LIMIT_BACKOFF=backoff)
    post = client_of(app)
    waits = []
    for _ in range(30):
        response = post()
        if response.status_code == 429:
            waits.append(int(response.headers["Retry-After"]))
        clock.advance(2)
    assert max(waits) == 5000
    assert {200, 400} <= set(waits)
    assert post(name="bob").status_code == 200
    clock.advance(int(post().headers["Retry-After"]))
    assert post().status_code == 200


def test_no_backoff(protected: MakeApp, clock: FakeClock) -> None:
    """False rejects for no longer than the limit."""
    post = client_of(app_of(protected, {"requests": ["2/minute"]}, LIMIT_BACKOFF=False))
    found = []
    for _ in range(300):
        found.append(post().status_code)
        clock.advance(1)
    assert found.count(200) >= 9
