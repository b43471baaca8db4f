"""CORS: preflights before authentication, headers on every response, and origins that must not match."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import TestResponse

from flask_secure_ml import ConfigError, Policy, protect, public
from flask_secure_ml.config import Settings
from flask_secure_ml.policy.cors import METHODS, CorsOptions, canonical_origin
from flask_secure_ml.policy.schema import load_options
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

APP = "https://app.example.com"
ADMIN = "https://admin.example.com"
EVIL = "https://evil.test"
CORS = {"origins": [APP]}
CORPUS = json.loads((Path(__file__).parent.parent / "corpus" / "cors" / "origins.json").read_text(encoding="utf-8"))
EXPOSED = "RateLimit, RateLimit-Policy, Retry-After, X-Request-ID, X-Error-Code, WWW-Authenticate, DPoP-Nonce"
PREFLIGHT = {
    "Access-Control-Allow-Origin": APP,
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, DPoP, X-API-Key",
    "Access-Control-Max-Age": "600",
}
PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"

Serve = Callable[..., Flask]


@pytest.fixture(params=["plain", "mounting"])
def serve(request: pytest.FixtureRequest, protected: MakeApp) -> Serve:
    """Make an app that is guarded in Flask's first hook, or one that is guarded before what stands beneath."""

    def make(app: Flask | None = None, **settings: Any) -> Flask:
        app = app or Flask("model_app")
        app.add_url_rule("/predict", "predict", lambda: {"y": 1}, methods=["GET", "POST"])
        app.add_url_rule("/open", "open", public(lambda: "open"))
        if request.param == "mounting":
            mounts: Any = {"/metrics": Response("metrics", headers={"Access-Control-Allow-Origin": "*"})}
            app.wsgi_app = DispatcherMiddleware(app.wsgi_app, mounts)  # type: ignore[method-assign]
        return protected(app, **{"CORS": CORS} | settings)

    return make


def send(app: Flask, method: str, path: str, origin: str | None = APP, **request: Any) -> TestResponse:
    headers = {} if origin is None else {"Origin": origin}
    return app.test_client().open(
        path, method=method, base_url=HTTPS, headers=headers | request.pop("headers", {}), **request
    )


def preflight(app: Flask, path: str, origin: str | None = APP, method: str = "POST", **headers: str) -> TestResponse:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    return send(app, "OPTIONS", path, origin, headers=asked | headers)


def cors_headers(response: TestResponse) -> dict[str, str]:
    names = [name.lower() for name, _ in response.headers]
    assert len([name for name in names if name.startswith("access-control-")]) == len(
        {name for name in names if name.startswith("access-control-")}
    )
    return {name: value for name, value in response.headers if name.lower().startswith("access-control-")}


def distinguishing(response: TestResponse) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return the visible parts of a response, except for its id."""
    headers = [(name, value) for name, value in response.headers if name != "X-Request-ID"]
    return response.status_code, response.data, headers


# --- origins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", CORPUS["allowed"])
def test_origins_that_match(origin: str) -> None:
    """They are sent back as they are listed, never as they came."""
    assert options(origins=CORPUS["listed"]).allowed(origin) == CORPUS["allowed"][origin]


@pytest.mark.parametrize("origin", CORPUS["rejected"].values(), ids=CORPUS["rejected"])
def test_origins_that_do_not_match(origin: str) -> None:
    """Scheme, host and port are compared as wholes."""
    assert options(origins=CORPUS["listed"]).allowed(origin) is None


@pytest.mark.parametrize("origin", CORPUS["rejected"].values(), ids=CORPUS["rejected"])
def test_they_read_nothing(protected: MakeApp, origin: str) -> None:
    """Preflights and responses have no CORS headers for them; the app serves them as without CORS."""
    app = protected(CORS={"origins": CORPUS["listed"]})
    app.add_url_rule("/open", "open", public(lambda: "open"))
    sent = {"Origin": origin.encode().decode("latin-1")}
    asked = sent | {"Access-Control-Request-Method": "GET"}
    for method, headers, status in (("OPTIONS", asked, 204), ("GET", sent, 200)):
        response = app.test_client().open("/open", method=method, base_url=HTTPS, headers=headers)
        assert (response.status_code, cors_headers(response)) == (status, {})
        assert response.headers["Vary"].startswith("Origin")


@pytest.mark.parametrize("entry", CORPUS["not_configurable"])
def test_origins_that_cannot_be_configured(entry: str) -> None:
    """Values that could never match, or look like a pattern, are an error with their position."""
    (problem,) = problems(origins=[entry])
    assert problem.startswith(f"SECURE_ML_CORS.origins[0]: {entry!r} is not an origin; write it as")


def test_an_origin_is_bounded() -> None:
    """The longest host name is accepted; longer ones are not compared."""
    label = "a" * 63
    host = ".".join((label, label, label, "a" * 61))
    assert canonical_origin(f"https://{host}:8443") == f"https://{host}:8443"
    assert canonical_origin("https://" + "a." * 100_000 + "a") is None


# --- configuration --------------------------------------------------------------------------------------------------


def options(**given: Any) -> CorsOptions:
    return load_options(CorsOptions, given)


def problems(**given: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_CORS": given})
    return caught.value.problems


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "origins: is missing; it must be a list of strings"),
        ({"origins": APP}, 'origins: must be a list, not one string; write ["https://app.example.com"]'),
        (
            {"origins": ["*"], "credentials": True},
            "credentials: requires exact origins: with '*', every site could act",
        ),
        ({"origins": ["*", APP]}, "origins: has both '*', which means every origin, and other origins"),
        ({"origins": [APP], "credentials": "yes"}, "credentials: must be true or false, not 'yes'"),
        ({"origins": [APP], "methods": ["get"]}, "methods[0]: 'get' is not known"),
        ({"origins": [APP], "methods": ["*"]}, "methods[0]: '*' is not known"),
        ({"origins": [APP], "methods": []}, "methods: is empty"),
        ({"origins": [APP], "headers": ["*"]}, "headers[0]: '*' is not the name of a header"),
        ({"origins": [APP], "headers": ["A\r\nB"]}, "headers[0]: 'A\\r\\nB' is not the name of a header"),
        ({"origins": [APP], "expose": ["*"]}, "expose[0]: '*' is not the name of a header"),
        ({"origins": [APP], "max_age": 86_401}, "max_age: must be a whole number of seconds from 0 to 86400"),
        ({"origins": [APP], "origin": APP}, "origin: is not known; did you mean origins?"),
    ],
)
def test_mistakes(given: dict[str, Any], problem: str) -> None:
    """Each is an error at start-up, with a remedy; in a policy too."""
    (found,) = problems(**given)
    assert found.startswith(f"SECURE_ML_CORS.{problem}")
    with pytest.raises(ConfigError) as caught:
        protect(cors=given)  # type: ignore[call-overload]
    assert caught.value.problems[0].startswith(f"cors.{problem}")


@pytest.mark.parametrize("given", [True, APP, [APP]])
def test_other_types(given: Any) -> None:
    """The example is in the message."""
    with pytest.raises(ConfigError, match=r"cors: must be an object such as \{.*\}, or false"):
        protect(cors=given)


@pytest.mark.parametrize("where", ["code", "configuration", "tree"])
def test_a_policy_needs_the_setting(protected: MakeApp, where: str) -> None:
    """Without it no preflight would be responded to; the first request finds that too."""
    app = Flask("model_app")
    view = protect(cors={"origins": [APP]})(lambda: "ok") if where == "code" else lambda: "ok"
    app.add_url_rule("/predict", "predict", view)
    names = {"code": {}, "configuration": {"predict": {"cors": CORS}}, "tree": {"/static/*": {"cors": CORS}}}
    protected(app, POLICIES=names[where])
    app.config["PROPAGATE_EXCEPTIONS"] = False
    assert send(app, "GET", "/predict", headers=caller()).status_code == 500
    problem = next(app.extensions["secure_ml"].policies.problems())
    assert problem.startswith(
        f"{'/static/*' if where == 'tree' else 'predict'!r} has cors in its policy, which requires"
    )


def test_a_policy_that_allows_none_needs_no_setting(protected: MakeApp) -> None:
    """There is nothing to allow."""
    app = protected()
    app.add_url_rule("/x", "x", protect(cors=False)(lambda: "ok"))
    assert send(app, "GET", "/x", headers=caller()).status_code == 200


# --- preflights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/open", "/nowhere", "/static/x", "/predict/"])
def test_a_preflight(serve: Serve, path: str) -> None:
    """It needs no credential, and looks the same for every URL: routes cannot be listed."""
    response = preflight(serve(), path)
    assert (response.status_code, response.data, cors_headers(response)) == (204, b"", PREFLIGHT)
    assert response.headers["Vary"] == PREFLIGHT_VARY
    assert "Allow" not in response.headers


@pytest.mark.parametrize("origin", [APP, EVIL])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "BREW", "get", "", "\xff"])
def test_routes_cannot_be_listed(serve: Serve, origin: str, method: str) -> None:
    """Whatever method is announced, a route, one with another method and an unknown URL give equal responses."""
    app = serve()
    app.add_url_rule("/model/<int:number>", "model", lambda number: "model", methods=["PATCH"])
    paths = ("/predict", "/open", "/model/1", "/nowhere", "/model/x", "/predict/", "//predict", "/metrics")
    seen = [distinguishing(preflight(app, path, origin, method)) for path in paths]
    assert all(each == seen[0] for each in seen)


def test_what_is_mounted(serve: Serve) -> None:
    """A mount gets a preflight as little as a view, and its own CORS headers do not leave."""
    app = serve()
    assert cors_headers(preflight(app, "/metrics")) == PREFLIGHT
    response = send(app, "GET", "/metrics", EVIL, headers=caller())
    assert cors_headers(response) == {}
    assert response.headers["Vary"] == "Origin"
    assert cors_headers(send(app, "GET", "/metrics", headers=caller()))["Access-Control-Allow-Origin"] == APP


def test_a_route_that_a_mount_shadows(serve: Serve, request: pytest.FixtureRequest) -> None:
    """The policy of a view does not apply to an app mounted over it."""
    app = serve()
    app.add_url_rule("/metrics", "metrics", protect(cors={"origins": [ADMIN]})(lambda: "view"))
    is_mounted = request.node.callspec.id == "mounting"
    assert cors_headers(preflight(app, "/metrics", APP, "GET")) == (PREFLIGHT if is_mounted else {})
    response = send(app, "GET", "/metrics", APP, headers=caller())
    assert (response.text, bool(cors_headers(response))) == (("metrics", True) if is_mounted else ("view", False))


def test_nothing_of_the_request_is_reflected(serve: Serve) -> None:
    """Methods, headers and the private network are the configured ones, or none."""
    asked = {"Access-Control-Request-Headers": "x-evil", "Access-Control-Request-Private-Network": "true"}
    response = preflight(serve(), "/predict", method="PUT", **asked)
    assert cors_headers(response) == PREFLIGHT


def test_options_without_a_method_is_no_preflight(serve: Serve) -> None:
    """It needs a credential, and Flask responds with the methods."""
    app = serve()
    assert send(app, "OPTIONS", "/predict").status_code == 401
    response = send(app, "OPTIONS", "/predict", headers=caller())
    assert (response.status_code, sorted(response.allow)) == (200, ["GET", "HEAD", "OPTIONS", "POST"])
    asked = {"Access-Control-Request-Method": "POST"}
    assert send(app, "OPTIONS", "/predict", None, headers=asked).status_code == 401


def test_without_the_setting_nothing_changes(protected: MakeApp) -> None:
    """A preflight is an OPTIONS request like any other, and CORS headers of the app stay."""
    app = protected()
    app.add_url_rule("/own", "own", public(lambda: ("own", {"Access-Control-Allow-Origin": "*"})))
    app.add_url_rule("/predict", "predict", lambda: "ok", methods=["POST"])
    assert preflight(app, "/predict").status_code == 401
    response = send(app, "GET", "/own")
    assert cors_headers(response) == {"Access-Control-Allow-Origin": "*"}
    assert "Vary" not in response.headers


def test_clear_text_gets_no_preflight(serve: Serve) -> None:
    """TLS comes first."""
    headers = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    response = serve().test_client().options("/predict", headers=headers)
    assert (response.status_code, cors_headers(response)) == (403, {})


def test_no_code_of_the_app_runs_before(serve: Serve, sink: MemorySink) -> None:
    """No hooks, views that handle OPTIONS or error handlers run; later hooks cannot relax it."""
    ran: list[str] = []
    app = Flask("model_app")
    app.url_value_preprocessor(lambda _endpoint, _values: ran.append("preprocessor"))
    app.before_request(lambda: ran.append("before_request"))
    app.register_error_handler(Exception, lambda error: ran.append("error handler") or ("", 500))  # type: ignore[func-returns-value]
    app.add_url_rule("/own", "own", lambda: ran.append("view") or "", methods=["OPTIONS", "POST"])  # type: ignore[func-returns-value]

    @app.after_request
    def reflect(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = EVIL
        response.headers["Access-Control-Allow-Private-Network"] = "true"
        return response

    serve(app)
    assert (preflight(app, "/own").status_code, ran) == (204, [])
    assert cors_headers(preflight(app, "/own", EVIL)) == {}
    assert [(line["status"], line["code"]) for line in sink.records] == [(204, None)] * 2


def test_an_app_that_traps_http_exceptions(serve: Serve, sink: MemorySink) -> None:
    """Flask then gives a preflight to the handler for all HTTP errors, and it is none."""
    app = Flask("model_app")
    app.config["TRAP_HTTP_EXCEPTIONS"] = True
    assert cors_headers(preflight(serve(app), "/predict")) == PREFLIGHT
    (line,) = sink.records
    assert (line["status"], line["code"]) == (204, None)


# --- options of a route ---------------------------------------------------------------------------------------------


def test_the_options_of_a_route(serve: Serve) -> None:
    """They replace the setting as a whole, and hold for the method that is announced."""
    app = serve()

    class Jobs(MethodView):
        @protect(cors={"origins": [ADMIN], "methods": ["DELETE"], "headers": [], "max_age": 0, "credentials": True})
        def delete(self) -> str:
            return "gone"

        @protect(cors=False)
        def put(self) -> str:
            return "put"

        def get(self) -> str:
            return "jobs"

    app.add_url_rule("/jobs", view_func=Jobs.as_view("jobs"))
    assert cors_headers(preflight(app, "/jobs", ADMIN, "DELETE")) == {
        "Access-Control-Allow-Origin": ADMIN,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "DELETE",
        "Access-Control-Max-Age": "0",
    }
    assert cors_headers(preflight(app, "/jobs", APP, "DELETE")) == {}
    assert cors_headers(preflight(app, "/jobs", APP, "PUT")) == {}
    assert cors_headers(preflight(app, "/jobs", APP, "GET")) == PREFLIGHT
    assert cors_headers(send(app, "DELETE", "/jobs", ADMIN, headers=caller())) == {
        "Access-Control-Allow-Origin": ADMIN,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSED,
    }
    assert cors_headers(send(app, "DELETE", "/jobs", APP, headers=caller())) == {}
    response = send(app, "PUT", "/jobs", APP, headers=caller())
    assert (cors_headers(response), "Vary" in response.headers) == ({}, False)


def test_two_views_at_one_url(serve: Serve) -> None:
    """Each method has the policy of its own view."""
    app = serve()
    app.add_url_rule("/two", "read", protect(cors={"origins": [ADMIN]})(lambda: "read"), methods=["GET"])
    app.add_url_rule("/two", "write", protect(cors={"origins": [EVIL]})(lambda: "write"), methods=["POST"])
    for method, origin in (("GET", ADMIN), ("HEAD", ADMIN), ("POST", EVIL), ("PUT", APP)):
        allowed = [each for each in (APP, ADMIN, EVIL) if cors_headers(preflight(app, "/two", each, method))]
        assert allowed == [origin], method


def test_a_blueprint_and_a_configured_policy(serve: Serve) -> None:
    """A preflight finds the policy of an actual request, wherever that is set."""
    app = Flask("model_app")
    pages = protect(cors={"origins": [ADMIN]})(Blueprint("pages", __name__, url_prefix="/pages"))
    pages.add_url_rule("/a", "a", lambda: "a")
    app.register_blueprint(pages)
    serve(app, POLICIES={"/predict": {"cors": {"origins": [ADMIN]}}, "/static/*": {"cors": {"origins": [ADMIN]}}})
    for path in ("/pages/a", "/predict", "/static/x"):
        assert cors_headers(preflight(app, path, ADMIN, "GET"))["Access-Control-Allow-Origin"] == ADMIN
        assert cors_headers(preflight(app, path, APP, "GET")) == {}


def test_announced_methods_do_not_fill_the_memory(serve: Serve) -> None:
    """The policies that are found are cached for methods that exist only."""
    app = serve()
    app.add_url_rule("/any", "any", lambda: "any", methods=["GET"])
    for method in ("GET", "gEt", "GeT", "BREW", "x" * 5000):
        preflight(app, "/any", method=method)
    cached = {method for rule, _, method, _ in app.extensions["secure_ml"].policies._found}
    assert cached <= set(METHODS)


# --- responses ------------------------------------------------------------------------------------------------------


def crash() -> str:
    raise ValueError("a fault")


ERRORS: Mapping[int, dict[str, Any]] = {
    400: {"query_string": "a=\xff"},
    401: {},
    403: {"path": "/admin", "headers": caller()},
    404: {"path": "/nowhere", "headers": caller()},
    405: {"method": "PATCH", "headers": caller()},
    413: {"method": "POST", "data": b"x" * 50, "headers": caller()},
    418: {"path": "/teapot", "headers": caller()},
    429: {"path": "/limited", "headers": caller()},
    500: {"path": "/crash", "headers": caller()},
}


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("own", [False, True], ids=["ours", "a handler of the app"])
def test_errors_can_be_read(serve: Serve, status: int, own: bool) -> None:
    """A page of an allowed origin learns why a request failed; no other page learns anything."""
    app = serve(MAX_BODY_BYTES=40, PLANS={"default": {"requests": []}})
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/admin", "admin", protect(scopes=["admin"])(lambda: "admin"))
    app.add_url_rule("/limited", "limited", protect(limits=["1/hour"])(lambda: "limited"))
    app.add_url_rule("/crash", "crash", crash)
    app.add_url_rule("/teapot", "teapot", lambda: abort(418))
    if own:
        app.register_error_handler(Exception, lambda error: ("sorry", getattr(error, "code", 500)))
    request = {"method": "GET", "path": "/predict"} | ERRORS[status]
    for _ in range(2):
        response = send(app, origin=APP, **request)
    assert response.status_code == status
    assert cors_headers(response) == {"Access-Control-Allow-Origin": APP, "Access-Control-Expose-Headers": EXPOSED}
    assert response.headers["Vary"] == "Origin"
    for origin in (EVIL, None):
        response = send(app, origin=origin, **request)
        assert (response.status_code, cors_headers(response), response.headers["Vary"]) == (status, {}, "Origin")


def test_a_hook_that_fails(serve: Serve) -> None:
    """The error response that replaces the response of the app has the headers too."""
    app = Flask("model_app")
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.after_request
    def fail(response: Response) -> Response:
        raise RuntimeError

    serve(app)
    response = send(app, "GET", "/predict", headers=caller())
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (500, APP)
    response = preflight(app, "/predict")
    assert (response.status_code, response.headers["Vary"]) == (500, PREFLIGHT_VARY)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param([], ["Origin"], id="none"),
        pytest.param(["Accept"], ["Accept, Origin"], id="another"),
        pytest.param(["Accept, Cookie"], ["Accept, Cookie, Origin"], id="two"),
        pytest.param(["Accept", "Cookie"], ["Accept, Cookie, Origin"], id="two headers"),
        pytest.param(["origin"], ["origin"], id="present"),
        pytest.param(["Accept , ORIGIN,"], ["Accept , ORIGIN,"], id="present among others"),
        pytest.param(["*"], ["*"], id="everything"),
        pytest.param(["X-Origin"], ["X-Origin, Origin"], id="a longer name"),
    ],
)
def test_vary_is_merged(serve: Serve, own: list[str], expected: list[str]) -> None:
    """Values of Vary from the app are kept."""
    app = serve()
    app.add_url_rule("/own", "own", lambda: Response("own", headers=[("Vary", value) for value in own]))
    for origin in (APP, EVIL, None):
        assert send(app, "GET", "/own", origin, headers=caller()).headers.getlist("Vary") == expected


def test_caches_keep_origins_apart(serve: Serve) -> None:
    """Every cacheable response has Vary, for any first client, also a 304 and one without an origin."""
    app = serve()
    view = public(lambda: Response("model", headers={"Cache-Control": "max-age=60", "ETag": '"1"'}))
    app.add_url_rule("/cached", "cached", view)
    for origin in (None, EVIL, APP):
        response = send(app, "GET", "/cached", origin)
        assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("max-age=60", "Origin")
        assert ("Access-Control-Allow-Origin" in response.headers) == (origin == APP)


def test_every_origin(serve: Serve) -> None:
    """The wildcard is the same for everyone, so there is no Vary, and a request without an origin has it too."""
    app = serve(CORS={"origins": ["*"], "expose": ["X-Model", "Retry-After"]})
    for origin in (APP, "null", None):
        response = send(app, "GET", "/open", origin)
        exposed = f"{EXPOSED}, X-Model"
        assert cors_headers(response) == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": exposed,
        }
        assert "Vary" not in response.headers
    assert cors_headers(preflight(app, "/open", "null")) == PREFLIGHT | {"Access-Control-Allow-Origin": "*"}


def test_the_policy_decides_alone(serve: Serve) -> None:
    """Headers that a view sets by itself go, those that would open it most of all."""
    app = serve()
    own = {
        "Access-Control-Allow-Origin": EVIL,
        "access-control-allow-credentials": "true",
        "Access-Control-Allow-Private-Network": "true",
    }
    app.add_url_rule("/own", "own", public(lambda: ("own", own)))
    assert cors_headers(send(app, "GET", "/own", EVIL)) == {}
    assert set(cors_headers(send(app, "GET", "/own"))) == {
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
    }


def test_no_origin_by_default(serve: Serve) -> None:
    """With an empty list, preflights get no CORS headers, and responses do not vary."""
    app = serve(CORS={"origins": []})
    response = preflight(app, "/predict")
    assert (response.status_code, cors_headers(response)) == (204, {})
    response = send(app, "GET", "/open")
    assert (cors_headers(response), "Vary" in response.headers) == ({}, False)


def test_dpop_headers_stay_exposed(protected: MakeApp) -> None:
    """DP-16: once, whether CORS or DPoP requires it."""
    issuer = {"issuer": "https://a", "audience": "b", "algorithms": ["RS256"], "jwks_uri": "https://a/jwks"}
    app = protected(TOKEN_ISSUERS=[issuer], DPOP="accept", RESOURCE_URI="https://a", CORS=CORS)
    assert send(app, "GET", "/").headers.getlist("Access-Control-Expose-Headers") == [EXPOSED]
    assert cors_headers(send(app, "GET", "/", EVIL)) == {}


def test_a_middleware_that_changes_the_path(protected: MakeApp) -> None:
    """The policy of the served route applies, not that of the requested URL."""
    app = Flask("model_app")
    app.add_url_rule("/open", "open", public(lambda: "open"))
    app.add_url_rule("/closed", "closed", protect(cors=False)(lambda: "closed"))
    inner = app.wsgi_app

    def closed(environ: Any, start_response: Any) -> Any:
        return inner(environ | {"PATH_INFO": "/closed"}, start_response)

    app.wsgi_app = closed  # type: ignore[method-assign]
    protected(app, CORS=CORS)
    response = send(app, "GET", "/open", headers=caller())
    assert (response.text, cors_headers(response)) == ("closed", {})


def test_policies_compare_and_print() -> None:
    """The option is part of a policy like any other."""
    assert Policy.build(cors={"origins": [APP]}) == Policy.build(cors={"origins": ["HTTPS://APP.example.com:443"]})
    assert Policy.build(cors=None) == Policy.build() != Policy.build(cors=False)


# --- the log --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "method", "headers", "reason"),
    [
        pytest.param(APP, "POST", "authorization, content-type", None, id="allowed"),
        pytest.param(APP, "POST", "", None, id="no headers"),
        pytest.param("http://localhost:3001", "POST", "", "CORS: the origin is not listed", id="origin"),
        pytest.param("null", "GET", "", "CORS: the origin is not listed", id="null"),
        pytest.param(APP, "PATCH", "", "CORS: the method is not listed", id="method"),
        pytest.param(APP, "POST", "authorization,X-Trace", "CORS: a header is not listed", id="header"),
    ],
)
def test_the_reason_of_a_preflight_in_vain(
    protected: MakeApp, sink: MemorySink, origin: str, method: str, headers: str, reason: str | None
) -> None:
    """The log has the reason for a denied preflight; the response does not."""
    app = protected(CORS=CORS)
    preflight(app, "/nowhere", origin, method, **{"Access-Control-Request-Headers": headers})
    assert (sink.records[-1]["status"], sink.records[-1]["reason"]) == (204, reason)


def test_the_reason_of_a_preflight_under_a_policy(protected: MakeApp, sink: MemorySink) -> None:
    app = Flask("model_app")
    app.add_url_rule("/jobs", "jobs", protect(cors=False)(lambda: "ok"))
    protected(app, CORS=CORS)
    preflight(app, "/jobs", APP, "GET")
    assert sink.records[-1]["reason"] == "CORS: the origin is not listed"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (
            {"Access-Control-Request-Method": "POST"},
            "no credential; this is a CORS preflight, but SECURE_ML_CORS is not set",
        ),
        ({}, "no credential"),
    ],
)
def test_the_reason_of_a_preflight_without_cors(
    protected: MakeApp, sink: MemorySink, headers: dict[str, str], reason: str
) -> None:
    """Without CORS, a preflight is an ordinary OPTIONS request, and gets 401."""
    assert send(protected(), "OPTIONS", "/nowhere", headers=headers).status_code == 401
    assert sink.records[-1]["reason"] == reason
