"""The policy of a request: a body is required only where the view runs."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.views import MethodView, View
from marshmallow import Schema
from werkzeug.test import TestResponse

from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.state import state_of
from support import HTTPS, MakeApp, caller

ROWS = {"instances": [[1, 2]]}
PLANS = {"default": {"quotas": ["3/day"]}}


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


PREDICTION: dict[str, Any] = {"body": Rows, "cost": "instances"}


def function(payload: dict[str, Any]) -> dict[str, Any]:
    return {"rows": len(payload["instances"])}


class Methods(MethodView):
    @protect(**PREDICTION)
    def post(self, payload: dict[str, Any]) -> dict[str, Any]:
        return function(payload)


class Dispatched(View):
    methods = ("POST",)

    @protect(**PREDICTION)
    def dispatch_request(self, payload: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return function(payload)


class Requesting(View):
    """A view that leaves OPTIONS to Flask although its methods name it."""

    methods = ("POST", "OPTIONS")
    provide_automatic_options = True

    @protect(**PREDICTION)
    def dispatch_request(self, payload: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return function(payload)


def open_as(app: Flask, method: str, **given: Any) -> TestResponse:
    return app.test_client().open("/predict", method=method, base_url=HTTPS, headers=caller(), **given)


@pytest.mark.parametrize(
    ("view", "options"),
    [
        pytest.param(protect(**PREDICTION)(function), {"methods": ["POST"]}, id="function"),
        pytest.param(Methods.as_view("predict"), {}, id="method view"),
        pytest.param(Dispatched.as_view("predict"), {}, id="class view"),
        pytest.param(Requesting.as_view("predict"), {}, id="class view that requests it"),
        pytest.param(
            protect(**PREDICTION)(function),
            {"methods": ["POST", "OPTIONS"], "provide_automatic_options": True},
            id="function that requests it",
        ),
    ],
)
def test_automatic_options_needs_no_payload(protected: MakeApp, view: Any, options: dict[str, Any]) -> None:
    """Flask responds without the view, so no body is loaded and nothing is charged."""
    app = protected(PLANS=PLANS)
    app.add_url_rule("/predict", endpoint="predict", view_func=view, **options)
    responses = [open_as(app, "OPTIONS") for _ in range(5)]
    assert [each.status_code for each in responses] == [200] * 5
    assert responses[0].allow == {"OPTIONS", "POST"}
    assert open_as(app, "OPTIONS", json={"instances": "no tensor"}).status_code == 200
    posted = [open_as(app, "POST", json=ROWS) for _ in range(4)]
    assert [each.status_code for each in posted] == [200, 200, 200, 429]
    assert open_as(app, "POST", json={}).status_code == 422


def test_automatic_options_of_a_configured_policy(protected: MakeApp) -> None:
    """For a policy in the configuration too, the schema applies only to requests that reach the view."""
    app = protected(POLICIES={"/predict": {"body": f"{__name__}:Rows", "cost": "instances"}}, PLANS=PLANS)
    app.add_url_rule("/predict", methods=["POST"], view_func=lambda: "ok")
    SecureML.check(app)
    assert open_as(app, "OPTIONS").status_code == 200
    assert [open_as(app, "POST", json=ROWS).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_automatic_options_keeps_access_and_limits(protected: MakeApp) -> None:
    """Only the payload is optional: scopes, limits of the route and limits on a body apply."""
    app = protected()
    app.add_url_rule(
        "/predict",
        methods=["POST"],
        view_func=protect(scopes=["predict"], limits=["2/hour"], caps={"max_body_bytes": 10}, **PREDICTION)(function),
    )
    client = app.test_client()
    able = caller("ada", "predict")
    assert client.options("/predict", base_url=HTTPS).status_code == 401
    assert client.options("/predict", base_url=HTTPS, headers=caller()).status_code == 403
    assert client.options("/predict", base_url=HTTPS, headers=able, data=b"x" * 11).status_code == 413
    assert client.options("/predict", base_url=HTTPS, headers=able).status_code == 200
    assert client.options("/predict", base_url=HTTPS, headers=able).status_code == 429


def test_automatic_options_of_a_public_route(app: Flask) -> None:
    """It stays public."""
    app.add_url_rule("/predict", methods=["POST"], view_func=public(body=Rows)(function))
    assert app.test_client().options("/predict", base_url=HTTPS).status_code == 200


def test_a_hook_that_responds_to_options_keeps_the_options_of_the_response(app: Flask) -> None:
    """The response of a hook in place of Flask's is masked like a response of the view."""

    @app.before_request
    def cached() -> dict[str, float]:
        return {"score": 0.123456}

    app.add_url_rule("/predict", methods=["POST"], view_func=protect(scores={"round": 2}, **PREDICTION)(function))
    assert open_as(app, "OPTIONS").json == {"score": 0.12}


def test_a_view_that_handles_options_itself(app: Flask) -> None:
    """Its own OPTIONS takes the payload as its other methods do; without one it is an error of the client."""
    app.add_url_rule("/predict", methods=["POST", "OPTIONS"], view_func=protect(**PREDICTION)(function))
    assert open_as(app, "OPTIONS", json=ROWS).json == {"rows": 1}
    assert open_as(app, "OPTIONS", json={}).status_code == 422
    assert open_as(app, "OPTIONS").status_code == 415


def test_a_method_view_with_an_options_method_of_its_own(app: Flask) -> None:
    """Its method is its own policy, which needs no payload."""

    class Both(Methods):
        def options(self) -> str:
            return "mine"

    app.add_url_rule("/predict", view_func=Both.as_view("predict"))
    assert open_as(app, "OPTIONS").text == "mine"
    assert open_as(app, "POST", json=ROWS).json == {"rows": 1}


def test_head_of_a_route_with_a_body(protected: MakeApp) -> None:
    """If the view runs for HEAD, it needs and pays the same as GET; otherwise HEAD is not allowed."""
    app = protected(PLANS=PLANS)
    app.add_url_rule("/predict", view_func=protect(**PREDICTION)(function))
    got, head = open_as(app, "GET", json=ROWS), open_as(app, "HEAD", json=ROWS)
    assert (head.status_code, head.data, head.content_length) == (200, b"", got.content_length)
    assert [open_as(app, "HEAD").status_code, open_as(app, "GET").status_code] == [415, 415]
    assert [open_as(app, "HEAD", json=ROWS).status_code for _ in range(2)] == [200, 429]
    app = protected()
    app.add_url_rule("/predict", methods=["POST"], view_func=protect(**PREDICTION)(function))
    assert open_as(app, "HEAD").status_code == 405


def test_a_view_that_runs_for_automatic_options_fails_closed(protected: MakeApp) -> None:
    """An app that overrides how Flask dispatches does not get to a view without its payload."""

    class Dispatching(Flask):
        def dispatch_request(self) -> Any:
            return self.view_functions["predict"]()

    app = protected(Dispatching("model_app"))
    app.add_url_rule("/predict", endpoint="predict", methods=["POST"], view_func=protect(**PREDICTION)(function))
    assert open_as(app, "POST", json=ROWS).json == {"rows": 1}
    assert open_as(app, "OPTIONS").status_code == 500


def test_two_rules_of_one_url(app: Flask) -> None:
    """A rule that leaves OPTIONS to Flask is not mistaken for another one of the same URL, whose view handles it."""
    app.add_url_rule("/predict", endpoint="predict", methods=["POST"], view_func=protect(**PREDICTION)(function))
    app.add_url_rule("/predict", endpoint="predict", methods=["OPTIONS"], provide_automatic_options=False)
    policies = state_of(app).policies
    found = {
        "POST" in (rule.methods or ()): policies.find(rule, "OPTIONS") for rule in app.url_map.iter_rules("predict")
    }
    assert (found[True].body, found[True].cost) == (None, None)
    assert (type(found[False].body), found[False].cost) == (Rows, "instances")
