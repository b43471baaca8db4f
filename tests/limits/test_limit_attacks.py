"""Attempts to use more than a limit allows, and honest callers that a limit must not reject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort
from marshmallow import Schema, fields, pre_load
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_secure_ml import current_exchange, protect
from flask_secure_ml.errors import Completed, MalformedRequest
from flask_secure_ml.pipeline import Stage
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from limited import NOTHING, Body, Prompt, leases_of, post, statuses
from support import HTTPS, MakeApp

# --- requests that end before their price is known ----------------------------------------------------------------


class Ends:
    """A guard of the app's own that ends each request after LIMIT and before COST."""

    name = "ends"
    stage = Stage.INPUT

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end

    def check(self, request: Any, exchange: Any) -> None:
        self._end()


def complete() -> None:
    raise Completed(Response(status=304))


def divide() -> float:
    return 1 / 0


def malformed() -> None:
    raise MalformedRequest("no")


@pytest.mark.parametrize(
    ("end", "status"),
    [(complete, 304), (divide, 500), (malformed, 400), (lambda: abort(418), 418)],
    ids=["a response", "a fault", "a rejection", "an HTTP error"],
)
def test_a_guard_that_ends_a_request(protected: MakeApp, end: Callable[[], object], status: int) -> None:
    """It is a request, and counts as one."""
    app = protected(PLANS={"default": {"requests": ["3/minute"]}}, parts={"guards": [Ends(end)]})
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/x", "x", protect(body=Prompt, cost=1)(lambda payload: "ok"), methods=["POST"])
    assert statuses(app, 6) == [status] * 3 + [429] * 3


class Hooked(Schema):
    prompt = fields.String()

    @pre_load
    def look(self, data: Any, **_: Any) -> Any:
        if data["prompt"] == "abort":
            abort(418)
        return data | {"prompt": data["prompt"][9]}


def faulty_price(_payload: Any) -> int:
    raise KeyError


@pytest.mark.parametrize(
    ("options", "body", "status"),
    [
        pytest.param({"body": Hooked, "cost": 1}, {"prompt": "x"}, 500, id="a hook of a schema"),
        pytest.param({"body": Hooked, "cost": 1}, {"prompt": "abort"}, 418, id="a hook that aborts"),
        pytest.param({"body": Prompt, "cost": faulty_price}, {"prompt": "x"}, 500, id="the function of a price"),
    ],
)
def test_code_of_the_app_that_fails(protected: MakeApp, options: dict[str, Any], body: Body, status: int) -> None:
    """An input that makes the app fail does not give a caller free requests."""
    app = protected(PLANS={"default": {"requests": ["3/minute"]}})
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/x", "x", protect(**options)(lambda payload: "ok"), methods=["POST"])
    assert statuses(app, 6, "/x", body) == [status] * 3 + [429] * 3


# --- prices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("plan", [{"quotas": ["100/day"]}, {"requests": ["9/minute"]}, {"batch": 9}], ids=str)
def test_huge_prices(protected: MakeApp, tmp_path: Path, store: str, plan: dict[str, Any]) -> None:
    """413, whatever the plan, and the request is charged."""
    uri = f"sqlite:{tmp_path}/s.db" if store == "sqlite" else store
    app = protected(PLANS={"default": plan}, STORE_URI=uri, USAGE_DAYS=9 if store == "sqlite" else 0)
    view = protect(body=Prompt, cost=lambda payload: 10 ** payload["size"])(lambda payload: "ok")
    app.add_url_rule("/x", "x", view, methods=["POST"])
    assert statuses(app, 1, "/x", {"size": 400}) == [413]
    assert statuses(app, 1, "/x", {"size": 0}) == [200]


def test_a_view_that_reports_no_price(protected: MakeApp) -> None:
    """An error is raised before the request is counted."""
    app = protected(PLANS={"default": {"quotas": ["100/day"], "in_flight": 1}})
    found: list[str] = []

    def view(payload: Any) -> str:
        for rows in (-1, True, 2.0, 10**400):
            try:
                current_exchange.charge(rows)  # type: ignore[arg-type]
            except ValueError as error:
                found.append(str(error))
        return "ok"

    app.add_url_rule("/x", "x", protect(body=Prompt, cost=1)(view), methods=["POST"])
    assert statuses(app, 2) == [200, 200]
    assert len(found) == 8
    assert leases_of(app) == NOTHING


# --- guarded twice ------------------------------------------------------------------------------------------------


class Rewriting:
    """Middleware beneath the guards that sends ``/a`` to ``/b``."""

    def __init__(self, below: Any) -> None:
        self._below = below

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/a":
            environ["PATH_INFO"] = "/b"
        return self._below(environ, start_response)


def rewritten(protected: MakeApp, first: dict[str, Any], second: dict[str, Any], **plan: Any) -> Flask:
    app = Flask("rewritten")
    app.wsgi_app = Rewriting(app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/a", "a", protect(**first)(lambda **_: "a"), methods=["POST"])
    app.add_url_rule("/b", "b", protect(**second)(lambda payload=None: "b"), methods=["POST"])
    return protected(app, PLANS={"default": plan})


def test_a_lease_that_is_taken_twice_is_released(protected: MakeApp) -> None:
    """A request that is guarded under two policies is in flight once, and then no more."""
    app = rewritten(protected, {"limits": ["90/minute"]}, {"limits": ["80/minute"]}, in_flight=1)
    app.add_url_rule("/c", "c", protect(body=Prompt, cost=1)(lambda payload: "c"), methods=["POST"])
    assert post(app, "/a").data == b"b"
    assert leases_of(app) == NOTHING
    assert statuses(app, 3, "/c") == [200] * 3


def test_a_price_that_is_given_back_after_a_second_policy(protected: MakeApp) -> None:
    """Also if that policy has no price."""
    priced = {"body": Prompt, "cost": 10, "refund": "never"}
    app = rewritten(protected, priced, {"limits": ["80/minute"], "refund": "failures"}, quotas=["100/day"])
    app.view_functions["b"] = protect(limits=["80/minute"], refund="failures")(lambda: ("b", 400))
    assert statuses(app, 12, "/a") == [400] * 12


def test_the_stricter_of_two_limits_with_one_counter(protected: MakeApp) -> None:
    """Amounts of a group of limits differ by policy: each applies to requests under its policy."""
    app = rewritten(
        protected,
        {"limits": ["50/minute"], "limit_group": "g"},
        {"limits": ["4/minute"], "limit_group": "g"},
    )
    assert statuses(app, 20, "/a").count(200) <= 4


@pytest.mark.parametrize(
    ("reported", "first", "second"),
    [
        (None, (1, 10, 10), (0, 5, 5)),
        (12, (1, 10, 10), (0, 5, 2)),
        (3, (1, 10, 3), (0, 5, 0)),
        (40, (1, 10, 10), (0, 5, 30)),
    ],
)
def test_the_bill_of_a_request_that_is_guarded_twice(
    protected: MakeApp, tmp_path: Path, reported: int | None, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    """One request at the higher of two prices, corrected where it was counted, never below zero."""

    def view(payload: Any) -> str:
        if reported is not None:
            current_exchange.charge(reported)
        return "b"

    app = Flask("rewritten")
    app.wsgi_app = Rewriting(app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/a", "a", protect(body=Prompt, cost=10)(view), methods=["POST"])
    app.add_url_rule("/b", "b", protect(body=Prompt, cost=15)(view), methods=["POST"])
    protected(app, PLANS={"default": {"quotas": ["100/day"]}}, STORE_URI=f"sqlite:{tmp_path}/s.db", USAGE_DAYS=9)
    assert post(app, "/a").data == b"b"
    counted = {each.route: each[4:] for each in state_of(app).limiter.counters.used(0, 10**6)}
    assert counted == {"a": first, "b": second}
    left = 100 - (15 if reported is None else reported)
    assert f"r={left - 15};" in post(app, "/b").headers["RateLimit"]


# --- two apps -----------------------------------------------------------------------------------------------------


def mounted(
    protected: MakeApp, uri: str, inner_plan: dict[str, Any], outer_plan: dict[str, Any]
) -> tuple[Flask, Flask]:
    inner = protected(Flask("inner"), STORE_URI=uri, PLANS={"default": inner_plan})
    inner.add_url_rule("/x", "x", protect(body=Prompt, cost=10)(lambda payload: "ok"), methods=["POST"])
    outer = Flask("outer")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": inner})  # type: ignore[method-assign]
    return protected(outer, STORE_URI=uri, PLANS={"default": outer_plan}), inner


def test_an_app_within_an_app_is_charged_once(protected: MakeApp, tmp_path: Path) -> None:
    """Where both count in one store, a request is one."""
    plan = {"requests": ["6/minute"], "in_flight": 1, "quotas": ["1000/day"]}
    outer, inner = mounted(protected, f"sqlite:{tmp_path}/s.db", plan, plan)
    assert statuses(outer, 8, "/in/x") == [200] * 6 + [429] * 2
    assert leases_of(outer)[:2] == leases_of(inner)[:2] == ({}, {})


def test_a_stricter_app_within_an_app(protected: MakeApp, tmp_path: Path) -> None:
    """Its limits hold."""
    outer, _ = mounted(protected, f"sqlite:{tmp_path}/s.db", {"requests": ["4/minute"]}, {"requests": ["90/minute"]})
    assert statuses(outer, 20, "/in/x").count(200) <= 4


# --- names --------------------------------------------------------------------------------------------------------


def test_a_group_is_no_route(protected: MakeApp) -> None:
    """A name of a group that is also an endpoint makes no common counter."""
    app = protected(PLANS={"default": {}})
    app.add_url_rule("/x", "x", protect(limits=["2/minute"])(lambda: "ok"), methods=["POST"])
    app.add_url_rule("/y", "y", protect(limits=["2/minute"], limit_group="x")(lambda: "ok"), methods=["POST"])
    assert statuses(app, 2, "/x") + statuses(app, 3, "/y") == [200, 200, 200, 200, 429]


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_caller_whose_name_is_no_text(protected: MakeApp, tmp_path: Path, store: str) -> None:
    """Half of a surrogate pair, which an authenticator of the app's own may let through, is a name like another."""
    days, uri = (9, f"sqlite:{tmp_path}/s.db") if store == "sqlite" else (0, store)
    app = protected(PLANS={"default": {"requests": ["2/minute"]}}, STORE_URI=uri, USAGE_DAYS=days)
    app.add_url_rule("/x", "x", protect()(lambda: "ok"), methods=["POST"])
    environ = {"HTTP_X_TEST_CALLER": "a\ud800"}
    client = app.test_client()
    found = [client.post("/x", base_url=HTTPS, environ_overrides=environ).status_code for _ in range(3)]
    assert found == [200, 200, 429]


# --- what callers learn -------------------------------------------------------------------------------------------


def test_limits_name_no_route_and_no_caller(protected: MakeApp, clock: FakeClock) -> None:
    """Names in the headers and the problem document are of units and windows."""
    app = protected(PLANS={"default": {"requests": ["3/minute"], "in_flight": 4}})
    app.add_url_rule(
        "/secret", "secret_route", protect(limits=["9/minute"], limit_group="secret_group", in_flight=9)(lambda: "ok"),
        methods=["POST"],
    )  # fmt: skip
    for _ in range(5):
        response = post(app, "/secret", name="secret_caller")
        assert "secret" not in str(response.headers) + response.text
