"""The effects of one ``init_app``: every route is guarded, and no response precedes the guards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, g, request, stream_with_context
from flask.json.provider import DefaultJSONProvider
from flask.views import MethodView, View
from marshmallow import Schema
from werkzeug.exceptions import HTTPException

from flask_secure_ml import (
    Exchange,
    SecureML,
    SecureMLError,
    current_exchange,
    current_principal,
    protect,
    public,
    request_authenticated,
    request_rejected,
)
from flask_secure_ml.errors import RateLimited
from flask_secure_ml.inputs import Text
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp, NameAuthenticator, caller


def test_a_route_nobody_thought_of_needs_a_credential(app: Flask) -> None:
    """A view without any mark is rejected for the anonymous and open to any principal."""
    app.add_url_rule("/plain", view_func=lambda: "ok")
    client = app.test_client()
    assert client.get("/plain", base_url=HTTPS).status_code == 401
    assert client.get("/plain", base_url=HTTPS, headers=caller()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        pytest.param("GET", "/nowhere", 404, id="unknown URL"),
        pytest.param("POST", "/plain", 405, id="wrong method"),
        pytest.param("HEAD", "/plain", 200, id="HEAD"),
        pytest.param("OPTIONS", "/plain", 200, id="automatic OPTIONS"),
        pytest.param("GET", "/static/nothing.js", 404, id="static file"),
        pytest.param("GET", "/folder", 308, id="redirect to the slash"),
        pytest.param("GET", "/plain//", 404, id="double slash"),
        pytest.param("GET", "/PLAIN", 404, id="other case"),
        pytest.param("GET", "/plain;x=1", 404, id="path parameter"),
        pytest.param("BREW", "/plain", 405, id="unknown method"),
    ],
)
def test_every_kind_of_response_is_guarded(app: Flask, method: str, path: str, known: int) -> None:
    """Anonymous callers get 401 for every response of Flask; a principal gets Flask's."""
    app.add_url_rule("/plain", view_func=lambda: "ok")
    app.add_url_rule("/folder/", view_func=lambda: "ok", endpoint="folder")
    client = app.test_client()
    assert client.open(path, method=method, base_url=HTTPS).status_code == 401
    assert client.open(path, method=method, base_url=HTTPS, headers=caller()).status_code == known


def test_method_override_headers_change_nothing(app: Flask) -> None:
    """A POST stays a POST, whatever a header contains (STANDARDS P8)."""
    app.add_url_rule("/plain", view_func=lambda: request.headers.get("X-HTTP-Method-Override", "none"))
    client = app.test_client()
    override = {"X-HTTP-Method-Override": "GET"}
    assert client.post("/plain", base_url=HTTPS, headers=caller() | override).status_code == 405
    assert client.get("/plain", base_url=HTTPS, headers=caller() | override).text == "none"


def test_hooks_of_others_run_after_the_guards(bare_app: Flask, protected: MakeApp) -> None:
    """A hook registered before init_app cannot respond to an anonymous caller."""
    bare_app.before_request(lambda: "answered early")
    client = protected(bare_app).test_client()
    assert client.get("/any", base_url=HTTPS).status_code == 401
    assert client.get("/any", base_url=HTTPS, headers=caller()).text == "answered early"


def test_a_response_before_the_guards_is_withheld(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A response of code that runs before the guards is replaced, and this is logged."""

    def answer(_endpoint: str | None, _values: object) -> None:
        abort(Response("the model's secrets"))

    app.url_value_preprocessors[None].insert(0, answer)
    with caplog.at_level(logging.CRITICAL):
        response = app.test_client().get("/any", base_url=HTTPS)
    assert (response.status_code, response.json["code"]) == (500, "internal_error")  # type: ignore[index]
    assert "secrets" not in response.text
    assert "other code responded first" in caplog.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_processing_url_values_comes_after_the_guards(app: Flask) -> None:
    """A lookup by a value in the URL runs for authorized callers only, so it reveals nothing to others."""
    app.add_url_rule("/model/<name>", endpoint="model", view_func=lambda name: name)

    @app.url_value_preprocessor
    def look_up(endpoint: str | None, values: dict[str, str] | None) -> None:
        if values and values.get("name") == "unknown":
            abort(404)

    client = app.test_client()
    for name, known in (("unknown", 404), ("digits", 200)):
        assert client.get(f"/model/{name}", base_url=HTTPS).status_code == 401
        assert client.get(f"/model/{name}", base_url=HTTPS, headers=caller()).status_code == known


def test_a_second_request_on_one_environ_is_guarded_again(app: Flask) -> None:
    """Code that dispatches the environ of a cleared request again does not carry the clearance along."""
    app.add_url_rule("/closed", endpoint="closed", view_func=lambda: "secret")

    @app.get("/open")
    @public
    def forward() -> Response:
        with app.request_context(request.environ | {"PATH_INFO": "/closed"}):
            return app.full_dispatch_request()

    response = app.test_client().get("/open", base_url=HTTPS)
    assert (response.status_code, response.text.count("secret")) == (401, 0)


def test_without_the_middleware_nothing_is_served(app: Flask) -> None:
    """An app whose WSGI callable was replaced rejects requests, because the caller is unknown."""
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    app.wsgi_app = Flask.wsgi_app.__get__(app)  # type: ignore[method-assign]
    assert app.test_client().get("/open", base_url=HTTPS).status_code == 500


def test_public_route_and_blueprint(app: Flask) -> None:
    """@public opens one view, or every view of a blueprint, and no other."""
    pages = public(Blueprint("pages", "pages"))
    pages.add_url_rule("/page", view_func=lambda: "page")
    app.register_blueprint(pages)
    app.add_url_rule("/open", view_func=public(lambda: "open"), endpoint="open")
    app.add_url_rule("/closed", view_func=lambda: "closed", endpoint="closed")
    statuses = [app.test_client().get(path, base_url=HTTPS).status_code for path in ("/page", "/open", "/closed")]
    assert statuses == [200, 200, 401]


def test_nested_blueprints_take_the_nearest_policy(app: Flask) -> None:
    """The policy of the inner blueprint wins; one without a policy has its parent's."""
    outer = protect(scopes=["outer"])(Blueprint("outer", "outer", url_prefix="/outer"))
    inner = protect(scopes=["inner"])(Blueprint("inner", "inner", url_prefix="/inner"))
    plain = Blueprint("plain", "plain", url_prefix="/plain")
    for each in (inner, plain):
        each.add_url_rule("/", view_func=lambda: "ok", endpoint="index")
        outer.register_blueprint(each)
    app.register_blueprint(outer)
    client = app.test_client()
    assert client.get("/outer/inner/", base_url=HTTPS, headers=caller("a", "outer")).status_code == 403
    assert client.get("/outer/inner/", base_url=HTTPS, headers=caller("a", "inner")).status_code == 200
    assert client.get("/outer/plain/", base_url=HTTPS, headers=caller("a", "outer")).status_code == 200


def test_class_based_views(app: Flask) -> None:
    """Each method of a MethodView has its own policy; a mark on the class applies to the rest; HEAD is GET."""

    @protect(scopes=["read"])
    class Model(MethodView):
        def get(self) -> str:
            return "model"

        @protect(scopes=["write"])
        def put(self) -> str:
            return "stored"

    class Page(View):
        @protect(scopes=["page"])
        def dispatch_request(self) -> str:
            return "page"

    app.add_url_rule("/model", view_func=Model.as_view("model"))

    class Old(View):
        decorators = [protect(scopes=["old"])]  # noqa: RUF012  as Flask documents it

        def dispatch_request(self) -> str:
            return "old"

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    app.add_url_rule("/old", view_func=Old.as_view("old"))
    client = app.test_client()
    reader = caller("a", "read")
    assert client.get("/model", base_url=HTTPS, headers=reader).text == "model"
    assert client.head("/model", base_url=HTTPS, headers=caller("a", "write")).status_code == 403
    assert client.put("/model", base_url=HTTPS, headers=reader).status_code == 403
    assert client.put("/model", base_url=HTTPS, headers=caller("a", "write")).text == "stored"
    assert client.get("/page", base_url=HTTPS, headers=reader).status_code == 403
    assert client.get("/page", base_url=HTTPS, headers=caller("a", "page")).text == "page"
    assert client.get("/old", base_url=HTTPS, headers=reader).status_code == 403
    assert client.get("/old", base_url=HTTPS, headers=caller("a", "old")).text == "old"


def test_async_views(app: Flask) -> None:
    """An ``async def`` view is guarded and awaited."""

    @app.get("/async")
    @protect(scopes=["predict"])
    async def predict() -> str:
        return current_principal.subject

    client = app.test_client()
    assert client.get("/async", base_url=HTTPS, headers=caller("ada")).status_code == 403
    assert client.get("/async", base_url=HTTPS, headers=caller("ada", "predict")).text == "ada"


def test_functions_of_the_app_go_through_its_own_ensure_sync(protected: MakeApp) -> None:
    """Only functions known not to be coroutine functions are exempt: our hooks, and views wrapped by a decorator."""
    seen: list[object] = []

    class Own(Flask):
        def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
            seen.append(func)
            return super().ensure_sync(func)

    def hook() -> None:
        return None

    def plain() -> str:
        return "plain"

    @protect
    def wrapped() -> str:
        return "wrapped"

    @protect
    async def awaited() -> str:
        return "awaited"

    app = protected(Own("own"))
    app.before_request(hook)
    views: list[Callable[..., Any]] = [plain, wrapped, awaited]
    for number, view in enumerate(views):
        app.add_url_rule(f"/{number}", view_func=view)
    client = app.test_client()
    found = [client.get(f"/{number}", base_url=HTTPS, headers=caller()).text for number in range(3)]
    assert found == ["plain", "wrapped", "awaited"]
    assert seen == [hook, plain, hook, hook, awaited]


def test_code_that_runs_after_flask_sees_no_security_headers(app: Flask) -> None:
    """They are added when the response is sent, so that headers are copied once per response."""
    seen: list[Response] = []
    app.add_url_rule("/plain", view_func=lambda: "ok")

    @app.after_request
    def look(response: Response) -> Response:
        seen.append(response)
        return response

    response = app.test_client().get("/plain", base_url=HTTPS, headers=caller())
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Content-Type-Options" not in seen[0].headers


def test_a_mark_hidden_by_a_decorator_closes_the_route(app: Flask) -> None:
    """A decorator that hides the mark leaves the default policy, and the view rejects to run under it."""
    view: Callable[[], str] = protect(scopes=["admin"])(lambda: "secret")

    def hiding() -> str:
        return "hidden: " + view()

    app.add_url_rule("/hidden", endpoint="hidden", view_func=hiding)
    response = app.test_client().get("/hidden", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json["code"]) == (500, "internal_error")  # type: ignore[index]


def test_two_apps_share_nothing(clock: FakeClock) -> None:
    """One SecureML for two apps: each keeps its own settings and its own counters."""
    secure_ml = SecureML(authenticators=[NameAuthenticator()], clock=clock, sink=MemorySink())
    strict, loose = Flask("strict"), Flask("loose")
    strict.config["SECURE_ML_PLANS"] = {"default": {"requests": ["1/hour"]}}
    for app in (strict, loose):
        secure_ml.init_app(app)
        app.add_url_rule("/x", view_func=lambda: "ok")
    for app, expected in ((strict, [200, 429]), (loose, [200, 200])):
        client = app.test_client()
        assert [client.get("/x", base_url=HTTPS, headers=caller()).status_code for _ in range(2)] == expected


def test_init_app_twice_is_rejected(app: Flask) -> None:
    """A second init_app, also of another object, is an error."""
    with pytest.raises(RuntimeError, match="already protected"):
        SecureML(app)


def test_requests_inside_one_app_context_do_not_share_the_caller(app: Flask) -> None:
    """Flask 3.1 shares ``g`` between two requests in one app context; the exchange is not shared."""
    app.add_url_rule("/who", view_func=lambda: current_principal.subject)
    with app.app_context():
        g.ignored = True
        client = app.test_client()
        assert client.get("/who", base_url=HTTPS, headers=caller("ada")).text == "ada"
        assert client.get("/who", base_url=HTTPS, headers=caller("bob")).text == "bob"
        assert client.get("/who", base_url=HTTPS).status_code == 401


def test_streams_are_recorded_when_the_body_ends(app: Flask, sink: MemorySink, clock: FakeClock) -> None:
    """One line when the response starts, and one when its body is read, with the time of the whole."""

    @app.get("/stream")
    @protect
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield "first"
            clock.advance(2)
            yield current_exchange.request_id

        return Response(stream_with_context(body()))

    response = app.test_client().get("/stream", base_url=HTTPS, headers=caller())
    assert response.text == "first" + response.headers["X-Request-ID"]
    response.close()
    seen = [(record.get("event"), record["ms"], record["reason"]) for record in sink.records]
    assert seen == [(None, 0.0, None), ("stream_end", 2000.0, None)]


def test_a_stream_that_breaks_is_still_recorded(app: Flask, sink: MemorySink) -> None:
    """An error in the middle of the body is the reason in its second line."""

    @app.get("/broken")
    @protect
    def broken() -> Response:
        def body() -> Iterator[str]:
            yield "first"
            raise OSError("disk")

        return Response(body())

    response = app.test_client().get("/broken", base_url=HTTPS, headers=caller(), buffered=False)
    with pytest.raises(OSError, match="disk"):
        list(response.response)
    response.close()
    assert [record["reason"] for record in sink.records] == [None, "unhandled OSError"]


def test_a_stream_that_nobody_reads_to_its_end(app: Flask, sink: MemorySink) -> None:
    """A client that goes away in the middle is the reason too."""
    app.add_url_rule("/stream", view_func=protect(lambda: Response(iter(["first", "second"]))))
    response = app.test_client().get("/stream", base_url=HTTPS, headers=caller(), buffered=False)
    assert next(iter(response.response)) == b"first"
    response.close()
    assert [record["reason"] for record in sink.records] == [None, "closed by the client or the server before its end"]


@pytest.mark.parametrize("propagate", [False, True])
def test_a_teardown_function_that_raises(app: Flask, sink: MemorySink, propagate: bool) -> None:
    """The request is recorded with the client's response, which is not a traceback."""
    app.add_url_rule("/plain", view_func=lambda: "ok")
    app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @app.teardown_request
    def broken(error: BaseException | None) -> None:
        raise LookupError("row 7 of /srv/weights")

    client = app.test_client()
    with pytest.raises(LookupError, match="row 7") if propagate else nullcontext():
        response = client.get("/plain", base_url=HTTPS, headers=caller())
        assert (response.status_code, response.json["code"]) == (500, "internal_error")  # type: ignore[index]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    seen = [(record["status"], record["reason"], record["principal"]) for record in sink.records]
    assert seen == [(500, "unhandled LookupError", "test:ada")]


def test_a_hook_of_the_app_that_raises_is_recorded(app: Flask, sink: MemorySink) -> None:
    """An ``after_request`` function that fails is a 500 in the log as well."""
    app.add_url_rule("/plain", view_func=lambda: "ok")

    @app.after_request
    def broken(response: Response) -> Response:
        raise LookupError("row 7")

    assert app.test_client().get("/plain", base_url=HTTPS, headers=caller()).status_code == 500
    assert [(record["status"], record["reason"]) for record in sink.records] == [(500, "unhandled LookupError")]


def test_unhandled_errors_show_nothing(app: Flask, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a constant 500, the log of the app the trace, the request log the type of the error."""

    @app.get("/crash")
    def crash() -> str:
        raise LookupError("row 7 of /srv/weights")

    response = app.test_client().get("/crash", base_url=HTTPS, headers=caller())
    assert response.status_code == 500
    assert response.content_type == "application/problem+json"
    assert "weights" not in response.text
    assert "row 7 of /srv/weights" in caplog.text
    assert sink.records[0]["reason"] == "unhandled LookupError"


def test_aborts_of_the_view_become_problems(app: Flask) -> None:
    """abort() keeps its status, and the text that the author wrote for the client."""
    app.add_url_rule("/gone", view_func=lambda: abort(410, "use /v2"))
    response = app.test_client().get("/gone", base_url=HTTPS, headers=caller())
    body: Any = response.json
    assert (response.status_code, body["code"], body["detail"]) == (410, "gone", "use /v2")


def test_an_abort_with_a_status_of_the_server(app: Flask, sink: MemorySink) -> None:
    """The text of a 5xx goes to the log only."""
    app.add_url_rule("/down", view_func=lambda: abort(503, "/srv/models is not mounted"))
    response = app.test_client().get("/down", base_url=HTTPS, headers=caller())
    assert (response.status_code, "srv" in response.text) == (503, False)
    assert sink.records[0]["reason"] == "ServiceUnavailable: /srv/models is not mounted"


def test_a_response_given_to_abort_is_respected(app: Flask) -> None:
    """A complete response that the app raises is sent unchanged."""
    app.add_url_rule("/own", view_func=lambda: abort(Response("mine", status=418)))
    response = app.test_client().get("/own", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.text) == (418, "mine")


def test_a_response_with_a_status_is_respected_too(app: Flask) -> None:
    """An error of Werkzeug that carries its author's response is responded to with that."""
    mine = Response("mine", status=401)
    app.add_url_rule("/own", view_func=lambda: abort(401, response=mine))
    response = app.test_client().get("/own", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.text) == (401, "mine")


def test_the_json_provider_of_the_user_stays(bare_app: Flask, protected: MakeApp) -> None:
    """An app that brought its own provider keeps it."""

    class Own(DefaultJSONProvider):
        mimetype = "application/vnd.own+json"

    bare_app.json = Own(bare_app)
    app = protected(bare_app)
    app.add_url_rule("/own", view_func=public(lambda: {"a": 1}))
    assert app.test_client().get("/own", base_url=HTTPS).content_type == Own.mimetype


def test_a_dot_in_an_endpoint_is_no_blueprint(app: Flask) -> None:
    """The parts of an endpoint count only where a blueprint has that name."""
    app.add_url_rule("/dotted", endpoint="v1.predict", view_func=lambda: "ok")
    assert app.test_client().get("/dotted", base_url=HTTPS).status_code == 401


def test_handlers_of_the_user_win(protected: MakeApp, sink: MemorySink) -> None:
    """errorhandler(429) of the app is used; the log still has code and reason."""
    app = protected(PLANS={"default": {"requests": ["1/hour"]}})
    app.register_error_handler(429, lambda error: (f"slow down: {type(error).__name__}", 429))
    client = app.test_client()
    client.get("/x", base_url=HTTPS, headers=caller())
    response = client.get("/x", base_url=HTTPS, headers=caller())
    assert response.text == "slow down: RateLimited"
    assert sink.records[1]["code"] == "rate_limited"


def test_a_general_handler_of_the_user_stays(bare_app: Flask, protected: MakeApp) -> None:
    """An HTTPException handler that is there before init_app is not replaced."""

    @bare_app.errorhandler(HTTPException)
    def own(error: HTTPException) -> tuple[str, int]:
        return "own", error.code or 500

    assert protected(bare_app).test_client().get("/x", base_url=HTTPS).text == "own"


def test_guards_filters_and_recorders_of_the_user(clock: FakeClock) -> None:
    """Declared parts run in their position; a failing recorder stops neither the response nor the others."""
    seen: list[str] = []

    class Closed:
        name = "closed"
        stage = 40

        def check(self, request: object, exchange: Exchange) -> None:
            seen.append(f"guard of {exchange.principal.subject if exchange.principal else None}")
            raise RateLimited("closed today", headers=[("Retry-After", "1")])

    class Stamp:
        def apply(self, response: Response, exchange: Exchange) -> None:
            response.headers["X-Model"] = "digits"

    class Broken:
        def record(self, exchange: Exchange) -> None:
            raise RuntimeError("sink is full")

    class Note:
        def record(self, exchange: Exchange) -> None:
            seen.append(f"recorded {exchange.status}")

    app = Flask("parts")
    SecureML(
        app,
        authenticators=[NameAuthenticator()],
        guards=[Closed()],  # type: ignore[list-item]
        filters=[Stamp()],
        recorders=[Broken(), Note()],
        clock=clock,
        sink=MemorySink(),
    )
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller("ada"))
    assert response.headers["X-Model"] == "digits"
    assert seen == ["guard of ada", "recorded 429"]


def test_signals(app: Flask) -> None:
    """authenticated and rejected pass the exchange; the sender is the app."""
    heard: list[str] = []

    def on_authenticated(sender: Flask, exchange: Exchange) -> None:
        heard.append(f"{sender.name}: {exchange.principal.subject if exchange.principal else None}")

    def on_rejected(sender: Flask, exchange: Exchange, error: SecureMLError) -> None:
        heard.append(f"{sender.name}: {error.slug}")

    with request_authenticated.connected_to(on_authenticated, app), request_rejected.connected_to(on_rejected, app):
        client = app.test_client()
        client.get("/x", base_url=HTTPS, headers=caller("ada"))
        client.get("/x", base_url=HTTPS)
    assert heard == ["model_app: ada", "model_app: not_authenticated"]


def test_the_policy_check_at_the_first_request(protected: MakeApp, sink: MemorySink) -> None:
    """A configured policy without a route closes the whole app until it is mended."""
    app = protected(POLICIES={"/invocation": {"scopes": ["predict"]}})
    app.add_url_rule("/invocations", view_func=public(lambda: "ok"))
    for _ in range(2):
        assert app.test_client().get("/invocations", base_url=HTTPS).status_code == 500
    with pytest.raises(ValueError, match="'/invocation', which is neither an endpoint nor a URL rule"):
        SecureML.check(app)


def test_an_app_that_cannot_be_edited(protected: MakeApp) -> None:
    """Policies from the configuration hold for views of others, which still read the request themselves."""
    app = protected(
        POLICIES={"/invocations": {"scopes": ["predict"], "caps": {"max_body_bytes": 50}}, "ping": {"public": True}}
    )
    app.add_url_rule("/invocations", view_func=lambda: {"echo": request.get_json()}, methods=["POST"])
    app.add_url_rule("/ping", endpoint="ping", view_func=lambda: "pong")
    client = app.test_client()
    sent: dict[str, Any] = {"json": {"inputs": [1, 2]}, "base_url": HTTPS}
    assert client.get("/ping", base_url=HTTPS).text == "pong"
    assert client.post("/invocations", headers=caller(), **sent).status_code == 403
    allowed = client.post("/invocations", headers=caller("a", "predict"), **sent)
    assert allowed.json == {"echo": {"inputs": [1, 2]}}
    large = client.post("/invocations", headers=caller("a", "predict"), base_url=HTTPS, json={"inputs": [1] * 50})
    assert large.status_code == 413


class Changing(Schema):
    t = Text(bidi="strip", normalise=None)


def test_what_a_view_of_others_does_not_see(protected: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Changes to the body by a configured schema have no effect, so the check reports them."""
    app = protected(POLICIES={"view": {"public": True, "body": f"{__name__}:Changing"}})
    app.add_url_rule("/view", endpoint="view", view_func=lambda: {"echo": request.get_json()}, methods=["POST"])
    SecureML.check(app)
    (record,) = (each for each in caplog.records if "at 'view' that reads" in each.message)
    assert record.levelname == "WARNING"
    assert 't (bidi="strip")' in record.message
    sent = {"t": "a\u202eb"}
    assert app.test_client().post("/view", base_url=HTTPS, json=sent).json == {"echo": sent}


@pytest.mark.parametrize("body", [b"[" * 20_000, b'{"a": 1, "a": 2}', b"NaN"], ids=["brackets", "duplicates", "NaN"])
def test_a_view_that_parses_for_itself(app: Flask, body: bytes) -> None:
    """``get_json(force=True)`` on a body that is not declared as JSON is as strict, and never a 500."""
    app.add_url_rule("/force", view_func=lambda: {"got": request.get_json(force=True)}, methods=["POST"])
    response = app.test_client().post("/force", base_url=HTTPS, headers=caller(), data=body, content_type="text/plain")
    assert (response.status_code, response.get_data().count(b"malformed_request")) == (400, 1)


def test_current_exchange_needs_a_protected_app(bare_app: Flask) -> None:
    """Without init_app the error of the proxy names the missing call."""
    with bare_app.test_request_context(), pytest.raises(RuntimeError, match="init_app"):
        current_exchange.request_id  # noqa: B018


@pytest.mark.parametrize("own_page", [False, True])
def test_an_after_request_that_raises(app: Flask, sink: MemorySink, own_page: bool) -> None:
    """Flask then sends a response that no filter has checked; it is replaced by an error response with every header."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.after_request
    def broken(response: Response) -> Response:
        raise RuntimeError("a fault in the app")

    if own_page:
        app.register_error_handler(500, lambda error: ("an error page with the score 0.123456789", 500))
    app.add_url_rule("/x", view_func=lambda: {"scores": [0.123456789]})
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json and response.json["code"]) == (500, "internal_error")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"]
    assert b"0.1234" not in response.data
    assert [record["status"] for record in sink.records] == [500]


@pytest.mark.parametrize(
    ("require_tls", "configured", "expected"),
    [
        pytest.param(True, False, True, id="over TLS"),
        pytest.param(True, True, True, id="configured"),
        pytest.param(False, False, False, id="in clear text, where a browser would drop a secure cookie"),
        pytest.param(False, True, True, id="configured in clear text"),
    ],
)
def test_session_cookies(
    protected: MakeApp, caplog: pytest.LogCaptureFixture, require_tls: bool, configured: bool, expected: bool
) -> None:
    """They stay off clear text where it is rejected, and a changed setting is logged."""
    app = Flask("model_app")
    app.config["SESSION_COOKIE_SECURE"] = configured
    caplog.set_level("INFO")
    protected(app, REQUIRE_TLS=require_tls)
    assert app.config["SESSION_COOKIE_SECURE"] is expected
    assert app.config["SESSION_COOKIE_SAMESITE"] == "Lax"
    assert ("SESSION_COOKIE_SECURE" in caplog.text) is (expected != configured)
