"""All options in one app: who is served, as which principal, and what a rejection reveals."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Blueprint, Flask, Request
from flask.sessions import SecureCookieSessionInterface
from hypothesis import given, reject
from hypothesis import strategies as st
from joserfc.jwk import Key
from marshmallow import Schema
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import Rule
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from certificates import authority, issue
from flask_secure_ml import Exchange, Principal, SecureML, protect, public
from flask_secure_ml.authentication.api_keys.key import checksum, id_part, new_key
from flask_secure_ml.authentication.tokens.connection import IssuerConnection
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.exchange import current_exchange
from flask_secure_ml.fetch import Response as FetchedResponse
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock, make_api_key, make_key_set, make_signing_key, make_token
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

CASES = json.loads((Path(__file__).parent / "corpus" / "all_options" / "requests.json").read_text(encoding="utf-8"))
A, B, AUDIENCE = "https://a.example", "https://b.example/realms/acme", "models"
APP, EVIL = "https://app.example.com", "https://evil.test"
KEY_A, KEY_B = make_signing_key("RS256", "one"), make_signing_key("RS256", "one")
PROXY = "192.0.2.250"


class Passwords:
    """``X-Password: name:password``, where every password is ``right``."""

    name = "password"
    challenge = "Test"
    guessable = True

    def find(self, request: Request, exchange: Exchange) -> str | None:
        return request.headers.get("X-Password")

    def identity(self, credential: str) -> str:
        return credential.partition(":")[0]

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        if not credential.endswith(":right"):
            raise WrongPasswordError
        return Principal("password", credential.partition(":")[0])


class WrongPasswordError(NotAuthenticated):
    """An error of the app's own, which takes no argument."""

    def __init__(self) -> None:
        super().__init__("wrong password", members={"hint": "of the app"})


class Site:
    """The app with every option, its credentials, and a record of served requests."""

    def __init__(self, protected: MakeApp, clock: FakeClock, folder: Path, *, mounting: bool, **settings: Any) -> None:
        self.clock = clock
        self.served: list[tuple[str, str]] = []
        root = authority(now=clock.now())
        (folder / "ca.pem").write_bytes(root.pem)
        self.app = Flask("everything")
        self.app.secret_key = RANDOM_SECRET
        self._add_routes()
        if mounting:
            mounts: Any = {"/metrics": self._mounted}
            self.app.wsgi_app = DispatcherMiddleware(self.app.wsgi_app, mounts)  # type: ignore[method-assign]
        given = self._settings(folder) | settings
        protected(self.app, {"authenticators": [Passwords()], "clock": clock}, **given)
        SecureML.check(self.app)
        self.values = self._credentials(issue("CN=alice", root, now=clock.now()).pem.decode())

    def _add_routes(self) -> None:
        add = self.app.add_url_rule
        add("/plain", "plain", self._view, methods=["GET", "POST"])
        add("/bound", "bound", self._view)
        add("/open", "open", public(self._view))
        add("/docs/<page>", "docs", self._view)
        add("/docs/own", "own", protect(self._view))
        add("/docsecret", "docsecret", self._view)
        api, inner = Blueprint("api", "api", url_prefix="/api"), Blueprint("v1", "v1", url_prefix="/v1")
        inner.add_url_rule("/models", "models", self._view)
        inner.add_url_rule("/folder/", "folder", self._view)
        inner.add_url_rule("/open/", "open", public(self._view))
        api.register_blueprint(inner)
        self.app.register_blueprint(api)

    def _settings(self, folder: Path) -> dict[str, Any]:
        issuers: list[dict[str, Any]] = [
            {"issuer": A, "algorithms": ["RS256"], "plan_claim": "tier", "plans": {"batch": "gold"}},
            {"issuer": B, "provider": "keycloak", "plans": {"nightly": "gold"}},
        ]
        for each, key in zip(issuers, (KEY_A, KEY_B), strict=True):
            each |= {"audience": AUDIENCE, "jwks": json.loads(make_key_set(key))}
        return {
            "API_KEYS": str(folder / "keys.json"),
            "API_KEY_PEPPER": "env:PEPPER",
            "API_KEY_SCHEMES": ["x-api-key", "apikey", "bearer", "basic"],
            "TOKEN_ISSUERS": issuers,
            "MTLS_CLIENTS": [{"client": "alice", "subject_dn": "CN=alice"}],
            "MTLS_CA_FILE": str(folder / "ca.pem"),
            "CLIENT_CERTIFICATE_HEADER": "X-SSL-Client-Cert",
            "TRUSTED_PROXIES": [f"{PROXY}/32"],
            "CORS": {"origins": [APP]},
            "SESSION_LOGIN": {"user": "user_id"},
            "PROBES": {},
            "ERROR_BODY": "ours",
            "PLANS": {"default": {"requests": ["1000/minute"]}, "gold": {"requests": ["9000/minute"]}},
            "FAILED_AUTH_LIMITS": ["5/hour"],
            "FAILED_KEY_LIMITS": ["10/hour"],
            "POLICIES": {"GET /docs/*": {"public": True}, "blueprint:api": {"limits": ["900/minute"]}},
        }

    def _view(self, page: str = "") -> str:
        principal = current_exchange.principal
        self.served.append((principal.id, principal.plan) if principal else ("", "default"))
        return "served"

    def _mounted(self, environ: Any, start_response: Any) -> Any:
        self.served.append(("mounted", "default"))
        return Response("mounted")(environ, start_response)

    def _token(self, key: Key, issuer: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
        audience, now = claims.pop("aud", AUDIENCE), claims.pop("now", self.clock.now())
        return make_token(key, issuer=issuer, audience=audience, now=now, header=header, claims=claims)

    def _credentials(self, certificate: str) -> dict[str, str]:
        keys = {
            name: make_api_key(self.app, client=name, endpoints=["bound"] if name == "bound" else None)
            for name in ("key", "bound", "other")
        }
        wrong, crossed = keys["key"][:17] + "0" * 43, keys["key"][:17] + keys["other"][17:60]
        jwt, of_b = {"typ": "JWT"}, {"azp": "web", "client_id": ...}
        cookies = {"cookie": {"user_id": "alice"}, "empty_cookie": {"theme": "dark"}}
        other = Flask("other")
        other.secret_key = RANDOM_SECRET[::-1]
        return (
            keys
            | {name: self.cookie(values) for name, values in cookies.items()}
            | {
                "foreign_cookie": self.cookie({"user_id": "alice"}, other),
                "wrong": wrong + checksum(wrong),
                "crossed": crossed + checksum(crossed),
                "certificate": quote(certificate),
                "token": self._token(KEY_A, A),
                "token_gold": self._token(KEY_A, A, tier=["free", "batch"]),
                "token_b": self._token(KEY_B, B, jwt, typ="Bearer", **of_b),
                "token_b_tier": self._token(KEY_B, B, jwt, typ="Bearer", tier="batch", **of_b | {"azp": "batch"}),
                "token_a_by_b": self._token(KEY_B, A),
                "token_unknown": self._token(KEY_A, f"{A}/"),
                "token_a_jwt": self._token(KEY_A, A, jwt),
                "id_token_b": self._token(KEY_B, B, jwt, typ="ID", **of_b),
                "refresh_b": self._token(KEY_B, B, jwt, typ="Refresh", **of_b),
                "token_audience": self._token(KEY_A, A, aud="other"),
                "token_jwk": self._token(KEY_B, A, {"jwk": KEY_B.as_dict(private=False)}),
                "token_none": re.sub(r"[^.]*$", "", self._token(KEY_A, A, {"alg": "none"})),
                "token_expired": self._token(KEY_A, A, now=self.clock.now() - 9000),
            }
        )

    def cookie(self, values: dict[str, Any], app: Flask | None = None) -> str:
        serializer = SecureCookieSessionInterface().get_signing_serializer(app or self.app)
        assert serializer is not None
        return str(serializer.dumps(values))

    def filled(self, text: str) -> str:
        text = re.sub(r"\{(\w+)\}", lambda match: self.values.get(match[1], match[0]), text)
        return re.sub(r"\{b64:([^}]*)\}", lambda match: base64.b64encode(match[1].encode()).decode(), text)

    def send(self, case: dict[str, Any], base_url: str = HTTPS) -> TestResponse:
        headers = {name: self.filled(value) for name, value in case.get("headers", {}).items()}
        return self.app.test_client(use_cookies=False).open(
            method=case.get("method", "GET"),
            base_url=base_url,
            headers=headers,
            query_string=self.filled(case.get("query", "")),
            environ_overrides={
                "REMOTE_ADDR": case.get("client", "203.0.113.7"),
                "PATH_INFO": case.get("path", "/plain"),
            },
        )


MakeSite = Callable[..., Site]


@pytest.fixture(params=["plain", "mounting"])
def make(
    request: pytest.FixtureRequest,
    protected: MakeApp,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> MakeSite:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    return lambda **settings: Site(protected, clock, tmp_path, mounting=request.param == "mounting", **settings)


def test_nobody_is_served_without_a_credential(make: MakeSite) -> None:
    """For any method, spelling of the path and position of the credential."""
    site = make(FAILED_AUTH_LIMITS=[])
    for case in CASES["anonymous"]:
        response = site.send(case)
        assert (case["id"], response.status_code in {400, 401}, site.served) == (case["id"], True, [])
        assert response.json is not None


def test_nobody_is_served_as_another(make: MakeSite) -> None:
    """A credential of another kind, issuer or origin is never one, and a failed one falls back to no other."""
    site = make(FAILED_AUTH_LIMITS=[])
    for case in CASES["another"]:
        found = site.send(case).status_code
        assert (case["id"], found, site.served) == (case["id"], case.get("status", 401), [])


def test_the_honest_are_served(make: MakeSite) -> None:
    """Each as its principal, with the plan of its issuer; also from a blocked network."""
    site = make()
    for _ in range(7):
        for client in ("203.0.113.7", "203.0.113.5"):
            site.send({"client": client, "headers": {"X-API-Key": new_key()}})
    assert site.send({"headers": {"X-API-Key": new_key()}}).status_code == 429
    for case in CASES["honest"]:
        site.served.clear()
        response = site.send(case, "http://localhost" if case.get("client") == PROXY else HTTPS)
        named = case["principal"]
        principal = f"api_key:{id_part(site.values[named])}" if named in site.values else named
        assert (case["id"], response.status_code) == (case["id"], 200)
        assert site.served == [(principal, case.get("plan", "default"))]


def test_principals_of_one_name_are_apart(make: MakeSite) -> None:
    """The name "alice" of two issuers, of a session and of a certificate are four callers with four limits."""
    site = make(PLANS={"default": {"requests": ["1/minute"]}, "gold": {"requests": ["1/minute"]}})
    alices = [each for each in CASES["honest"] if each["principal"].endswith("alice") and "path" not in each]
    once = {each["principal"]: each for each in alices}
    assert len(once) == 4
    for _ in range(2):
        statuses = [
            site.send(each, "http://localhost" if "client" in each else HTTPS).status_code for each in once.values()
        ]
    assert statuses == [429] * 4
    assert len({principal for principal, _ in site.served}) == 4


# --- what rejections show -------------------------------------------------------------------------------------------


class Rows(Schema):
    instances = Tensor(shape=(None, 2))


OPTIONS: dict[str, dict[str, Any]] = {
    "headers": {"headers": "page"},
    "header values": {"headers": {"values": {"Cross-Origin-Resource-Policy": "cross-origin"}}},
    "limits": {"limits": ["1/day"]},
    "body and cost": {"body": Rows, "cost": "instances"},
    "response": {"response": Rows},
    "scores": {"scores": {"round": 2}},
    "caps": {"caps": {"max_body_bytes": 10}},
    "access": {"scopes": ["a"], "roles": ["b"], "claims": {"c": ["d"]}, "acr_values": ["e"], "max_auth_age": 60},
}


@pytest.mark.parametrize("base_url", [HTTPS, "http://localhost"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_rejection_lists_no_route(make: MakeSite, options: dict[str, Any], base_url: str) -> None:
    """An anonymous caller gets the same response for every route, and for unknown ones (threat model)."""
    site = make(FAILED_AUTH_LIMITS=[])

    @site.app.route("/special", methods=["GET", "POST"])
    @protect(**options)
    def special(payload: Any = None) -> str:
        return "special"

    wrong, asked = {"X-API-Key": new_key()}, {"Access-Control-Request-Method": "POST"}
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS"):
        for headers in ({}, wrong, {"Origin": APP}, {"Origin": APP} | asked, {"Origin": EVIL} | asked):
            known, unknown = (
                _visible(site.send({"method": method, "path": path, "headers": headers}, base_url))
                for path in ("/special", "/nothing")
            )
            assert known == unknown


def _visible(response: TestResponse) -> tuple[int, str, list[tuple[str, str]]]:
    # Each response has an id of its own.
    body = re.sub(r'"request_id": ?"[0-9a-f]+"', "", response.text)
    return response.status_code, body, [each for each in response.headers if each[0] != "X-Request-ID"]


@pytest.mark.parametrize("plan", [{}, {"scores": {"round": 2}}], ids=["whole scores", "rounded scores"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_preflight_is_answered(make: MakeSite, options: dict[str, Any], plan: dict[str, Any]) -> None:
    """For an allowed origin, whatever the response rules: without it, a browser does not send the request."""
    site = make(PLANS={"default": plan, "gold": {}})
    site.app.add_url_rule("/special", "special", protect(**options)(lambda payload=None: "special"), methods=["POST"])
    for path in ("/special", "/plain", "/nothing"):
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        response = site.send({"method": "OPTIONS", "path": path, "headers": asked})
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, APP)


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "https://app.example.com.evil.test", "https://app.example.com@evil.test", f"{APP}, {EVIL}"]
)
def test_nothing_is_read_across_origins(make: MakeSite, origin: str) -> None:
    """Every response, preflights of unknown URLs and rejections too, varies by origin and allows no other."""
    site = make(FAILED_AUTH_LIMITS=[])
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    for path in ("/plain", "/open", "/docs/page", "/nothing", "/livez", "/api/v1/open", "/metrics"):
        for method, headers in (("GET", {}), ("GET", {"X-API-Key": "{key}"}), ("OPTIONS", asked)):
            response = site.send({"method": method, "path": path, "headers": {"Origin": origin, **headers}})
            allowing = [name for name, _ in response.headers if name.lower().startswith("access-control-allow")]
            assert (path, method, allowing) == (path, method, [])
            assert "Origin" in response.headers["Vary"]
            is_public = path in {"/open", "/docs/page", "/livez", "/api/v1/open"}
            assert method == "OPTIONS" or ("Cookie" in response.headers["Vary"]) != is_public


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["max-age=60"], "private, max-age=60"),
        (["public, max-age=60"], "private, max-age=60"),
        (["PUBLIC", "S-MaxAge = 9, max-age=1"], "private, max-age=1"),
        (['private="Set-Cookie", max-age=1'], "private, max-age=1"),
        (["no-cache"], "private, no-cache"),
        (["private, max-age=60"], "private, max-age=60"),
        (["no-store"], "no-store"),
        ([""], "private"),
        (None, "no-store"),
    ],
)
def test_no_shared_cache_stores_what_needs_a_credential(make: MakeSite, given: list[str] | None, kept: str) -> None:
    """It would serve it to anyone: only Authorization keeps it from that, not a key, a cookie or a certificate."""
    site = make()

    def view() -> Response:
        response = Response("cached")
        for value in given or ():
            response.headers.add("Cache-Control", value)
        return response

    site.app.add_url_rule("/cached", "cached", view)
    site.app.add_url_rule("/cached/open", "cached_open", public(view))
    response = site.send({"path": "/cached", "headers": {"X-API-Key": "{key}"}})
    assert (response.status_code, response.headers.getlist("Cache-Control")) == (200, [kept])
    assert site.send({"path": "/cached/open"}).headers.getlist("Cache-Control") == (given or ["no-store"])


def test_no_shared_cache_stores_what_the_settings_say(make: MakeSite) -> None:
    """The header of a setting is for every route, and for public ones as it is."""
    site = make(HEADERS={"values": {"Cache-Control": "max-age=60"}}, POLICIES={"GET /docs/*": {"public": True}})
    found = [site.send({"path": path, "headers": {"X-API-Key": "{key}"}}).headers for path in ("/plain", "/docs/page")]
    assert [each.getlist("Cache-Control") for each in found] == [["private, max-age=60"], ["max-age=60"]]


def test_no_shared_cache_stores_what_is_mounted(protected: MakeApp) -> None:
    """Unless the policy of its path is public."""
    app = Flask("mounting")
    mounts: Any = {
        path: Response(path, headers={"Cache-Control": "max-age=9, public"}) for path in ("/closed", "/shared")
    }
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, mounts)  # type: ignore[method-assign]
    client = protected(app, POLICIES={"/shared": {"public": True}}).test_client()
    found = [client.get(path, base_url=HTTPS, headers=caller()).headers for path in ("/closed", "/shared")]
    assert [each.getlist("Cache-Control") for each in found] == [["private, max-age=9"], ["max-age=9, public"]]


def test_no_shared_cache_stores_a_public_route_below_a_closed_path(protected: MakeApp) -> None:
    """Where something is mounted, the policy of the path asks for a credential before the route is reached."""
    app = Flask("mounting")
    app.secret_key = RANDOM_SECRET
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": Response("metrics")})  # type: ignore[method-assign]
    app.add_url_rule("/api/open", "open", public(lambda: ("open", {"Cache-Control": "public, max-age=9"})))
    client = protected(app, POLICIES={"/api/*": {}}, SESSION_LOGIN={"user": "user_id"}).test_client()
    response = client.get("/api/open", base_url=HTTPS, headers=caller())
    assert (response.text, response.headers["Cache-Control"]) == ("open", "private, max-age=9")
    assert response.headers["Vary"] == "Cookie"


@pytest.mark.parametrize("handled", [401, 404, 405, 429, HTTPException, Exception])
@pytest.mark.parametrize("body", ["app", "ours"])
def test_a_handler_that_responds_with_200(make: MakeSite, handled: Any, body: str) -> None:
    """A rejection stays one."""
    site = make(ERROR_BODY=body)
    site.app.register_error_handler(handled, lambda _: ({"ok": True}, 200, {"Cache-Control": "public, max-age=600"}))
    statuses = [site.send({"headers": {"X-API-Key": new_key()}}) for _ in range(7)]
    assert [each.status_code for each in statuses] == [401] * 5 + [429] * 2
    assert {each.headers["X-Error-Code"] for each in statuses} == {"not_authenticated", "rate_limited"}
    assert site.served == []


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_no_valid_credential_lifts_a_block(make: MakeSite) -> None:
    """Neither one of another caller nor one of another kind; each guess counts, whatever it claims."""
    site = make()
    guesses = [
        {"X-API-Key": new_key()},
        {"Authorization": "Bearer {token_a_by_b}"},
        {"Authorization": "Basic {b64:x:{crossed}}"},
        {"X-Password": "ada:wrong"},
        {"Authorization": "Bearer {wrong}"},
    ]
    valid = ({"X-API-Key": "{key}"}, {"Authorization": "Bearer {token_b}"}, {"X-Password": "eve:right"})
    for guess in guesses:
        assert site.send({"headers": guess}).status_code == 401
        assert [site.send({"headers": each}).status_code for each in valid] == [200] * 3
    for guess in guesses:
        assert site.send({"headers": guess}).status_code == 429
        assert [site.send({"headers": each}).status_code for each in valid] == [200] * 3
    # Eve has succeeded from here, so she may; who never has may not be tried, rightly or not.
    assert site.send({"headers": {"X-Password": "ada:right"}}).status_code == 429


def test_guesses_spread_over_networks(make: MakeSite) -> None:
    """A subscriber's IPv6 addresses are one network; and an identity is blocked, from wherever it is guessed at."""
    site = make()
    of_one = [site.send({"client": f"2001:db8::{n:x}", "headers": {"X-Password": f"u{n}:x"}}) for n in range(1, 8)]
    assert [each.status_code for each in of_one] == [401] * 5 + [429] * 2
    spread = [site.send({"client": f"2001:db8:{n:x}::1", "headers": {"X-Password": "bob:x"}}) for n in range(1, 14)]
    assert [each.status_code for each in spread] == [401] * 10 + [429] * 3
    assert site.send({"client": "2001:db8:ffff::1", "headers": {"X-Password": "bob:right"}}).status_code == 429


def test_an_error_of_the_apps_own_class(make: MakeSite) -> None:
    """It is counted and rejected like every other, with the same body."""
    own, usual = (_visible(make().send({"headers": each})) for each in ({"X-Password": "a:b"}, {"X-API-Key": "x"}))
    assert (own[0], own[1]) == (usual[0], usual[1])


def test_floods_cause_few_calls(make: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floods of invented keys of an issuer and of opaque tokens, from many networks, do not affect other callers."""
    monkeypatch.setenv("CLIENT", RANDOM_SECRET)
    calls: list[str] = []

    def send(_connection: object, uri: str, *, body: bytes | None = None, **_: Any) -> FetchedResponse:
        calls.append(uri)
        if body is None:
            return FetchedResponse(200, make_key_set(KEY_A).encode(), "application/json")
        claims = {"active": b"honest" in body, "sub": "alice", "client_id": "c", "aud": AUDIENCE}
        return FetchedResponse(200, json.dumps(claims).encode(), "application/json")

    monkeypatch.setattr(IssuerConnection, "send", send)
    opaque = {"issuer": "https://c.example", "audience": AUDIENCE, "introspection_uri": "https://c.example/introspect"}
    signed = {"issuer": A, "audience": AUDIENCE, "algorithms": ["RS256"], "jwks_uri": "https://a.example/keys"}
    site = make(TOKEN_ISSUERS=[signed, opaque | {"client_id": "api", "client_secret": "env:CLIENT"}])
    honest = ({"Authorization": "Bearer {token}"}, {"Authorization": "Bearer honest-token"})
    assert [site.send({"headers": each}).status_code for each in honest] == [200, 200]
    calls.clear()
    site.clock.advance(2)
    _, payload, signature = site.values["token"].split(".")
    for number in range(400):
        client = f"198.51.100.{number % 20}"
        header = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"k{number}"}).encode())
        invented = header.rstrip(b"=").decode()
        for guess in (f"{invented}.{payload}.{signature}", f"invented-{number}", f"sml_{number}"):
            site.send({"client": client, "headers": {"Authorization": f"Bearer {guess}"}})
    # Each of 20 networks had six credentials before its block, and one call in the second of its block.
    assert calls.count("https://a.example/keys") == 1
    assert 0 < calls.count("https://c.example/introspect") <= 20 * 3
    for client in ("203.0.113.7", "198.51.100.1"):
        assert [site.send({"client": client, "headers": each}).status_code for each in honest] == [200, 200]


# --- a request that is guarded under two policies ------------------------------------------------------------------


def test_clear_text_under_the_second_policy(make: MakeSite) -> None:
    """A path that is open in clear text opens no route below it that is not (RFC 9700 section 2.6)."""
    site = make(POLICIES={"/docs/*": {"public": True, "tls": "optional"}})
    assert site.send({"path": "/docs/page"}, "http://localhost").status_code == 200
    site.served.clear()
    key = {"path": "/docs/own", "headers": {"X-API-Key": "{key}"}}
    assert site.send(key, "http://localhost").status_code == 403
    assert site.served == []
    assert site.send(key).status_code == 200


def test_clear_text_and_another_path_beneath(protected: MakeApp) -> None:
    """Middleware that makes another request of an open one does not bring it past TLS."""
    app = Flask("rewriting")
    inner = app.wsgi_app

    def rewriting(environ: Any, start_response: Any) -> Any:
        return inner(environ | {"PATH_INFO": "/plain"}, start_response)

    app.wsgi_app = rewriting  # type: ignore[method-assign]
    app.add_url_rule("/open", "open", public(tls="optional")(lambda: "open"))
    app.add_url_rule("/plain", "plain", lambda: "plain")
    client = protected(app).test_client()
    statuses = [
        client.get("/open", base_url=base, headers=headers).status_code
        for base in ("http://localhost", HTTPS)
        for headers in ({}, caller())
    ]
    assert statuses == [403, 403, 401, 200]


def test_invented_methods_are_not_cached(protected: MakeApp) -> None:
    """A rule without methods takes each that a client invents; memory does not grow with them."""
    app = Flask("any_method")
    app.url_map.add(Rule("/any", endpoint="any"))
    app.view_functions["any"] = lambda: "any"
    client = protected(app).test_client()
    cached = state_of(app).policies._found
    known = set(cached)
    for number in range(20):
        response = client.open("/any", method=f"M{number}", base_url=HTTPS, headers=caller())
        assert response.status_code == 200
    assert not {key for key in set(cached) - known if key[1] == "any"}


# --- anything -----------------------------------------------------------------------------------------------------


LATIN_1 = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
NAMES = (
    *("Authorization", "X-API-Key", "DPoP", "X-Password", "Origin", "Cookie", "Sec-Fetch-Site", "Host", "Accept"),
    *("Access-Control-Request-Method", "X-Forwarded-For", "X-Forwarded-Proto", "X-SSL-Client-Cert", "Upgrade", "Range"),
)
PARTS = (
    "Bearer ",
    "Basic ",
    "ApiKey ",
    "session=",
    "null",
    APP,
    "https",
    ",",
    "::1",
    "websocket",
    "cross-site",
    "sml_",
)
VALUES = st.lists(st.sampled_from(PARTS) | LATIN_1, max_size=3).map("".join)
PATHS = ("/plain", "/open", "/docs/page", "/docs/own", "/api/v1/folder", "/livez", "/readyz", "/metrics", "//", "/..")


@pytest.fixture
def site(make: MakeSite) -> Site:
    return make(FAILED_AUTH_LIMITS=[])


@given(data=st.data())
def test_anything(site: Site, data: st.DataObject) -> None:
    """Any input never causes a 500, serves no unknown caller, and allows no other origin."""
    site.served.clear()
    case = {
        "method": data.draw(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "x"])),
        "path": data.draw(st.sampled_from(PATHS) | LATIN_1.map("/".__add__)),
        "client": data.draw(st.sampled_from([PROXY, "203.0.113.7", "", "fe80::1%eth0", "garbage"])),
        "headers": {name: data.draw(VALUES) for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=4))},
    }
    try:
        response = site.send(case)
    except ValueError as error:
        if "Port could not be cast" not in str(error):
            raise
        # The client of older releases of Werkzeug cannot send such a host.
        reject()
    assert response.status_code < 500
    assert {principal for principal, _ in site.served} <= {""}
    assert response.headers.get("Access-Control-Allow-Origin") in {None, APP}
