"""A rejection keeps its status, its code and its protocol headers, whatever error handlers of the app made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, abort, jsonify, redirect
from marshmallow import Schema
from marshmallow.fields import Integer
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import TestResponse

from flask_secure_ml import Exchange, public
from flask_secure_ml.errors import Forbidden, MalformedRequest
from flask_secure_ml.pipeline import Stage
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

PLANS = {"default": {"requests": ["2/hour"]}}


def as_json(error: HTTPException) -> Any:
    """Return the JSON error response of Flask's documentation."""
    response: Any = error.get_response()
    response.data = jsonify(code=error.code, name=error.name).data
    response.content_type = "application/json"
    return response


def fail(_error: Exception) -> Any:
    raise LookupError("in the handler")


HANDLERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "200 to everything": (Exception, lambda _: ({"ok": False}, 200)),
    "200 to HTTP errors": (HTTPException, lambda _: ({"ok": False}, 200)),
    "500 to everything": (Exception, lambda _: ("sorry", 500)),
    "JSON for HTTP errors": (HTTPException, as_json),
    "a page for its status": (HTTPException, lambda error: (f"<p>{error.code}", error.code)),
    "a redirect to a login page": (401, lambda _: redirect("/login")),
    "a challenge of its own": (401, lambda _: ("", 401, {"WWW-Authenticate": "Basic", "X-Error-Code": "mine"})),
    "another error": (HTTPException, lambda _: abort(404)),
    "an exception": (HTTPException, fail),
    "another rejection": (HTTPException, lambda _: Forbidden("mine").get_response()),
}


@pytest.fixture(params=["plain", "mounting"])
def serving(request: pytest.FixtureRequest, protected: MakeApp) -> Callable[..., Flask]:
    """Make an app that is guarded in Flask's first hook, or one that is guarded before what stands beneath."""

    def make(**settings: Any) -> Flask:
        app = Flask("model_app")
        if request.param == "mounting":
            app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": Response("metrics")})  # type: ignore[method-assign]
        app.add_url_rule("/predict", "predict", lambda: "ok", methods=["GET", "POST"])
        return protected(app, **settings)

    return make


def ask(app: Flask, headers: Any = None, **request: Any) -> TestResponse:
    return app.test_client().open("/predict", base_url=HTTPS, headers=headers, **request)


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_changes_no_rejection(serving: Callable[..., Flask], sink: MemorySink, name: str) -> None:
    """Status, code, challenge and id are those of the rejection; the log too."""
    app = serving()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(*HANDLERS[name])
    response = ask(app)
    assert response.status_code == 401
    assert response.headers.getlist("X-Error-Code") == ["not_authenticated"]
    assert response.headers.getlist("WWW-Authenticate") == ['Test realm="model"']
    assert len(response.headers["X-Request-ID"]) == 32
    assert "Location" not in response.headers
    if response.mimetype == "application/problem+json":
        assert response.get_json(force=True)["status"] == 401
    (line,) = sink.records
    assert (line["status"], line["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_when_to_try_again(serving: Callable[..., Flask], handler: tuple[Any, Callable[[Any], Any]]) -> None:
    """A 429 keeps Retry-After."""
    app = serving(PLANS=PLANS)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(*handler)
    response = [ask(app, caller()) for _ in range(3)][2]
    assert (response.status_code, response.headers["X-Error-Code"]) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) > 0


def test_a_hook_changes_no_rejection(serving: Callable[..., Flask]) -> None:
    """An after_request function runs before the filter, so it cannot open a rejection either."""
    app = serving()

    @app.after_request
    def hide(response: Response) -> Response:
        response.status_code = 200
        response.headers.clear()
        return response

    response = ask(app)
    assert (response.status_code, response.headers["X-Error-Code"]) == (401, "not_authenticated")
    assert response.headers["WWW-Authenticate"]


def test_the_body_stays_the_apps(serving: Callable[..., Flask]) -> None:
    """A handler exists for its own message."""
    app = serving()
    app.register_error_handler(401, lambda _: ({"error": "please log in"}, 200))
    response = ask(app)
    assert (response.status_code, response.json) == (401, {"error": "please log in"})


class Numbers(Schema):
    """One member."""

    x = Integer(strict=True)


BAD: dict[str, Any] = {"json": {"x": "many"}, "method": "POST"}


def as_object(error: HTTPException) -> Any:
    return {"message": "no"}, error.code


@pytest.mark.parametrize("handler", [as_object, as_json])
def test_what_was_wrong_with_a_body_stays(serving: Callable[..., Flask], handler: Callable[[Any], Any]) -> None:
    """The errors of a 422 are in each JSON object that a handler wrote, with its own members."""
    app = serving(POLICIES={"/predict": {"body": f"{__name__}:Numbers"}})
    app.register_error_handler(HTTPException, handler)
    response = ask(app, caller(), **BAD)
    body: Any = response.json
    assert (response.status_code, body["errors"][0]["pointer"]) == (422, "/x")
    assert body.keys() > {"errors"}


@pytest.mark.parametrize(
    "written",
    [["a list"], "a text", {"errors": "mine"}, Response("{", 422, mimetype="application/json"), Response(iter("{}"))],
)
def test_other_bodies_of_a_422_stay(serving: Callable[..., Flask], written: Any) -> None:
    """A body that is not an object, cannot be read or already has the member is not changed."""
    app = serving(POLICIES={"/predict": {"body": f"{__name__}:Numbers"}})
    app.register_error_handler(422, lambda _: written)
    response = ask(app, caller(), **BAD)
    assert response.status_code == 422
    assert "pointer" not in response.text


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_bodies_of_ours_only(serving: Callable[..., Flask], handler: tuple[Any, Callable[[Any], Any]]) -> None:
    """With SECURE_ML_ERROR_BODY, clients get the problem document whatever the app wrote."""
    app = serving(ERROR_BODY="ours", POLICIES={"/predict": {"body": f"{__name__}:Numbers"}})
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(*handler)
    for headers, status in (({}, 401), (caller(), 422)):
        response = ask(app, headers, **BAD)
        assert (response.status_code, response.mimetype) == (status, "application/problem+json")
        assert response.get_json(force=True)["status"] == status
    assert response.get_json(force=True)["errors"]


def test_bodies_of_ours_for_errors_of_flask(serving: Callable[..., Flask]) -> None:
    """A 404 has the document too; an error that the app raises itself does not."""
    app = serving(ERROR_BODY="ours")
    app.register_error_handler(HTTPException, as_object)
    app.add_url_rule("/own", "own", lambda: abort(409))
    client = app.test_client()
    found: Any = client.get("/nowhere", base_url=HTTPS, headers=caller())
    own: Any = client.get("/own", base_url=HTTPS, headers=caller())
    assert (found.json["code"], own.json) == ("not_found", {"message": "no"})


@pytest.mark.parametrize("kind", [400, HTTPException, Exception], ids=["status", "HTTPException", "Exception"])
def test_handlers_of_the_app_see_its_errors(serving: Callable[..., Flask], sink: MemorySink, kind: Any) -> None:
    """An abort of a view reaches them, and has a code and a reason."""
    app = serving()
    app.add_url_rule("/own", "own", lambda: abort(400, "feature x is missing"))
    app.register_error_handler(kind, lambda error: ({"said": error.description}, error.code))
    response = app.test_client().get("/own", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json) == (400, {"said": "feature x is missing"})
    assert response.headers["X-Error-Code"] == "malformed_request"
    (line,) = sink.records
    assert (line["code"], line["reason"]) == ("malformed_request", "BadRequest: feature x is missing")


def test_handlers_that_pass_http_errors_on(serving: Callable[..., Flask]) -> None:
    """If errorhandler(Exception) returns an HTTP error unchanged, the client gets the problem document."""
    app = serving()
    app.add_url_rule("/own", "own", lambda: abort(409, "another run is active"))
    app.register_error_handler(Exception, lambda error: error)
    for path, status, detail in (("/own", 409, "another run is active"), ("/nowhere", 404, "There is no resource")):
        response = app.test_client().get(path, base_url=HTTPS, headers=caller())
        assert (response.status_code, response.mimetype) == (status, "application/problem+json")
        assert detail in response.text


def test_an_exception_that_a_handler_took(serving: Callable[..., Flask], sink: MemorySink) -> None:
    """It has the code of the handler's status; the log has its type, but not its message."""
    app = serving()
    app.add_url_rule("/own", "own", lambda: str({"a": 1}["secret"]))
    app.register_error_handler(KeyError, lambda _: ("no such row", 404))
    response = app.test_client().get("/own", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.headers["X-Error-Code"]) == (404, "not_found")
    assert [line["reason"] for line in sink.records] == ["KeyError"]


def test_an_exception_that_is_no_error(serving: Callable[..., Flask], sink: MemorySink) -> None:
    """A handler that responds with 200 leaves no reason."""
    app = serving()
    app.add_url_rule("/own", "own", lambda: str({"a": 1}["secret"]))
    app.register_error_handler(KeyError, lambda _: "nothing")
    assert app.test_client().get("/own", base_url=HTTPS, headers=caller()).status_code == 200
    assert [line["reason"] for line in sink.records] == [None]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PATCH", "/predict", 405, "method_not_allowed"),
        ("GET", "/crash", 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["ours", "a handler of the app"])
def test_errors_of_flask(
    serving: Callable[..., Flask], method: str, path: str, status: int, code: str, own: bool
) -> None:
    """They have their code, and a 405 its methods, under a handler that keeps the status."""
    app = serving()
    app.add_url_rule("/crash", "crash", lambda: str(1 / 0))
    if own:
        app.register_error_handler(HTTPException, lambda error: ("sorry", error.code))
    response = app.test_client().open(path, method=method, base_url=HTTPS, headers=caller())
    assert (response.status_code, response.headers["X-Error-Code"]) == (status, code)
    assert ("Allow" in response.headers) == (status == 405)


def test_a_page_for_unknown_urls_stays(serving: Callable[..., Flask]) -> None:
    """A single-page app responds to unknown URLs with its page, once the caller is known."""
    app = serving()
    app.register_error_handler(404, lambda _: ("<p>the app", 200))
    response = app.test_client().get("/some/view", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.text) == (200, "<p>the app")
    assert "X-Error-Code" not in response.headers
    assert app.test_client().get("/some/view", base_url=HTTPS).status_code == 401


def test_another_status_for_an_unknown_url(serving: Callable[..., Flask]) -> None:
    """It is the app's, and no code of ours describes it."""
    app = serving()
    app.register_error_handler(404, lambda _: ("gone", 410))
    response = app.test_client().get("/nowhere", base_url=HTTPS, headers=caller())
    assert (response.status_code, "X-Error-Code" in response.headers) == (410, False)


def test_the_log_has_the_rejection(protected: MakeApp, sink: MemorySink) -> None:
    """Also where a handler failed on it, and a hook rewrote the error response for that."""
    app = protected()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(401, fail)

    @app.after_request
    def rewrite(response: Response) -> Response:
        response.data, response.content_type = b"sorry", "text/plain"
        return response

    response = ask(app)
    assert (response.status_code, response.text) == (401, "sorry")
    assert [(line["status"], line["code"]) for line in sink.records] == [(401, "not_authenticated")]


@pytest.mark.parametrize("status", [200, 404, 422])
def test_responses_of_views_stay(serving: Callable[..., Flask], status: int) -> None:
    """A response of a view is not a rejection."""
    app = serving()
    app.add_url_rule("/own", "own", lambda: ("own", status))
    response = app.test_client().get("/own", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.text) == (status, "own")
    assert "X-Error-Code" not in response.headers


def test_errors_that_a_view_raises_are_the_apps(serving: Callable[..., Flask]) -> None:
    """The guards admitted the request, so a handler may respond as it likes."""

    def view() -> str:
        raise MalformedRequest("no such model")

    app = serving()
    app.add_url_rule("/raises", "raises", view)
    app.register_error_handler(400, lambda _: ({"models": []}, 200))
    response = app.test_client().get("/raises", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json) == (200, {"models": []})


def test_filters_of_the_user_change_none(protected: MakeApp) -> None:
    """They run before."""

    class Hide:
        def apply(self, response: Response, exchange: Exchange) -> None:
            response.status_code = 200

    app = protected(parts={"filters": [Hide()]})
    assert app.test_client().get("/x", base_url=HTTPS).status_code == 401


def test_a_second_attempt_of_middleware(protected: MakeApp) -> None:
    """Inner middleware may try another path after a rejection; an admitted request is not a rejection."""
    app = Flask("model_app")
    app.add_url_rule("/closed", "closed", lambda: "closed")
    app.add_url_rule("/open", "open", public(lambda: "open"))
    inner = app.wsgi_app

    def either(environ: Any, start_response: Any) -> Any:
        list(inner(environ | {"PATH_INFO": "/closed"}, lambda *_: lambda _: None))
        return inner(environ, start_response)

    app.wsgi_app = either  # type: ignore[method-assign]
    protected(app)
    response = app.test_client().get("/open", base_url=HTTPS)
    assert (response.status_code, response.text) == (200, "open")


def test_a_guard_of_the_user(protected: MakeApp) -> None:
    """Its rejections are kept as ours are."""

    class Closed:
        name = "closed"
        stage = Stage.LIMIT

        def check(self, request: object, exchange: Exchange) -> None:
            raise Forbidden("closed", headers=[("X-Until", "noon")])

    app = protected(parts={"guards": [Closed()]})
    app.register_error_handler(403, lambda _: ("", 204))
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.headers["X-Until"]) == (403, "noon")
