"""The session cookie as a credential: its user, and the requests for which it is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, Request, Response, session
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import TestResponse, create_environ, run_wsgi_app

from doctored import found_in
from flask_secure_ml import ConfigError, current_principal, protect, public
from flask_secure_ml.config import Settings
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import MemorySink
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

CORPUS = Path(__file__).parent.parent / "corpus" / "session"
REQUESTS = json.loads((CORPUS / "requests.json").read_text(encoding="utf-8"))
SESSIONS = json.loads((CORPUS / "sessions.json").read_text(encoding="utf-8"))
LOGIN = {"user": "user_id", "scopes": ["read"], "scopes_from": "scopes"}
OWN = {"Origin": HTTPS}
APP = "https://app.example.com"
EVIL = "https://evil.test"
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "FROB"]

Serve = Callable[..., "Served"]


class Served:
    """A protected app, and the calls of its view."""

    def __init__(self, protected: MakeApp, *, mounting: bool, around: Any = None, **settings: Any) -> None:
        self.calls: list[str] = []
        self.path = "/metrics/x" if mounting else "/predict"
        app = Flask("model_app")
        app.secret_key = RANDOM_SECRET
        app.add_url_rule("/predict", "predict", self._view, methods=METHODS, provide_automatic_options=False)
        # Werkzeug matches handshakes with rules of their own.
        app.add_url_rule("/predict", "socket", self._view, methods=["GET"], websocket=True)
        app.add_url_rule("/write", "write", protect(scopes=["write"])(self._view), methods=METHODS)
        app.add_url_rule("/open", "open", public(lambda: "open"), methods=METHODS)
        app.add_url_rule("/login/<int:user>", "login", public(self._log_in), methods=["POST"])
        if mounting:
            mounts: Any = {"/metrics": self._mounted}
            app.wsgi_app = DispatcherMiddleware(app.wsgi_app, mounts)  # type: ignore[method-assign]
        if around is not None:
            app.wsgi_app = around(app.wsgi_app)  # type: ignore[method-assign]
        self.app = protected(app, **{"SESSION_LOGIN": LOGIN} | settings)

    def _view(self) -> str:
        self.calls.append(current_principal.id)
        return " ".join([current_principal.id, *sorted(current_principal.scopes)])

    def _mounted(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        principal = environ["flask_secure_ml.exchange"].principal
        self.calls.append(principal.id)
        return Response(" ".join([principal.id, *sorted(principal.scopes)]))(environ, start_response)

    def _log_in(self, user: int) -> str:
        session.clear()
        session["user_id"] = user
        return "in"

    def cookie(self, values: dict[str, Any], app: Flask | None = None) -> str:
        app = app or self.app
        serializer = SecureCookieSessionInterface().get_signing_serializer(app)
        assert serializer is not None
        return str(serializer.dumps(values))

    def send(self, method: str = "GET", path: str = "", *, cookie: str | None = None, **headers: str) -> TestResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        cookie = self.cookie({"user_id": 7}) if cookie is None else cookie
        client = self.app.test_client(use_cookies=False)
        return client.open(
            path or self.path, method=method, base_url=HTTPS, headers={"Cookie": f"session={cookie}"} | sent
        )


@pytest.fixture(params=["plain", "mounting"])
def serve(request: pytest.FixtureRequest, protected: MakeApp) -> Serve:
    """Make an app that is guarded in Flask's first hook, or one whose mounted app is guarded before it is called."""
    return lambda **settings: Served(protected, mounting=request.param == "mounting", **settings)


# --- which requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REQUESTS["accepted"].values(), ids=REQUESTS["accepted"])
def test_requests_of_the_same_origin(serve: Serve, case: dict[str, Any]) -> None:
    """The session counts."""
    served = serve()
    response = served.send(case["method"], **case["headers"])
    assert (response.status_code, served.calls) == (200, ["session:7"])


@pytest.mark.parametrize("case", REQUESTS["rejected"].values(), ids=REQUESTS["rejected"])
def test_requests_of_other_origins(serve: Serve, case: dict[str, Any], sink: MemorySink) -> None:
    """They are rejected with a code of their own, and the view does not run."""
    served = serve()
    response = served.send(case["method"], **case["headers"])
    assert (response.status_code, response.json["code"]) == (403, "origin_not_allowed")  # type: ignore[index]
    assert served.calls == []
    assert "cookie session: " in str(sink.records[-1]["reason"])


@pytest.mark.parametrize("case", REQUESTS["rejected"].values(), ids=REQUESTS["rejected"])
def test_a_header_credential_is_of_no_origin(serve: Serve, case: dict[str, Any]) -> None:
    """A script that knows one could have sent it from anywhere, so the session and its rules do not apply."""
    served = serve()
    response = served.send(case["method"], **(case["headers"] | caller("ada")))
    assert (response.status_code, served.calls) == (200, ["test:ada"])


def test_the_origin_that_a_trusted_proxy_reports(protected: MakeApp) -> None:
    """Behind a proxy, host and scheme of the app differ from those of the browser."""
    served = Served(protected, mounting=False, TRUSTED_PROXIES=["127.0.0.1/32"])
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "models.example.com"}
    client = served.app.test_client(use_cookies=False)

    def post(origin: str) -> int:
        headers = {"Cookie": f"session={served.cookie({'user_id': 7})}", "Origin": origin} | forwarded
        return client.post("/predict", base_url="http://10.0.0.1:8000", headers=headers).status_code

    assert post("https://models.example.com") == 200
    assert [post("http://10.0.0.1:8000"), post("https://10.0.0.1:8000"), post("http://models.example.com")] == [403] * 3
    assert served.calls == ["session:7"]


def test_clear_text(protected: MakeApp) -> None:
    """Where it is allowed, its origin is another one than that of TLS."""
    served = Served(protected, mounting=False, REQUIRE_TLS=False)
    headers = {"Cookie": f"session={served.cookie({'user_id': 7})}"}
    client = served.app.test_client(use_cookies=False)

    def status(origin: str, url_scheme: str = "http") -> int:
        sent = headers | {"Origin": origin, "Host": "localhost"}
        return client.get("/predict", url_scheme=url_scheme, headers=sent).status_code

    assert [status("http://localhost"), status("http://localhost:80")] == [200, 200]
    assert [status("https://localhost"), status("http://localhost", "https")] == [403, 403]
    # Some servers name the scheme of a WebSocket.
    assert [status("https://localhost", "wss"), status("http://localhost", "ws")] == [200, 200]


@pytest.mark.parametrize(
    "host", ["evil.test", "[::1", "localhost:x", "localhost:99999", "local host", "\xff", "a,localhost", "@"]
)
def test_hosts(serve: Serve, host: str) -> None:
    """A host of another origin, one that is none, and one that the app does not trust are rejected; none is a 500."""
    served = serve()
    for trusted in (None, ["localhost"]):
        served.app.config["TRUSTED_HOSTS"] = trusted
        headers = {"Cookie": f"session={served.cookie({'user_id': 7})}"} | OWN
        environ = create_environ(served.path, HTTPS, method="POST", headers=headers)
        # Not the test client, which fails for some of these itself.
        _, status, _ = run_wsgi_app(served.app, environ | {"HTTP_HOST": host}, buffered=True)
        assert status[:3] in {"400", "403"}
    assert served.calls == []


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 403)])
def test_a_method_that_middleware_changes(protected: MakeApp, method: str, status: int) -> None:
    """A link on another site can open a page, but not perform the action of a form."""

    def rewriting(wsgi_app: Any) -> Any:
        def call(environ: Any, start_response: Any) -> Any:
            environ["REQUEST_METHOD"] = environ["QUERY_STRING"].removeprefix("method=")
            return wsgi_app(environ, start_response)

        return call

    served = Served(protected, mounting=False, around=rewriting)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert served.send("GET", f"/predict?method={method}", **link).status_code == status
    assert len(served.calls) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("cors", "statuses"),
    [
        pytest.param({"origins": [APP], "credentials": True}, [200, 200, 403], id="with credentials"),
        pytest.param({"origins": [APP]}, [403, 403, 403], id="without"),
        pytest.param({"origins": ["*"]}, [403, 403, 403], id="every origin"),
    ],
)
def test_origins_of_cors(serve: Serve, cors: dict[str, Any], statuses: list[int]) -> None:
    """Only an origin that CORS allows with credentials may use the session."""
    served = serve(CORS=cors)
    sent = [served.send("GET", Origin=APP), served.send("POST", Origin=APP), served.send("POST", Origin=EVIL)]
    assert [response.status_code for response in sent] == statuses
    assert len(served.calls) == statuses.count(200)


def test_cors_of_a_policy(protected: MakeApp) -> None:
    """It replaces the setting."""
    settings = {"CORS": {"origins": [APP], "credentials": True}, "POLICIES": {"predict": {"cors": {"origins": []}}}}
    served = Served(protected, mounting=False, **settings)
    assert served.send("POST", Origin=APP).status_code == 403
    assert served.calls == []


def test_an_unknown_url(serve: Serve) -> None:
    """Another site cannot distinguish it from an existing one."""
    served = serve()
    responses = [served.send("POST", path, Origin=EVIL) for path in ("/nowhere", "/predict")]
    assert [response.status_code for response in responses] == [403, 403]
    assert served.send("GET", "/nowhere").status_code == 404


# --- whose session --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SESSIONS["accepted"].values(), ids=SESSIONS["accepted"])
def test_sessions(serve: Serve, case: dict[str, Any]) -> None:
    """Its user is the principal, with the scopes of the setting and of the session."""
    served = serve()
    response = served.send("POST", cookie=served.cookie(case["session"]), **OWN)
    assert response.text == " ".join([case["principal"], *case["scopes"]])


def test_a_uuid(serve: Serve) -> None:
    """Flask's own serializer keeps its type."""
    served = serve()
    assert served.send(cookie=served.cookie({"user_id": UUID(int=1)})).text.startswith(f"session:{UUID(int=1)} ")


@pytest.mark.parametrize("values", SESSIONS["rejected"].values(), ids=SESSIONS["rejected"])
def test_sessions_of_nobody(serve: Serve, values: dict[str, Any]) -> None:
    """They are a 401 like that of a request without a cookie; no type of a value is a 500."""
    served = serve()
    response = served.send("POST", cookie=served.cookie(values), **OWN)
    assert (response.status_code, response.json["code"]) == (401, "not_authenticated")  # type: ignore[index]
    assert served.calls == []


def test_cookies_that_are_not_authentic(serve: Serve) -> None:
    """Forged, tampered or truncated cookies are not a session, and never a 500."""
    served = serve()
    other = Flask("other")
    other.secret_key = "another secret of this test"
    payload, time, signature = served.cookie({"user_id": 7}).split(".")
    forged = served.cookie({"user_id": 1}, other)
    cookies = [
        forged,
        f"{forged.split('.')[0]}.{time}.{signature}",
        f"{payload}.{time}.",
        f"{payload}.{time}",
        payload,
        f".{payload}.{time}.{signature}",
        f"{payload}.AAAAAA.{signature}",
        "",
        "\u00ff",
        "." * 1000,
        '{"user_id": 7}',
    ]
    assert {served.send("POST", cookie=cookie, **OWN).status_code for cookie in cookies} == {401}
    assert served.calls == []


def test_an_expired_session(serve: Serve) -> None:
    """Its signature has the time."""
    served = serve()
    cookie = served.cookie({"user_id": 7})
    assert served.send(cookie=cookie).status_code == 200
    served.app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(seconds=-1)
    assert served.send(cookie=cookie).status_code == 401
    assert len(served.calls) == 1


def test_a_guess_is_not_counted(serve: Serve) -> None:
    """An invalid cookie does not count as a guess: browsers repeat an expired one with every request."""
    served = serve(FAILED_AUTH_LIMITS=["1/minute"])
    assert {served.send(cookie=served.cookie({"user_id": True})).status_code for _ in range(5)} == {401}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(caller("bad"), 401, id="invalid"),
        pytest.param({"Authorization": "Bearer x"}, 401, id="of a scheme that is not accepted"),
        pytest.param({"Authorization": "Basic YTpi"}, 401, id="that a browser keeps"),
        pytest.param({"X-API-Key": "x"}, 401, id="an API key where none are"),
        pytest.param(caller("ada"), 200, id="valid"),
    ],
)
def test_a_header_credential_is_final(serve: Serve, headers: dict[str, str], status: int) -> None:
    """With it, the session is ignored: a valid one takes precedence, and an invalid one is rejected."""
    served = serve()
    assert served.send("POST", **(OWN | headers)).status_code == status
    assert served.calls == (["test:ada"] if status == 200 else [])


# --- what follows ---------------------------------------------------------------------------------------------------


def test_off_by_default(serve: Serve) -> None:
    """Without the setting, a session is not a credential, and no cookie headers are sent."""
    served = serve(SESSION_LOGIN=None)
    response = served.send("POST", **OWN)
    assert (response.status_code, served.calls) == (401, [])
    assert "Cookie" not in response.headers.get("Vary", "")


def test_logging_in(protected: MakeApp) -> None:
    """A public view sets the user; the next request has it."""
    served = Served(protected, mounting=False)
    client = served.app.test_client()
    assert client.get("/predict", base_url=HTTPS).status_code == 401
    cookie = client.post("/login/3", base_url=HTTPS).headers["Set-Cookie"]
    assert all(each in cookie for each in ("; Secure", "; HttpOnly", "; SameSite=Lax"))
    assert client.post("/predict", base_url=HTTPS, headers=OWN).text == "session:3 read"


def test_scopes_are_enforced(protected: MakeApp) -> None:
    """A session is authorized as every other credential."""
    served = Served(protected, mounting=False)
    assert served.send("POST", "/write", **OWN).status_code == 403
    cookie = served.cookie({"user_id": 7, "scopes": ["write"]})
    assert served.send("POST", "/write", cookie=cookie, **OWN).status_code == 200


@pytest.mark.parametrize("options", [{"max_auth_age": 60}, {"acr_values": ["mfa"]}])
def test_step_up(protected: MakeApp, options: dict[str, Any]) -> None:
    """How and when the user authenticated is not known, so such routes reject sessions."""
    served = Served(protected, mounting=False, POLICIES={"predict": options})
    response = served.send("POST", **OWN)
    assert (response.status_code, served.calls) == (401, [])
    assert "insufficient_user_authentication" in response.headers["WWW-Authenticate"]


def test_revocation(serve: Serve) -> None:
    """A user is revoked by name. When a session began is not known, so an instant alone revokes none."""
    served = serve()
    revocations = state_of(served.app).revocations
    revocations.revoke_before(1.0)
    assert served.send().status_code == 200
    record = revocations.revoke_before(1.0, principal_id="session:7")
    assert served.send().status_code == 401
    revocations.undo(record.key)
    revocations.revoke_principal("session:7")
    assert (served.send().status_code, len(served.calls)) == (401, 1)


def test_the_plan(protected: MakeApp) -> None:
    """All requests of a user count together."""
    plans = {"default": {"requests": []}, "people": {"requests": ["1/minute"]}}
    served = Served(protected, mounting=False, PLANS=plans, SESSION_LOGIN=LOGIN | {"plan": "people"})
    assert [served.send().status_code for _ in range(2)] == [200, 429]
    assert served.send(cookie=served.cookie({"user_id": 8})).status_code == 200


# Flask itself adds a name where the session was read, and no hook of the app runs for what is mounted.
VARY = [(None, {"Cookie"}), ("Accept", {"Accept, Cookie", "Cookie"}), ("*", {"*", "*, Cookie", "Cookie"})]


@pytest.mark.parametrize(("vary", "expected"), VARY)
def test_vary(serve: Serve, vary: str | None, expected: set[str]) -> None:
    """A cache never serves a user the response for another user or for anonymous callers."""
    served = serve()
    served.app.after_request(lambda response: response if vary is None else _with_vary(response, vary))
    for cookie in ("", None):
        assert served.send(cookie=cookie).headers["Vary"] in expected
    assert "Vary" not in served.send(path="/open").headers or vary is not None


def _with_vary(response: Response, vary: str) -> Response:
    response.headers["Vary"] = vary
    return response


class Stored(dict[str, Any], SessionMixin):
    """A session that is kept elsewhere."""


class Damaged(Stored):
    """A session whose store fails when it is read."""

    def get(self, key: str, default: Any = None) -> Any:
        raise LookupError("the store of sessions is damaged")


class Stores(SessionInterface):
    """A store with the same session for every cookie."""

    def __init__(self, opened: Stored) -> None:
        self.opened = opened

    def open_session(self, app: Flask, request: Request) -> Stored:
        return self.opened

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("opened", "status", "calls"),
    [(Stored(user_id="ada"), 200, ["session:ada"]), (Stored(), 401, []), (Damaged(user_id="ada"), 400, [])],
)
def test_a_session_of_another_interface(protected: MakeApp, opened: Stored, status: int, calls: list[str]) -> None:
    """The session is opened by the app's own interface; a failure to read it is not a 500."""
    served = Served(protected, mounting=False)
    served.app.session_interface = Stores(opened)
    assert served.send().status_code == status
    assert served.calls == calls


def test_the_description_of_the_api(protected: MakeApp) -> None:
    """The cookie is one of the alternatives, and the code one of the errors, except on public routes."""
    served = Served(protected, mounting=False, OPENAPI="public")
    document: Any = served.send(path="/openapi.json").json
    scheme = document["components"]["securitySchemes"]["session"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "cookie", "session")
    assert {"session": ["write"]} in document["paths"]["/write"]["post"]["security"]
    forbidden = [document["paths"][path]["post"]["responses"]["403"]["$ref"] for path in ("/write", "/open")]
    assert ["origin_not_allowed" in each for each in forbidden] == [True, False]


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (True, ': must be an object such as {"user": "user_id", "scopes": ["predict"]}, not True'),
        ({}, ".user: is missing; it must be a non-empty string"),
        ({"user": ""}, ".user: must be a non-empty string, not ''"),
        ({"user": "u", "scopes": "read"}, '.scopes: must be a list, not one string; write ["read"]'),
        ({"user": "u", "scopes_from": ["read"]}, ".scopes_from: must be a non-empty string, not a list"),
        ({"user": "u", "plan": "gold"}, ".plan: 'gold' is not in SECURE_ML_PLANS, which has default"),
        ({"user": "u", "scope_from": "s"}, ".scope_from: is not known; did you mean scopes_from?"),
    ],
)
def test_mistakes(given: Any, problem: str) -> None:
    """Each is an error at start-up."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_SESSION_LOGIN": given})
    assert caught.value.problems == (f"SECURE_ML_SESSION_LOGIN{problem}",)


def test_no_secret_key(protected: MakeApp) -> None:
    """Without one there are no sessions; an interface of the app's own may need none."""
    with pytest.raises(ConfigError, match="SECURE_ML_SESSION_LOGIN: requires SECRET_KEY"):
        protected(SESSION_LOGIN=LOGIN)

    app = Flask("model_app")
    app.session_interface = SessionInterface()
    protected(app, SESSION_LOGIN=LOGIN)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"SECRET_KEY": "fifteen bytes.."}, "SECRET_KEY or one of its fallbacks is shorter than 16 bytes"),
        ({"SECRET_KEY": b"dev"}, "SECRET_KEY or one of its fallbacks is shorter than 16 bytes"),
        ({"SECRET_KEY_FALLBACKS": ["old"]}, "SECRET_KEY or one of its fallbacks is shorter than 16 bytes"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, "SESSION_COOKIE_SAMESITE is None"),
        ({"SESSION_COOKIE_HTTPONLY": False}, "SESSION_COOKIE_HTTPONLY is off"),
        ({"SESSION_COOKIE_DOMAIN": "example.com"}, "SESSION_COOKIE_DOMAIN is set"),
    ],
)
def test_findings(protected: MakeApp, changes: dict[str, Any], finding: str) -> None:
    """The checks warn of settings that weaken the session, if it is a credential."""

    def found(**settings: Any) -> list[str]:
        app = Flask("model_app")
        app.secret_key = RANDOM_SECRET
        app.config.update(changes)
        protected(app, **settings)
        return [each for each in found_in(app) if each.startswith(finding)]

    assert (len(found(SESSION_LOGIN=LOGIN)), found()) == (1, [])


def test_a_sound_session(protected: MakeApp) -> None:
    """There are no warnings, and an authentication method is configured."""
    app = Served(protected, mounting=False).app
    assert not [each for each in found_in(app) if each.startswith(("SECRET_KEY", "SESSION"))]
    assert not [each for each in found_in(app) if each.startswith("no API keys")]
