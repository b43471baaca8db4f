"""Views that could never respond are reported by ``check`` and at the first request, with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import pytest
from flask import Flask
from flask.views import MethodView, View
from marshmallow import Schema, fields

from flask_secure_ml import ConfigError, SecureML, protect, public
from support import HTTPS, MakeApp, caller

Decorators = list[Callable[..., Any]]


class Body(Schema):
    x = fields.Integer()


def passing_on(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


def taking_away(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(*args: Any, payload: dict[str, Any], **kwargs: Any) -> Any:
        return view(*args, x=payload["x"], **kwargs)

    return wrapper


def found(app: Flask) -> list[str]:
    """Return the findings of the check, after comparing them with those at the first request."""
    try:
        SecureML.check(app)
    except ConfigError as error:
        response = app.test_client().get("/any", base_url=HTTPS, headers=caller())
        assert response.status_code == 500
        return list(error.problems)
    return []


class Twice(MethodView):
    decorators: ClassVar[Decorators] = [public]

    @protect(scopes=["a"])
    def get(self) -> str:
        return "got"

    def post(self) -> str:
        return "posted"


class Dispatching(View):
    decorators: ClassVar[Decorators] = [protect(scopes=["b"])]

    @protect(scopes=["a"])
    def dispatch_request(self) -> str:
        return "done"


class Both(MethodView):
    @protect(scopes=["b"])
    def dispatch_request(self, **kwargs: Any) -> Any:
        return super().dispatch_request(**kwargs)

    @protect(scopes=["a"])
    def get(self) -> str:
        return "got"


@pytest.mark.parametrize(
    ("view", "names"),
    [
        pytest.param(Twice.as_view("v"), "Twice.decorators and Twice.get", id="decorators and a method"),
        pytest.param(
            Dispatching.as_view("v"),
            "Dispatching.decorators and Dispatching.dispatch_request",
            id="and dispatch_request",
        ),
        pytest.param(Both.as_view("v"), "Both.dispatch_request and Both.get", id="dispatch_request and a method"),
    ],
)
def test_two_policies_of_a_class(app: Flask, view: Any, names: str) -> None:
    """Only one policy is cleared for a request, so the other wrapper would reject every one."""
    app.add_url_rule("/v", view_func=view)
    assert found(app) == [f"'v' has two policies in its code, on {names}; keep one"]


def test_a_wrapped_class_view(app: Flask) -> None:
    """The same, where the decorator is around as_view."""

    class Inner(MethodView):
        @protect(scopes=["a"])
        def get(self) -> str:
            return "got"

    app.add_url_rule("/v", view_func=protect(Inner.as_view("v")))
    assert len(found(app)) == 1


def test_one_policy_in_both_positions(app: Flask) -> None:
    """The same policy is accepted in both, and a mark on the class has no wrapper."""
    reading = protect(scopes=["a"])

    class Same(MethodView):
        decorators: ClassVar[Decorators] = [public]

        def get(self) -> str:
            return "got"

    @protect(scopes=["a"])
    class Marked(MethodView):
        @public
        def get(self) -> str:
            return "got"

    class Methods(MethodView):
        @reading
        def get(self) -> str:
            return "got"

        @protect(scopes=["b"])
        def post(self) -> str:
            return "posted"

    for cls in (Same, Marked, Methods):
        app.add_url_rule(f"/{cls.__name__}", view_func=cls.as_view(cls.__name__))
    assert found(app) == []
    assert app.test_client().get("/Same", base_url=HTTPS).status_code == 200
    assert app.test_client().get("/Marked", base_url=HTTPS).status_code == 200
    assert app.test_client().get("/Methods", base_url=HTTPS, headers=caller("ada", "a")).status_code == 200


def no_argument() -> str:
    return "ok"


async def no_argument_async() -> str:
    return "ok"


def another(rows: Any) -> str:
    return "ok"


def positional(payload: Any, /) -> str:
    return "ok"


class Without(MethodView):
    @protect(body=Body)
    def post(self) -> str:
        return "ok"


class Decorated(MethodView):
    decorators: ClassVar[Decorators] = [protect(body=Body)]

    def post(self, payload: Any) -> Any:
        return payload

    def put(self) -> str:
        return "ok"


class Dispatched(View):
    methods = ("POST",)
    decorators: ClassVar[Decorators] = [protect(body=Body)]

    def dispatch_request(self) -> str:
        return "ok"


@pytest.mark.parametrize(
    ("view", "names"),
    [
        pytest.param(protect(body=Body)(no_argument), "no_argument", id="no argument"),
        pytest.param(public(body=Body)(no_argument), "no_argument", id="public"),
        pytest.param(protect(body=Body)(no_argument_async), "no_argument_async", id="async"),
        pytest.param(protect(body=Body)(another), "another", id="another name"),
        pytest.param(protect(body=Body)(positional), "positional", id="positional only"),
        pytest.param(protect(body=Body)(passing_on(no_argument)), "no_argument", id="behind a decorator"),
        pytest.param(Without.as_view("v"), "Without.post", id="method"),
        pytest.param(Decorated.as_view("v"), "Decorated.put", id="one method of a decorated class"),
        pytest.param(Dispatched.as_view("v"), "Dispatched.dispatch_request", id="decorated class view"),
    ],
)
def test_a_view_that_takes_no_payload(app: Flask, view: Any, names: str) -> None:
    """It would fail at each request with a body."""
    app.add_url_rule("/v", endpoint="v", view_func=view, methods=None if hasattr(view, "view_class") else ["POST"])
    assert found(app) == [f"{names} ('v') has body= in its policy, but no argument named payload; add it"]


class Own(MethodView):
    """A custom dispatch_request may handle the payload in any way."""

    @protect(body=Body)
    def dispatch_request(self, payload: dict[str, Any]) -> Any:  # type: ignore[override]
        return self.post(payload["x"])

    def post(self, x: int) -> dict[str, int]:
        return {"x": x}


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(protect(body=Body)(lambda payload: payload), id="argument"),
        pytest.param(protect(body=Body)(lambda *, payload: payload), id="keyword only"),
        pytest.param(protect(body=Body)(lambda **given: given["payload"]), id="any keyword"),
        pytest.param(protect(body=Body)(passing_on(lambda payload: payload)), id="behind a decorator"),
        pytest.param(protect(body=Body)(taking_away(lambda x: {"x": x})), id="a decorator that takes it away"),
        pytest.param(passing_on(protect(body=Body)(lambda payload: payload)), id="below a decorator"),
        pytest.param(Own.as_view("v"), id="own dispatch"),
    ],
)
def test_views_that_take_their_payload(app: Flask, view: Any) -> None:
    """No correct view is reported, with any decorators between it and the policy."""
    app.add_url_rule("/v", endpoint="v", view_func=view, methods=["POST"])
    assert found(app) == []
    assert app.test_client().post("/v", base_url=HTTPS, headers=caller(), json={"x": 1}).json == {"x": 1}


def test_an_argument_of_the_url_named_payload(app: Flask) -> None:
    """Two values for one argument would be an error at each request."""
    app.add_url_rule(
        "/v/<payload>", endpoint="v", view_func=protect(body=Body)(lambda payload: payload), methods=["POST"]
    )
    assert found(app) == ["'/v/<payload>' has an argument named payload, as the validated body has; rename it"]


def test_a_configured_body_needs_no_argument(protected: MakeApp) -> None:
    """The view of a foreign app reads the request itself."""
    app = protected(POLICIES={"/v": {"body": f"{__name__}:Body"}})
    app.add_url_rule("/v", endpoint="v", view_func=no_argument, methods=["POST"])
    assert found(app) == []
    assert app.test_client().post("/v", base_url=HTTPS, headers=caller(), json={"x": 1}).status_code == 200
