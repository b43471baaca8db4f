"""Code below the guards never serves anonymous callers: mounts, Socket.IO, custom dispatch, and outer middleware.

Each case asserts that the handler did not run, not only the status.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask import Flask, Request, Response, has_app_context, has_request_context, request
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView
from flask_socketio import SocketIO
from marshmallow import Schema
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.routing import BaseConverter
from werkzeug.test import Client, run_wsgi_app

from flask_secure_ml import (
    ConfigError,
    SecureML,
    current_exchange,
    current_principal,
    protect,
    public,
    request_authenticated,
    request_rejected,
)
from flask_secure_ml.errors import Forbidden
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.pipeline import Stage
from flask_secure_ml.testing import FakeClock, MemorySink
from flask_secure_ml.transport.outgoing import FLASK_MARK
from support import HTTPS, MakeApp, NameAuthenticator, caller

Start = Callable[..., Any]
ENGINE_IO = "/socket.io/?EIO=4&transport=polling"


class Handlers:
    """Handlers that must not run for anonymous callers."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def note(self, name: str, result: str) -> str:
        self.ran.append(name)
        return result

    def wsgi(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        self.ran.append(f"mount {environ['PATH_INFO']}")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"mounted"]

    def taking_the_socket(self, inner: Any) -> Any:
        """Return middleware that serves any client if it gets the connection."""

        def layer(environ: dict[str, Any], start_response: Start) -> Any:
            for name in SOCKETS:
                if name in environ:
                    self.ran.append(name)
            if hasattr(environ["wsgi.input"], "raw"):
                self.ran.append("wsgi.input")
            return inner(environ, start_response)

        return layer


def at(path: str) -> dict[str, Any]:
    """Return a request for an exact path, which clients would normalise."""
    return {"base_url": HTTPS, "environ_overrides": {"PATH_INFO": path}}


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def mounting(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> Callable[..., Flask]:
    """Make a protected app with the WSGI app of the handlers at /metrics."""

    def make(**settings: Any) -> Flask:
        bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
            bare_app.wsgi_app, {"/metrics": handlers.wsgi}
        )
        return protected(bare_app, **settings)

    return make


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x", "/metrics/../metrics", "/metrics//"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "BREW"])
def test_a_mount(mounting: Callable[..., Flask], handlers: Handlers, path: str, method: str) -> None:
    """A mounted app has the default policy: a credential, and the limits of the plan."""
    client = mounting(PLANS={"default": {"requests": ["2/minute"]}}).test_client()
    assert client.open("/", method=method, **at(path)).status_code == 401
    assert client.open("/", method=method, **at(path), headers=caller("bad")).status_code == 401
    assert client.open(path, method=method, base_url="http://localhost", headers=caller()).status_code == 403
    assert handlers.ran == []
    statuses = [client.open("/", method=method, **at(path), headers=caller()).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(handlers.ran) == 2


def test_a_mount_that_shadows_a_route(mounting: Callable[..., Flask], handlers: Handlers) -> None:
    """The policy of the route, and a key for that route, do not apply to the mounted app."""
    app = mounting()
    app.add_url_rule("/metrics", endpoint="metrics", view_func=public(lambda: "route"))
    assert app.test_client().get("/metrics", base_url=HTTPS).status_code == 401
    assert handlers.ran == []


@pytest.mark.parametrize("path", ["/metrics", "/metrics/x", "//metrics", "/x/../metrics", "/metrics%2Fx"])
def test_a_public_catch_all_over_a_mount(mounting: Callable[..., Flask], handlers: Handlers, path: str) -> None:
    """A route for every path opens Flask only."""
    app = mounting()
    app.add_url_rule("/<path:path>", endpoint="page", view_func=public(lambda path: f"page {path}"))
    client = app.test_client()
    client.get("/", **at(path))
    assert handlers.ran == []
    assert client.get("/anything", base_url=HTTPS).text == "page anything"


def test_static_files_at_the_root_over_a_mount(protected: MakeApp, handlers: Handlers, tmp_path: Path) -> None:
    """``static_url_path=""`` matches every path too."""
    (tmp_path / "page.html").write_text("page")
    app = Flask("model_app", static_url_path="", static_folder=str(tmp_path))
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": handlers.wsgi})  # type: ignore[method-assign]
    client = protected(app, POLICIES={"static": {"public": True}}).test_client()
    with client.get("/page.html", base_url=HTTPS) as response:
        assert response.get_data(as_text=True) == "page"
    assert client.get("/metrics/page.html", base_url=HTTPS).status_code == 401
    assert handlers.ran == []


@pytest.mark.parametrize(
    ("policies", "status"),
    [
        pytest.param({"/metrics": {"public": True}}, 200, id="path"),
        pytest.param({"/metrics/*": {"public": True}}, 200, id="path and below"),
        pytest.param({"/metrics/*": {"public": True}, "/metrics": {}}, 401, id="the path itself comes first"),
        pytest.param({"/metrics/x/*": {"public": True}}, 401, id="below only"),
        pytest.param({"/*": {"public": True}}, 200, id="everything"),
    ],
)
def test_policies_by_path(
    mounting: Callable[..., Flask], handlers: Handlers, policies: dict[str, Any], status: int
) -> None:
    """The configuration opens a mount by its path; the longest entry wins."""
    app = mounting(POLICIES=policies)
    SecureML.check(app)
    assert app.test_client().get("/metrics", base_url=HTTPS).status_code == status
    assert len(handlers.ran) == (status == 200)


def test_a_policy_by_path_has_scopes_and_limits(mounting: Callable[..., Flask], handlers: Handlers) -> None:
    """A path supports all options of a route; each entry counts separately."""
    options = {"scopes": ["read"], "limits": ["1/minute"]}
    client = mounting(POLICIES={"/metrics/*": options, "/metrics/own": options}).test_client()
    reader = caller("ada", "read")
    assert client.get("/metrics/x", base_url=HTTPS, headers=caller()).status_code == 403
    assert client.get("/metrics/x", base_url=HTTPS, headers=reader).status_code == 200
    assert client.get("/metrics/y", base_url=HTTPS, headers=reader).status_code == 429
    assert client.get("/metrics/own", base_url=HTTPS, headers=reader).status_code == 200
    assert len(handlers.ran) == 2


@pytest.mark.parametrize("path", ["//metrics", "/./metrics", "/x/../metrics", "/metrics/../metrics", "/metrics//x"])
def test_a_public_path_opens_no_other_spelling(mounting: Callable[..., Flask], handlers: Handlers, path: str) -> None:
    """Code below the guards may interpret such a path differently."""
    app = mounting(POLICIES={"/metrics/*": {"public": True}})
    assert app.test_client().get("/", **at(path)).status_code == 401
    assert handlers.ran == []


@pytest.mark.parametrize("path", ["/admin//x", "/x/../admin/x", "//admin/x", "/./admin"])
def test_a_strict_path_holds_in_every_spelling(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, path: str
) -> None:
    """A caller without the scope cannot get around it by spelling."""

    def normalising(environ: dict[str, Any], start_response: Start) -> Any:
        return handlers.wsgi(environ, start_response)

    bare_app.wsgi_app = normalising  # type: ignore[method-assign]
    app = protected(bare_app, MOUNTS=["/admin"], POLICIES={"/admin/*": {"scopes": ["admin"]}})
    assert app.test_client().get("/", **at(path), headers=caller()).status_code == 403
    assert handlers.ran == []


@pytest.mark.parametrize(("mount", "path"), [("/caf\xc3\xa9", "/caf\xc3\xa9/x"), ("/café", "/caf\xe9/x")])
@pytest.mark.parametrize("prefix", ["", "/.", "/x/.."])
def test_a_strict_path_beyond_ascii(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, mount: str, path: str, prefix: str
) -> None:
    """Middleware may compare the bytes of a path or its characters; the configuration has characters."""
    bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {f"{prefix}{mount}": handlers.wsgi}
    )
    app = protected(bare_app, POLICIES={"/café/*": {"scopes": ["admin"]}})
    assert app.test_client().get("/", **at(prefix + path), headers=caller()).status_code == 403
    assert app.test_client().get("/", **at(prefix + path), headers=caller("ada", "admin")).status_code == 200
    assert len(handlers.ran) == 1


def test_a_rule_is_no_path(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> None:
    """A client that sends the characters of a configured rule does not open the mount in its place."""
    bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {"/model": handlers.wsgi}
    )
    app = protected(bare_app, POLICIES={"/model/<name>": {"public": True}})
    app.add_url_rule("/model/<name>", view_func=lambda name: name)
    assert app.test_client().get("/model/<name>", base_url=HTTPS).status_code == 401
    assert handlers.ran == []


def test_mounts_by_configuration(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> None:
    """Middleware of an unknown kind: ``SECURE_ML_MOUNTS`` lists the paths at which it responds."""

    def layer(environ: dict[str, Any], start_response: Start) -> Any:
        inner = handlers.wsgi if environ["PATH_INFO"].startswith("/live") else plain
        return inner(environ, start_response)

    plain, bare_app.wsgi_app = bare_app.wsgi_app, layer  # type: ignore[method-assign]
    app = protected(bare_app, MOUNTS=["/live"])
    app.add_url_rule("/<path:path>", endpoint="page", view_func=public(lambda path: f"page {path}"))
    client = app.test_client()
    assert client.get("/live/x", base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    assert client.get("/page", base_url=HTTPS).text == "page page"


def test_an_unknown_mount_behind_a_public_route(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the setting its response is replaced, and the check names the layer."""

    def layer(environ: dict[str, Any], start_response: Start) -> Any:
        inner = handlers.wsgi if environ["PATH_INFO"].startswith("/live") else plain
        return inner(environ, start_response)

    plain, bare_app.wsgi_app = bare_app.wsgi_app, layer  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/<path:path>", endpoint="page", view_func=public(lambda path: f"page {path}"))
    response = app.test_client().get("/live/x", base_url=HTTPS)
    assert (response.status_code, b"mounted" in response.data) == (500, False)
    SecureML.check(app)
    assert "list its paths in SECURE_ML_MOUNTS" in caplog.text


@pytest.mark.parametrize("status", [200, 404])
def test_middleware_that_tries_one_app_after_another(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, status: int
) -> None:
    """That Flask ran for a public route does not open the app that responds in its place."""
    flask_app = bare_app.wsgi_app

    def cascade(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        body, found, headers = run_wsgi_app(flask_app, environ)
        if found.startswith("404"):
            return handlers.wsgi(environ, start_response)
        start_response(found, list(headers))
        return body

    bare_app.wsgi_app = cascade  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/<path:path>", endpoint="page", view_func=public(lambda path: ("page", status)))
    response = app.test_client().get("/x", base_url=HTTPS)
    assert (response.status_code, b"mounted" in response.data) == (500 if status == 404 else 200, False)
    assert FLASK_MARK not in response.headers
    assert app.test_client().get("/x/y", base_url=HTTPS, headers=caller()).status_code == response.status_code


SOCKETS = ["gunicorn.socket", "werkzeug.socket", "eventlet.input", "wsgi.websocket", "wsgi.early_hints"]


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets_are_for_admitted_callers(bare_app: Flask, protected: MakeApp, handlers: Handlers, name: str) -> None:
    """Under a policy that is public in code, the socket is not available before Flask's hook has run."""
    bare_app.wsgi_app = handlers.taking_the_socket(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app, REQUIRE_TLS=False)
    seen: list[bool] = []

    @app.get("/open")
    @public
    def opened() -> str:
        seen.append(name in request.environ)
        return "ok"

    connection = object()
    response = app.test_client().get("/open", base_url=HTTPS, environ_overrides={name: connection})
    assert (response.text, handlers.ran, seen) == ("ok", [], [True])
    app.test_client().get("/closed", base_url=HTTPS, headers=caller(), environ_overrides={name: connection})
    assert handlers.ran == [name]


def test_the_input_of_gevents_server_is_no_way_to_its_socket(
    bare_app: Flask, protected: MakeApp, handlers: Handlers
) -> None:
    """gevent's server has the connection inside of ``wsgi.input``."""

    class Input:
        raw = object()

        def __init__(self, body: bytes) -> None:
            self.body = body

        def read(self, size: int = -1) -> bytes:
            body, self.body = self.body, b""
            return body

        readline = read

        def readlines(self, size: int = -1) -> list[bytes]:
            return [self.read()]

        def __iter__(self) -> Any:
            return iter(self.readlines())

    bare_app.wsgi_app = handlers.taking_the_socket(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule(
        "/open", view_func=public(lambda: handlers.note("view", request.get_data(as_text=True))), methods=["POST"]
    )
    overrides = {"wsgi.input": Input(b"text"), "CONTENT_LENGTH": "4", "CONTENT_TYPE": "text/plain"}
    response = app.test_client().post("/open", base_url=HTTPS, environ_overrides=overrides)
    assert (response.data, handlers.ran) == (b"text", ["view"])


class Socket:
    """A WebSocket whose handshake the server completed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed: list[int] = []
        self.error = error

    def close(self, code: int) -> None:
        self.closed.append(code)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_a_rejected_websocket_is_closed(
    mounting: Callable[..., Flask], handlers: Handlers, error: Exception | None
) -> None:
    """A server such as gevent-websocket has switched protocols before any app is called (RFC 6455, 1008)."""
    socket = Socket(error)
    overrides = {"wsgi.websocket": socket, "HTTP_UPGRADE": "websocket"}
    client = mounting().test_client()
    assert client.get("/metrics", base_url=HTTPS, environ_overrides=overrides).status_code == 401
    assert (socket.closed, handlers.ran) == ([1008], [])
    client.get("/metrics", base_url=HTTPS, headers=caller(), environ_overrides=overrides)
    assert (socket.closed, len(handlers.ran)) == ([1008], 1)


class Raising:
    """Middleware, or a guard, that raises."""

    name = "raising"
    stage = Stage.TRANSPORT

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Any:
        raise self.error

    def check(self, request: object, exchange: object) -> None:
        raise self.error


TAKEN = {"HTTP_UPGRADE": "websocket", "gunicorn.socket": object()}


@pytest.mark.parametrize(
    ("server", "error"), [("gunicorn.socket", StopIteration()), ("werkzeug.socket", ConnectionError())]
)
def test_a_library_that_took_the_socket(
    bare_app: Flask, protected: MakeApp, sink: MemorySink, server: str, error: Exception
) -> None:
    """It ends the request by raising, which the server must see; the request is recorded."""
    bare_app.wsgi_app = Raising(error)  # type: ignore[method-assign]
    client = protected(bare_app, REQUIRE_TLS=False).test_client()
    overrides = {"HTTP_UPGRADE": "websocket", server: object()}
    with pytest.raises(type(error)):
        client.get("/ws", headers=caller(), environ_overrides=overrides)
    assert [(record["status"], record["principal"]) for record in sink.records] == [(101, "test:ada")]


def test_a_websocket_of_a_public_route(bare_app: Flask, protected: MakeApp, sink: MemorySink) -> None:
    """A library may also return without a response, when the WebSocket is closed."""

    class Closed(Response):
        def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
            return []

    bare_app.wsgi_app = ProxyFix(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/ws", view_func=public(Closed), endpoint="ws")
    response = app.test_client().get("/ws", base_url=HTTPS, headers={"Upgrade": "websocket"})
    assert (response.status_code, sink.records[0]["status"]) == (101, 101)
    assert FLASK_MARK not in response.headers


@pytest.mark.parametrize(
    ("error", "overrides"),
    [
        pytest.param(LookupError(), TAKEN, id="an error that ends no WebSocket"),
        pytest.param(ConnectionRefusedError(), TAKEN, id="of a back end"),
        pytest.param(StopIteration(), {"gunicorn.socket": object()}, id="without a handshake"),
        pytest.param(StopIteration(), {"HTTP_UPGRADE": "websocket"}, id="without a socket"),
    ],
)
@pytest.mark.parametrize("guard", [False, True])
def test_errors_do_not_pass_as_a_handover(
    bare_app: Flask, protected: MakeApp, sink: MemorySink, error: Exception, overrides: dict[str, Any], guard: bool
) -> None:
    """A client cannot turn errors into those of the server, or records into 101, by requesting an upgrade."""
    bare_app.wsgi_app = Raising(error)  # type: ignore[method-assign]
    app = protected(bare_app, parts={"guards": [Raising(error)] if guard else []}, REQUIRE_TLS=False)
    response = app.test_client().get("/ws", headers=caller(), environ_overrides=overrides)
    assert (response.status_code, response.json and response.json["code"]) == (500, "internal_error")
    assert [record["status"] for record in sink.records] == [500]
    assert [record["reason"] for record in sink.records] == [f"unhandled {type(error).__name__}"]


def test_a_guard_that_hands_nothing_over(bare_app: Flask, protected: MakeApp, sink: MemorySink) -> None:
    """The socket is not taken before the guards have admitted a request."""
    bare_app.wsgi_app = ProxyFix(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app, parts={"guards": [Raising(StopIteration())]}, REQUIRE_TLS=False)
    response = app.test_client().get("/ws", headers=caller(), environ_overrides=TAKEN)
    assert (response.status_code, [record["status"] for record in sink.records]) == (500, [500])


@pytest.mark.parametrize("wrap", [pytest.param(lambda inner: inner, id="plain"), pytest.param(ProxyFix, id="layer")])
def test_a_request_that_the_server_stops(bare_app: Flask, protected: MakeApp, sink: MemorySink, wrap: Any) -> None:
    """gunicorn raises SystemExit in a view that runs too long, gevent GreenletExit: recorded like any other."""
    bare_app.wsgi_app = wrap(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)

    @app.get("/x")
    @public
    def stopped() -> str:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        app.test_client().get("/x", base_url=HTTPS)
    (record,) = sink.records
    assert (record["endpoint"], record["status"], record["reason"]) == ("stopped", 500, "unhandled SystemExit")


# --- Socket.IO ------------------------------------------------------------------------------------------------------


@pytest.fixture
def socket_io(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> Flask:
    """An app with Flask-SocketIO, set up before init_app."""
    server = SocketIO(bare_app, async_mode="threading")

    def connect(auth: object = None) -> None:
        handlers.ran.append(f"connect {current_principal.subject}")

    def predict(data: Any) -> None:
        handlers.ran.append(f"predict {data}")

    server.on_event("connect", connect)
    server.on_event("predict", predict)

    return protected(bare_app)


@pytest.mark.parametrize("catch_all", [False, True])
def test_socket_io_by_polling(socket_io: Flask, handlers: Handlers, catch_all: bool) -> None:
    """An anonymous client cannot connect or send events, even with another session and a public route."""
    if catch_all:
        socket_io.add_url_rule(
            "/<path:path>", endpoint="page", view_func=public(lambda path: path), methods=["GET", "POST"]
        )
    client = socket_io.test_client()
    assert client.get(ENGINE_IO, base_url=HTTPS).status_code == 401
    opened = client.get(ENGINE_IO, base_url=HTTPS, headers=caller())
    session = opened.text.split('"sid":"')[1].split('"')[0]
    url = f"{ENGINE_IO}&sid={session}"
    event = '42["predict",7]'
    for body in ("40", event):
        assert client.post(url, base_url=HTTPS, data=body).status_code == 401
    assert client.get(url, base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    for body in ("40", event):
        assert client.post(url, base_url=HTTPS, data=body, headers=caller()).text == "OK"
    client.get(url, base_url=HTTPS, headers=caller())
    assert handlers.ran == ["connect ada", "predict 7"]


# --- Flask beneath its own guards -------------------------------------------------------------------------------------


class Body(Schema):
    instances = Tensor(shape=(None, 2), dtype="float32")


def test_routes_are_guarded_once(mounting: Callable[..., Flask], sink: MemorySink) -> None:
    """With something beneath, a route keeps its policy, its payload and its limits, and each is charged once."""
    app = mounting(PLANS={"default": {"requests": ["3/minute"], "quotas": ["6/minute"]}})
    heard: list[str] = []

    @app.post("/predict")
    @protect(scopes=["predict"], body=Body, limits=["2/minute"], cost="instances")
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"rows": len(payload["instances"]), "by": current_principal.subject}

    client = app.test_client()
    sent: dict[str, Any] = {"json": {"instances": [[1, 2], [3, 4]]}, "base_url": HTTPS}
    assert client.post("/predict", **sent).status_code == 401
    assert client.post("/predict", headers=caller(), **sent).status_code == 403
    predictor = caller("bob", "predict")

    def on_authenticated(sender: Flask, **_: object) -> None:
        heard.append("request_authenticated")

    def on_rejected(sender: Flask, **_: object) -> None:
        heard.append("request_rejected")

    with request_authenticated.connected_to(on_authenticated, app), request_rejected.connected_to(on_rejected, app):
        responses = [client.post("/predict", headers=predictor, **sent) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].json == {"rows": 2, "by": "bob"}
    assert heard == ["request_authenticated", "request_authenticated", "request_rejected"]
    assert client.post("/predict", headers=predictor, base_url=HTTPS, json={"instances": "x"}).status_code == 429
    assert [record["endpoint"] for record in sink.records] == ["predict"] * 6
    assert client.post("/predict", headers=caller("eve", "predict"), json={}, base_url=HTTPS).status_code == 422


def test_handlers_and_hooks_of_the_user_see_rejections(mounting: Callable[..., Flask]) -> None:
    """errorhandler(401) wins over the body, and after_request adds its headers, as on a plain app."""
    app = mounting()
    app.register_error_handler(401, lambda error: ("please log in", 401))

    @app.after_request
    def allow(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "https://app.example"
        return response

    response = app.test_client().get("/metrics", base_url=HTTPS)
    assert (response.status_code, response.text) == (401, "please log in")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert response.headers["X-Request-ID"]


def test_teardown_functions_run_once(mounting: Callable[..., Flask]) -> None:
    """They are for the request that Flask serves, not for the guards."""
    app = mounting()
    ran: list[str] = []
    app.teardown_request(lambda error: ran.append("teardown"))
    app.add_url_rule("/x", view_func=lambda: "ok")
    assert app.test_client().get("/x", base_url=HTTPS).status_code == 401
    assert ran == ["teardown"]
    assert app.test_client().get("/x", base_url=HTTPS, headers=caller()).text == "ok"
    assert ran == ["teardown"] * 2


class Rowed(BaseConverter):
    """A converter that raises for unknown values."""

    def to_python(self, value: str) -> str:
        raise LookupError(value)


class BrokenSessions(SecureCookieSessionInterface):
    """Sessions whose store is down."""

    def open_session(self, app: Flask, request: Request) -> NoReturn:
        raise OSError("store")


@pytest.mark.parametrize("part", ["converter", "session"])
def test_code_that_fails_before_the_guards(mounting: Callable[..., Flask], sink: MemorySink, part: str) -> None:
    """It is a 500, and leaves no context behind that the next request of the thread would use."""
    app = mounting()
    app.url_map.converters["row"] = Rowed
    if part == "session":
        app.session_interface = BrokenSessions()
    app.add_url_rule("/<row:name>", view_func=public(lambda name: name))
    assert app.test_client().get("/x", base_url=HTTPS).status_code == 500
    assert not has_app_context()
    assert not has_request_context()
    assert [(record["status"], record["path"]) for record in sink.records] == [(500, "/x")]


def test_a_body_that_is_read_for_two_policies(bare_app: Flask, protected: MakeApp) -> None:
    """With a public policy at the outer path and another at the route, the view can still read the body."""
    bare_app.wsgi_app = prefixed(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/<path:path>", view_func=public(lambda path: path), methods=["POST"], endpoint="page")
    app.add_url_rule(
        "/echo", view_func=protect(lambda: {"sent": request.get_json()}), methods=["POST"], endpoint="echo"
    )
    client = app.test_client()
    assert client.post("/api/echo", base_url=HTTPS, json=[7]).status_code == 401
    assert client.post("/api/echo", base_url=HTTPS, json=[7], headers=caller()).json == {"sent": [7]}


def test_a_guard_that_fails_rejects(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> None:
    """An unexpected error in a guard is a 500, and no code below runs."""

    class Broken:
        name = "broken"
        stage = 40

        def check(self, request: object, exchange: object) -> None:
            raise LookupError("row 7")

    bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {"/metrics": handlers.wsgi}
    )
    app = protected(bare_app, parts={"guards": [Broken()]})
    response = app.test_client().get("/metrics", base_url=HTTPS, headers=caller())
    assert (response.status_code, handlers.ran) == (500, [])
    assert "row 7" not in response.text


def prefixed(inner: Any) -> Any:
    """Return middleware that serves the app below a prefix, as many deployments do."""

    def layer(environ: dict[str, Any], start_response: Start) -> Any:
        if environ["PATH_INFO"].startswith("/api/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/api", environ["PATH_INFO"].removeprefix("/api")
        return inner(environ, start_response)

    return layer


class Two(Schema):
    instances = Tensor(shape=(None, 2), dtype="float32", required=False)
    queries = Tensor(shape=(None, 2), dtype="float32", required=False)


@pytest.mark.parametrize(
    ("instances", "queries", "statuses"),
    [
        pytest.param(2, 5, [200, 200, 429], id="the policy of the route is dearer"),
        pytest.param(5, 2, [200, 200, 429], id="the policy of the path is dearer"),
        pytest.param(0, 5, [200, 200, 429], id="the path costs nothing"),
        pytest.param(5, 0, [200, 200, 429], id="the route costs nothing"),
        pytest.param(2, 11, [413, 413, 413], id="the route costs more than the quota"),
    ],
)
def test_a_cost_under_two_policies(
    bare_app: Flask, protected: MakeApp, instances: int, queries: int, statuses: list[int]
) -> None:
    """A request pays the higher of the two prices: the second policy is enforced, and no row is charged twice."""
    bare_app.wsgi_app = prefixed(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app, PLANS={"default": {"quotas": ["10/minute"]}})

    @app.post("/<path:path>")
    @protect(body=Two, cost="instances")
    def page(payload: object, path: str) -> str:
        return "page"

    @app.post("/predict")
    @protect(body=Two, cost="queries")
    def predict(payload: object) -> str:
        return "ok"

    client = app.test_client()
    sent = {name: [[1, 2]] * rows for name, rows in (("instances", instances), ("queries", queries)) if rows}
    found = [client.post("/api/predict", base_url=HTTPS, headers=caller(), json=sent).status_code for _ in range(3)]
    assert found == statuses


def test_limits_under_two_policies(bare_app: Flask, protected: MakeApp) -> None:
    """The limits of both policies are enforced, and one that both have is charged once."""
    bare_app.wsgi_app = prefixed(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)
    loose, strict = protect(limits=["3/minute"]), protect(limits=["2/minute", "9/hour"])
    app.add_url_rule("/<path:path>", view_func=loose(lambda path: "page"), endpoint="page")
    app.add_url_rule("/predict", view_func=strict(lambda: "ok"), endpoint="predict")
    client = app.test_client()
    statuses = [client.get("/api/predict", base_url=HTTPS, headers=caller()).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert client.get("/api/other", base_url=HTTPS, headers=caller()).status_code == 429


class Forecast(MethodView):
    """Two methods, each with a policy of its own and the same limit."""

    @protect(limits=["2/minute"])
    def put(self) -> str:
        return "put"

    @protect(limits=["2/minute"])
    def post(self) -> str:
        return "posted"


def test_a_counter_of_two_policies_is_charged_once(bare_app: Flask, protected: MakeApp) -> None:
    """Equal limits of one endpoint share a counter, whichever policy has them."""
    flask_app = bare_app.wsgi_app

    def overriding(environ: dict[str, Any], start_response: Start) -> Any:
        return flask_app(environ | {"REQUEST_METHOD": "POST"}, start_response)

    bare_app.wsgi_app = overriding  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/forecast", view_func=Forecast.as_view("forecast"))
    client = app.test_client()
    responses = [client.put("/forecast", base_url=HTTPS, headers=caller()) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].text == "posted"


def test_a_path_that_is_rewritten_beneath(bare_app: Flask, protected: MakeApp) -> None:
    """The policy of the finally served route applies too; the caller is authenticated and charged once."""
    bare_app.wsgi_app = prefixed(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(
        bare_app,
        PLANS={"default": {"requests": ["3/minute"]}},
        MOUNTS=["/api"],
        POLICIES={"/api/healthz": {"public": True}},
    )
    app.add_url_rule("/closed", view_func=protect(scopes=["admin"])(lambda: "secret"), endpoint="closed")
    app.add_url_rule("/predict", view_func=protect(body=Body)(lambda payload: "ok"), methods=["POST"], endpoint="p")
    app.add_url_rule("/healthz", view_func=public(lambda: "well"), endpoint="healthz")
    app.add_url_rule("/page", view_func=public(lambda: "page"), endpoint="page")
    client = app.test_client()
    assert client.get("/api/healthz", base_url=HTTPS).text == "well"
    assert client.get("/api/page", base_url=HTTPS).status_code == 401
    assert client.get("/api/closed", base_url=HTTPS, headers=caller()).status_code == 403
    posted = [
        client.post("/api/predict", base_url=HTTPS, headers=caller(), json={"instances": [[1, 2]]}) for _ in range(3)
    ]
    assert [response.status_code for response in posted] == [200, 200, 429]


def test_a_public_path_over_a_protected_route(bare_app: Flask, protected: MakeApp) -> None:
    """The route's own policy in code still requires a credential."""
    bare_app.wsgi_app = prefixed(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app, POLICIES={"/api/*": {"public": True}})
    app.add_url_rule("/closed", view_func=protect(scopes=["admin"])(lambda: "secret"), endpoint="closed")
    client = app.test_client()
    assert client.get("/api/closed", base_url=HTTPS).status_code == 401
    assert client.get("/api/closed", base_url=HTTPS, headers=caller()).status_code == 403
    assert client.get("/api/closed", base_url=HTTPS, headers=caller("ada", "admin")).text == "secret"


def test_paths_of_routes_on_a_plain_app(protected: MakeApp) -> None:
    """``/static/*`` sets the policy of routes without their own; code takes precedence."""
    app = protected(POLICIES={"/pages/*": {"public": True}})
    app.add_url_rule("/pages/<name>", view_func=lambda name: name, endpoint="pages")
    app.add_url_rule("/pages/own", view_func=protect(lambda: "own"), endpoint="own")
    SecureML.check(app)
    client = app.test_client()
    statuses = [
        client.get(path, base_url=HTTPS).status_code for path in ("/pages/a", "/pages/own", "/pages/../x", "/other")
    ]
    assert statuses == [200, 401, 401, 401]


@pytest.mark.parametrize("wrap", [pytest.param(lambda inner: inner, id="plain"), pytest.param(ProxyFix, id="layer")])
def test_a_tree_gives_no_route_the_policy_of_another(bare_app: Flask, protected: MakeApp, wrap: Any) -> None:
    """The exact name is of one rule; another rule that matches the same path, for POST, stays what the tree says."""
    bare_app.wsgi_app = wrap(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app, POLICIES={"/pages/*": {"scopes": ["admin"]}, "/pages/own": {"public": True}})
    app.add_url_rule("/pages/own", endpoint="own", view_func=lambda: "own")
    app.add_url_rule("/pages/<name>", endpoint="change", view_func=lambda name: "changed", methods=["POST"])
    SecureML.check(app)
    client = app.test_client()
    assert client.get("/pages/own", base_url=HTTPS).text == "own"
    for path in ("/pages/own", "/pages/other"):
        assert client.post(path, base_url=HTTPS).status_code == 401
        assert client.post(path, base_url=HTTPS, headers=caller()).status_code == 403
        assert client.post(path, base_url=HTTPS, headers=caller("ada", "admin")).text == "changed"


# --- mounted Flask apps -----------------------------------------------------------------------------------------------


def test_a_mounted_flask_app_without_the_extension(bare_app: Flask, protected: MakeApp, handlers: Handlers) -> None:
    """It is guarded by the app that it is mounted in."""
    inner = Flask("inner")
    inner.add_url_rule("/x", view_func=lambda: handlers.note("view", "inner"))
    bare_app.wsgi_app = DispatcherMiddleware(bare_app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    client = protected(bare_app).test_client()
    assert client.get("/inner/x", base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    assert client.get("/inner/x", base_url=HTTPS, headers=caller()).text == "inner"


def protected_inner(clock: FakeClock, sink: MemorySink, handlers: Handlers) -> Flask:
    inner = Flask("inner")
    SecureML(inner, authenticators=[NameAuthenticator()], clock=clock, sink=sink)
    inner.add_url_rule("/any", view_func=lambda: handlers.note("any", current_principal.subject))
    inner.add_url_rule(
        "/scoped",
        endpoint="scoped",
        view_func=protect(scopes=["admin"])(lambda: handlers.note("scoped", "scoped")),
    )
    return inner


def test_a_mounted_flask_app_with_the_extension(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, clock: FakeClock, sink: MemorySink
) -> None:
    """It reuses the exchange and the caller, enforces its own policies, and leaves the record to the outer app."""
    own_sink = MemorySink()
    inner = protected_inner(clock, own_sink, handlers)
    bare_app.wsgi_app = DispatcherMiddleware(bare_app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    client = protected(bare_app).test_client()
    assert client.get("/inner/any", base_url=HTTPS).status_code == 401
    assert client.get("/inner/scoped", base_url=HTTPS, headers=caller()).status_code == 403
    assert handlers.ran == []
    response = client.get("/inner/any", base_url=HTTPS, headers=caller())
    assert response.text == "ada"
    assert client.get("/inner/scoped", base_url=HTTPS, headers=caller("ada", "admin")).text == "scoped"
    assert [record["status"] for record in sink.records] == [401, 403, 200, 200]
    assert sink.records[2]["request_id"] == response.headers["X-Request-ID"]
    assert own_sink.records == []


def test_a_mounted_app_that_asks_for_itself(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, clock: FakeClock, sink: MemorySink
) -> None:
    """If the outer app is public, the inner one still authenticates; with cleared hooks it serves nothing."""
    inner = protected_inner(clock, MemorySink(), handlers)
    bare_app.wsgi_app = DispatcherMiddleware(bare_app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    client = protected(bare_app, POLICIES={"/inner/*": {"public": True}}).test_client()
    assert client.get("/inner/any", base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    assert client.get("/inner/any", base_url=HTTPS, headers=caller()).text == "ada"
    inner.before_request_funcs.clear()
    inner.url_value_preprocessors.clear()
    assert client.get("/inner/any", base_url=HTTPS, headers=caller()).status_code == 500


class Closed:
    """A guard of any stage that rejects all requests."""

    name = "closed"

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def check(self, request: object, exchange: object) -> None:
        raise Forbidden("nobody")


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("open_outside", [False, True])
def test_every_guard_of_a_mounted_app_runs(
    bare_app: Flask, protected: MakeApp, handlers: Handlers, clock: FakeClock, stage: Stage, open_outside: bool
) -> None:
    """Authentication by the outer app does not skip the guards of the inner one, of any stage."""
    inner = Flask("inner")
    SecureML(inner, authenticators=[NameAuthenticator()], clock=clock, sink=MemorySink(), guards=[Closed(stage)])
    inner.add_url_rule("/x", view_func=lambda: handlers.note("view", "inner"))
    bare_app.wsgi_app = DispatcherMiddleware(bare_app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    policies = {"/inner/*": {"public": True}} if open_outside else {}
    client = protected(bare_app, POLICIES=policies).test_client()
    assert client.get("/inner/x", base_url=HTTPS, headers=caller()).status_code == 403
    assert handlers.ran == []


def part_of_batch(path: str, rows: int) -> dict[str, Any]:
    """Return the changes by a view to a copy of its environ for an inner request."""
    body = json.dumps({"instances": [[1, 2]] * rows}).encode()
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "wsgi.input": BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
    }


@pytest.fixture
def batching(bare_app: Flask, protected: MakeApp) -> Callable[..., Flask]:
    """Make an app with a view, and below it middleware, that make several requests of one."""

    def make(**settings: Any) -> Flask:
        flask_app = bare_app.wsgi_app

        def layer(environ: dict[str, Any], start_response: Start) -> Any:
            if environ["PATH_INFO"] != "/below":
                return flask_app(environ, start_response)
            found = [run_wsgi_app(flask_app, environ | part_of_batch("/predict", 10))[1][:3] for _ in range(3)]
            start_response("200 OK", [])
            return [json.dumps(found).encode()]

        bare_app.wsgi_app = layer  # type: ignore[method-assign]
        app = protected(bare_app, MOUNTS=["/below"], **settings)

        @app.post("/predict")
        @protect(scopes=["predict"], body=Body, cost="instances")
        def predict(payload: dict[str, Any]) -> dict[str, Any]:
            return {"rows": len(payload["instances"]), "by": current_principal.id}

        @app.get("/batch")
        @public
        def batch() -> list[str]:
            own = request.environ
            found = [run_wsgi_app(app, own | part_of_batch("/predict", 10))[1][:3] for _ in range(3)]
            return [*found, str(current_exchange.endpoint), str(current_exchange.payload)]

        return app

    return make


@pytest.mark.parametrize("path", ["/batch", "/below"])
def test_each_request_of_a_batch_pays(batching: Callable[..., Flask], sink: MemorySink, path: str) -> None:
    """Each is guarded, with its own payload, and charged; an admission does not apply to the next one."""
    client = batching(PLANS={"default": {"requests": ["100/minute"], "quotas": ["25/minute"]}}).test_client()
    response = client.get(path, base_url=HTTPS, headers=caller("ada", "predict"))
    assert response.get_json(force=True)[:3] == ["200", "200", "429"]
    assert client.get(path, base_url=HTTPS, headers=caller("bob")).get_json(force=True)[:3] == ["403"] * 3


def test_a_request_that_a_view_makes(batching: Callable[..., Flask], sink: MemorySink) -> None:
    """It does not change the state of the outer request, and has its own record."""
    client = batching(PLANS={"default": {"requests": ["100/minute"]}}).test_client()
    response = client.get("/batch", base_url=HTTPS, headers=caller("ada", "predict"))
    assert response.get_json() == ["200"] * 3 + ["batch", "None"]
    assert [(record["endpoint"], record["principal"]) for record in sink.records] == [
        *[("predict", "test:ada")] * 3,
        ("batch", None),
    ]
    assert {record["request_id"] for record in sink.records} == {response.headers["X-Request-ID"]}
    stranger = client.get("/batch", base_url=HTTPS)
    assert stranger.get_json()[:3] == ["401"] * 3


def test_shared_data(bare_app: Flask, protected: MakeApp, tmp_path: Path) -> None:
    """Files served by middleware are guarded like other responses, and so are requests that it forwards."""
    (tmp_path / "weights.txt").write_text("weights")
    bare_app.wsgi_app = SharedDataMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {"/files": str(tmp_path)}
    )
    app = protected(bare_app)
    app.add_url_rule("/<path:path>", view_func=public(lambda path: "page"), endpoint="page")
    client = app.test_client()
    for path in ("/files/weights.txt", "/files/nothing.txt"):
        assert client.get(path, base_url=HTTPS).status_code == 401
    with client.get("/files/weights.txt", base_url=HTTPS, headers=caller()) as response:
        assert response.get_data(as_text=True) == "weights"


# --- classes with their own dispatch ----------------------------------------------------------------------------------


def test_a_class_that_dispatches_for_itself(protected: MakeApp, handlers: Handlers) -> None:
    """Its handler does not run for a stranger, wherever in the dispatch it responds."""

    class Own(Flask):
        def full_dispatch_request(self) -> Response:
            handlers.ran.append("full_dispatch_request")
            return Response("prediction")

    app = protected(Own("model_app"))
    client = app.test_client()
    assert client.get("/x", base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    assert client.get("/x", base_url=HTTPS, headers=caller()).text == "prediction"
    assert handlers.ran == ["full_dispatch_request"]


@pytest.mark.parametrize("name", ["wsgi_app", "preprocess_request", "dispatch_request", "finalize_request"])
def test_no_override_runs_for_a_stranger(protected: MakeApp, handlers: Handlers, name: str) -> None:
    """Not even those that Flask calls when it makes an error response."""

    def override(self: Flask, *args: Any, **kwargs: Any) -> Any:
        handlers.ran.append(name)
        return getattr(Flask, name)(self, *args, **kwargs)

    app = protected(type("Own", (Flask,), {name: override})("model_app"))
    app.add_url_rule("/x", view_func=lambda: "ok")
    client = app.test_client()
    assert client.get("/x", base_url=HTTPS).status_code == 401
    assert handlers.ran == []
    assert client.get("/x", base_url=HTTPS, headers=caller()).text == "ok"
    assert handlers.ran == [name]


def test_an_override_that_processes_responses(protected: MakeApp, handlers: Handlers) -> None:
    """``process_response`` of the class runs for admitted callers only."""

    class Own(Flask):
        def process_response(self, response: Response) -> Response:
            handlers.ran.append("process_response")
            return super().process_response(response)

    app = protected(Own("model_app"))
    assert app.test_client().get("/x", base_url=HTTPS).status_code == 401
    assert handlers.ran == []


# --- what stands around the app ---------------------------------------------------------------------------------------


class Outer:
    """Middleware that passes everything on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Any:
        return self.inner(environ, start_response)


def test_middleware_around_the_app(app: Flask, caplog: pytest.LogCaptureFixture, sink: MemorySink) -> None:
    """Every request is a 500, with one log line, and the check reports it beforehand."""
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    app.wsgi_app = Outer(app.wsgi_app)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"test_gate\.Outer wraps the app .* SECURE_ML_OUTER_MIDDLEWARE"):
        SecureML.check(app)
    with caplog.at_level(logging.CRITICAL):
        responses = [app.test_client().get("/open", base_url=HTTPS) for _ in range(3)]
    assert [(response.status_code, response.json and response.json["code"]) for response in responses] == [
        (500, "internal_error")
    ] * 3
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert [(record["method"], record["path"], record["status"]) for record in sink.records] == [
        ("GET", "/open", 500)
    ] * 3


@pytest.mark.parametrize("name", [f"{Outer.__module__}.Outer", f"{Outer.__module__}:Outer"])
def test_middleware_that_is_named(protected: MakeApp, name: str) -> None:
    """``SECURE_ML_OUTER_MIDDLEWARE`` accepts it; a second one beneath it is still unknown."""
    app = protected(OUTER_MIDDLEWARE=[name])
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    app.wsgi_app = Outer(app.wsgi_app)  # type: ignore[method-assign]
    SecureML.check(app)
    assert app.test_client().get("/open", base_url=HTTPS).text == "ok"
    app.wsgi_app = Outer(SharedDataMiddleware(app.wsgi_app.inner, {}))  # type: ignore[method-assign]
    assert app.test_client().get("/open", base_url=HTTPS).status_code == 500


def test_a_class_with_its_own_call(protected: MakeApp) -> None:
    """Responses of its own ``__call__`` cannot be guarded, so it counts as middleware around the app."""

    class Calling(Flask):
        def __call__(self, environ: dict[str, Any], start_response: Start) -> Any:
            return super().__call__(environ, start_response)

    app = protected(Calling("model_app"))
    assert app.test_client().get("/x", base_url=HTTPS, headers=caller()).status_code == 500
    named = protected(Calling("model_app"), OUTER_MIDDLEWARE=[f"{__name__}.{Calling.__qualname__}"])
    assert named.test_client().get("/x", base_url=HTTPS, headers=caller()).status_code == 404


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(ProxyFix, id="itself"),
        pytest.param(type("Mine", (ProxyFix,), {}), id="subclass"),
        pytest.param(lambda inner: Outer(ProxyFix(inner)), id="below another"),
    ],
)
def test_proxy_fix_around_the_app(protected: MakeApp, wrap: Callable[[Any], Any]) -> None:
    """It would believe the forwarded headers of strangers, so no setting accepts it."""
    app = protected(OUTER_MIDDLEWARE=[f"{__name__}.Outer", f"{__name__}.Mine"])
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
    assert app.test_client().get("/open", base_url=HTTPS).status_code == 500
    with pytest.raises(ConfigError, match="SECURE_ML_TRUSTED_PROXIES"):
        SecureML.check(app)


def test_proxy_fix_under_another_name(app: Flask) -> None:
    """A wrapper that is not ``app.wsgi_app`` is detected by its keys in the environ."""
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    assert Client(ProxyFix(app)).get("/open", base_url=HTTPS).status_code == 500


def test_proxy_fix_beneath_the_guards(bare_app: Flask, protected: MakeApp, sink: MemorySink) -> None:
    """There it reads values that are already settled, so an app may keep it."""
    bare_app.wsgi_app = ProxyFix(bare_app.wsgi_app)  # type: ignore[method-assign]
    app = protected(bare_app)
    app.add_url_rule("/who", view_func=public(lambda: f"{request.remote_addr} {request.scheme}"))
    SecureML.check(app)
    forged = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    response = app.test_client().get("/who", base_url=HTTPS, headers=forged)
    assert response.text == "127.0.0.1 https"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"MOUNTS": ["metrics"]}, "not a path such as"),
        ({"MOUNTS": ["/metrics/"]}, "not a path such as"),
        ({"MOUNTS": ["/metrics/*"]}, "not a path such as"),
        ({"MOUNTS": ["/a/../b"]}, "not a path such as"),
        ({"MOUNTS": "/metrics"}, "must be a list"),
        ({"OUTER_MIDDLEWARE": "a.B"}, "must be a list"),
        ({"OUTER_MIDDLEWARE": ["B"]}, "not an import name"),
        ({"OUTER_MIDDLEWARE": ["werkzeug.middleware.proxy_fix.ProxyFix"]}, "SECURE_ML_TRUSTED_PROXIES"),
        ({"OUTER_MIDDLEWARE": ["werkzeug.middleware.proxy_fix:ProxyFix"]}, "SECURE_ML_TRUSTED_PROXIES"),
    ],
)
def test_settings_that_say_nothing(protected: MakeApp, settings: dict[str, Any], message: str) -> None:
    """A wrong value is an error at start-up."""
    with pytest.raises(ConfigError, match=message):
        protected(**settings)
