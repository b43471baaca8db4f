"""Public responses in shared caches: errors and cookies of one caller are not stored for others."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, abort, make_response, redirect, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_secure_ml import public
from support import HTTPS, MakeApp, caller

DECLARED = "public, max-age=60"
SHARED: dict[str, Any] = {"headers": {"values": {"Cache-Control": DECLARED}}}


def _fails() -> str:
    raise RuntimeError


def _with_cookie(response: Response) -> Response:
    response.set_cookie("visitor", "1")
    return response


def _own_age() -> Response:
    response = make_response("there is none", 404)
    response.headers["Cache-Control"] = "public, max-age=5"
    return response


def _in_session() -> str:
    session["visits"] = 1
    return "welcome"


VIEWS: dict[str, Any] = {
    "/ok": lambda: {"ok": True},
    "/missing": lambda: abort(404),
    "/refused": lambda: ({"error": "no"}, 400),
    "/fails": _fails,
    "/moved": lambda: redirect("/ok"),
    "/own-age": _own_age,
    "/cookie": lambda: _with_cookie(make_response("ok")),
    "/session": _in_session,
}


@pytest.fixture
def shared(protected: MakeApp) -> Flask:
    app = protected()
    app.config["SECRET_KEY"] = "a-key-that-signs-the-sessions-of-tests"
    for rule, view in VIEWS.items():
        app.add_url_rule(rule, endpoint=rule[1:], view_func=public(**SHARED)(view))
    app.add_url_rule("/scarce", endpoint="scarce", view_func=public(limits=["1/hour"], **SHARED)(lambda: "ok"))
    return app


def caching(app: Flask, path: str, **options: Any) -> tuple[int, str | None]:
    response = app.test_client().open(path, base_url=HTTPS, **options)
    return response.status_code, response.headers.get("Cache-Control")


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/ok", 200, DECLARED),
        ("/moved", 302, DECLARED),
        ("/missing", 404, "no-store"),
        ("/refused", 400, "no-store"),
        ("/fails", 500, "no-store"),
        ("/own-age", 404, "public, max-age=5"),
        ("/cookie", 200, "private, max-age=60"),
        ("/session", 200, "private, max-age=60"),
    ],
)
def test_what_a_view_responds(shared: Flask, path: str, status: int, expected: str) -> None:
    """The declared age applies to a success without a cookie; a view may set one for its own error."""
    assert caching(shared, path) == (status, expected)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Accept": "application/x-nothing"}}, 406),
        ({"method": "DELETE"}, 401),
        ({"environ_overrides": {"QUERY_STRING": "\xff"}}, 400),
    ],
)
def test_what_the_guards_reject(shared: Flask, options: Any, status: int) -> None:
    """The error response to a malformed or unacceptable request is not stored."""
    assert caching(shared, "/ok", **options) == (status, "no-store")
    assert caching(shared, "/ok") == (200, DECLARED)


def test_limits(shared: Flask) -> None:
    """The 429 of one network is not stored."""
    assert caching(shared, "/scarce") == (200, DECLARED)
    assert caching(shared, "/scarce") == (429, "no-store")


def test_errors_of_private_routes(shared: Flask) -> None:
    """The caller's browser does not store them either."""
    assert caching(shared, "/nothing", headers=caller()) == (404, "no-store")


def test_a_mounted_app(bare_app: Flask, protected: MakeApp) -> None:
    """A response with a cookie of an app beneath the guards is made ``private``."""

    def mounted(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", DECLARED), ("Set-Cookie", "visitor=1"), ("Content-Length", "2")])
        return [b"ok"]

    bare_app.wsgi_app = DispatcherMiddleware(bare_app.wsgi_app, {"/mounted": mounted})  # type: ignore[method-assign]
    app = protected(bare_app, POLICIES={"/mounted": {"public": True}})
    assert caching(app, "/mounted") == (200, "private, max-age=60")
