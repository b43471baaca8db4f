"""App code that fails after the view: the resulting response has still passed the filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, after_this_request
from flask.sessions import SecureCookieSessionInterface
from werkzeug.test import TestResponse

from flask_secure_ml import Exchange
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

LEAK = "0.987654321"
PREDICT = {"predict": {"scores": {"round": 1}}}


def fail(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError(LEAK)


def after_request(app: Flask) -> None:
    app.after_request(fail)


def after_request_once(app: Flask) -> None:
    calls: list[Response] = []

    @app.after_request
    def once(response: Response) -> Response:
        calls.append(response)
        return fail() if len(calls) == 1 else response


def after_this(app: Flask) -> None:
    def register() -> None:
        after_this_request(fail)

    app.before_request(register)


def after_blueprint(app: Flask) -> None:
    blueprint = Blueprint("hooks", __name__)
    blueprint.after_app_request(fail)
    app.register_blueprint(blueprint)


def page_and_hook(app: Flask) -> None:
    app.register_error_handler(500, lambda _error: (f"<p>{LEAK}", 500, {"X-Mine": LEAK}))
    app.after_request(fail)


def page_that_fails(app: Flask) -> None:
    app.register_error_handler(500, fail)
    app.after_request(fail)


class FailingSession(SecureCookieSessionInterface):
    save_session = fail


def session(app: Flask) -> None:
    app.secret_key = "0" * 32
    app.session_interface = FailingSession()


FAULTS = [
    after_request,
    after_request_once,
    after_this,
    after_blueprint,
    page_and_hook,
    page_that_fails,
    session,
]


def respond(protected: MakeApp, fault: Callable[[Flask], None], view: Any = None, **request: Any) -> TestResponse:
    app = Flask("model_app")
    app.add_url_rule("/predict", "predict", view or (lambda: {"y": float(LEAK)}))
    fault(app)
    protected(app, POLICIES=PREDICT)
    return app.test_client().get("/predict", base_url=HTTPS, **request)


def assert_filtered(response: TestResponse, status: int, code: str) -> None:
    """The problem document of a status, with every header that a response of ours has."""
    body: Any = response.get_json(force=True)
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert response.content_type == "application/problem+json"
    assert LEAK not in response.text + str(response.headers)
    assert response.headers["X-Request-ID"] == body["request_id"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"]
    assert response.headers["Strict-Transport-Security"]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_error_has_every_header(protected: MakeApp, fault: Callable[[Flask], None], sink: MemorySink) -> None:
    """Whatever fails behind the view, and whatever page the app has for it."""
    assert_filtered(respond(protected, fault, headers=caller()), 500, "internal_error")
    (line,) = sink.records
    assert (line["status"], line["code"]) == (500, "internal_error")


@pytest.mark.parametrize("fault", FAULTS[:4])
def test_a_rejection_stays_one(protected: MakeApp, fault: Callable[[Flask], None]) -> None:
    """A request without a credential gets its challenge, although a hook fails on the response."""
    response = respond(protected, fault)
    if fault is after_this:
        # It is registered by a hook of the app, and the guards run before any.
        assert response.status_code == 401
    else:
        assert_filtered(response, 401, "not_authenticated")
        assert response.headers["WWW-Authenticate"]


def test_a_view_and_a_hook_that_fail(protected: MakeApp) -> None:
    """The error of the view is reported, and the hook does not change the response."""
    assert_filtered(respond(protected, after_request, fail, headers=caller()), 500, "internal_error")


def test_a_filter_of_the_user_that_fails(protected: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The other filters still run on the error response."""

    class Failing:
        def apply(self, response: Response, exchange: Exchange) -> None:
            fail()

    app = Flask("model_app")
    app.add_url_rule("/predict", "predict", lambda: {"y": float(LEAK)})
    protected(app, parts={"filters": [Failing()]}, POLICIES=PREDICT)
    response = app.test_client().get("/predict", base_url=HTTPS, headers=caller())
    assert_filtered(response, 500, "internal_error")
    assert "a filter failed for the error response" in caplog.text


def test_pages_of_the_app_stay_without_a_failing_hook(protected: MakeApp) -> None:
    """An error handler of the app keeps its body and headers where the filters ran."""

    def own_page(app: Flask) -> None:
        app.register_error_handler(500, lambda _error: ({"fault": "ours"}, 500, {"X-Mine": "1"}))

    response = respond(protected, own_page, fail, headers=caller())
    assert (response.status_code, response.json, response.headers["X-Mine"]) == (500, {"fault": "ours"}, "1")
    assert response.headers["Cache-Control"] == "no-store"


def test_errors_still_reach_a_test(protected: MakeApp) -> None:
    """With ``TESTING``, a test of the app gets the exception itself."""
    app = Flask("model_app")
    app.testing = True
    app.add_url_rule("/predict", "predict", lambda: {"y": 1})
    app.after_request(fail)
    protected(app)
    with pytest.raises(RuntimeError, match=LEAK):
        app.test_client().get("/predict", base_url=HTTPS, headers=caller())


def test_middleware_beneath_that_gives_up_on_flask(protected: MakeApp) -> None:
    """A response of middleware that stopped waiting for Flask is its own, and leaves."""

    class Timeout(BaseException):
        """As gevent's: no error that Flask would handle."""

    def view() -> Any:
        raise Timeout

    app = Flask("model_app")
    app.add_url_rule("/predict", "predict", view)
    inner = app.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        try:
            return inner(environ, start_response)
        except Timeout:
            start_response("504 Gateway Timeout", [("Content-Type", "text/plain")])
            return [b"too slow"]

    app.wsgi_app = middleware  # type: ignore[method-assign]
    protected(app)
    response = app.test_client().get("/predict", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.data) == (504, b"too slow")
