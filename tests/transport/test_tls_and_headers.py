"""Clear text is rejected; every response carries the header policy."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, request, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_secure_ml import public
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

POLICY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("debug", [False, True], ids=["production", "debug"])
def test_clear_text_is_rejected(app: Flask, method: str, debug: bool) -> None:
    """T6: 403 without a redirect or HSTS, also for a public route, a forged header and in debug mode."""
    app.debug = debug
    app.add_url_rule("/open", view_func=public(lambda: "ok"), methods=["GET", "POST"])
    forged = {"X-Forwarded-Proto": "https", "Forwarded": "proto=https", "X-Forwarded-Ssl": "on"}
    response = app.test_client().open("/open", method=method, headers=caller() | forged)
    assert (response.status_code, response.json["code"]) == (403, "tls_required")  # type: ignore[index]
    assert "Location" not in response.headers
    assert "Strict-Transport-Security" not in response.headers


def test_tls_is_optional_where_the_policy_says_so(protected: MakeApp) -> None:
    """In the code and in the configuration, for that route alone; HSTS is sent over TLS only (RFC 6797 section 7.2)."""
    app = protected(POLICIES={"GET /configured": {"public": True, "tls": "optional"}})
    app.add_url_rule("/healthz", endpoint="healthz", view_func=public(tls="optional")(lambda: "ok"))
    app.add_url_rule("/configured", endpoint="configured", view_func=lambda: "ok", methods=["GET", "POST"])
    app.add_url_rule("/open", endpoint="open", view_func=public(lambda: "ok"))
    client = app.test_client()
    assert [client.get(path).status_code for path in ("/healthz", "/configured")] == [200, 200]
    assert [client.get(path).status_code for path in ("/open", "/unknown", "/healthz/")] == [403, 403, 403]
    assert client.post("/configured", headers=caller()).status_code == 403
    assert "Strict-Transport-Security" not in client.get("/healthz").headers
    assert "Strict-Transport-Security" in client.get("/healthz", base_url=HTTPS).headers


def test_tls_is_optional_beneath_the_guards(bare_app: Flask, protected: MakeApp) -> None:
    """A mount that is public by configuration, too; no other spelling of its path."""

    def mounted(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"mounted"]

    bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {"/metrics": mounted, "/other": mounted}
    )
    app = protected(bare_app, POLICIES={"/metrics": {"public": True, "tls": "optional"}, "/other": {"public": True}})
    statuses = [app.test_client().get(path).status_code for path in ("/metrics", "/metrics/", "/other", "/./metrics")]
    assert statuses == [200, 403, 403, 403]


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize(
    ("address", "name", "near"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", True, id="here"),
        pytest.param("::1", "::1", True, id="here, IPv6"),
        pytest.param("172.18.0.3", "172.18.0.3", True, id="a container"),
        pytest.param("", "a Unix socket", True, id="a Unix socket"),
        pytest.param("8.8.8.8", "8.8.8.8", False, id="the internet"),
    ],
)
def test_what_to_do_is_logged(
    app: Flask,
    sink: MemorySink,
    caplog: pytest.LogCaptureFixture,
    debug: bool,
    address: str,
    name: str,
    near: bool,
) -> None:
    """For a local client, the reason names the setting; in debug mode, a warning has all fixes."""
    app.debug = debug
    client = app.test_client()
    responses = [client.get("/", environ_overrides={"REMOTE_ADDR": address}) for _ in range(3)]
    assert {each.status_code for each in responses} == {403}
    assert "adhoc" not in responses[0].text
    advice = "; a proxy that terminates TLS must be in SECURE_ML_TRUSTED_PROXIES" if near else ""
    assert sink.records[-1]["reason"] == f"insecure_transport: clear text from {name}{advice}"
    hints = [each.message for each in caplog.records if "tls_required" in each.message]
    assert len(hints) == (near and debug)
    for remedy in ("flask run --cert adhoc", "SECURE_ML_REQUIRE_TLS = False", "SECURE_ML_TRUSTED_PROXIES"):
        assert all(remedy in each for each in hints)


@pytest.mark.parametrize("scheme", [{}, {"X-Forwarded-Proto": "http"}])
def test_the_reason_behind_a_trusted_proxy(
    protected: MakeApp, sink: MemorySink, caplog: pytest.LogCaptureFixture, scheme: dict[str, str]
) -> None:
    """The reason names the trusted proxy whose header is missing or wrong; no hint is logged."""
    client = protected(TRUSTED_PROXIES=["127.0.0.0/8"]).test_client()
    headers = {"X-Forwarded-For": "10.1.2.3", **scheme}
    assert client.get("/", headers=headers).status_code == 403
    reason = "insecure_transport: clear text from 10.1.2.3, whose proxy 127.0.0.1 sends no X-Forwarded-Proto: https"
    assert sink.records[-1]["reason"] == reason
    assert not [each for each in caplog.records if "tls_required" in each.message]


def test_clear_text_can_be_allowed(protected: MakeApp) -> None:
    """SECURE_ML_REQUIRE_TLS = False is for development; HSTS is still not sent over clear text."""
    app = protected(REQUIRE_TLS=False)
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    response = app.test_client().get("/open")
    assert response.status_code == 200
    assert "Strict-Transport-Security" not in response.headers


def test_tls_of_a_trusted_proxy(protected: MakeApp) -> None:
    """SECURE_ML_TRUSTED_PROXIES makes the proxy's word count: TLS, address, HSTS."""
    app = protected(TRUSTED_PROXIES=["127.0.0.0/8"])
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    response = app.test_client().get("/open", headers={"X-Forwarded-Proto": "https"})
    assert response.status_code == 200
    assert response.headers["Strict-Transport-Security"] == POLICY["Strict-Transport-Security"]


@pytest.mark.parametrize("path", ["/open", "/crash", "/nowhere", "/stream"])
def test_every_response_has_the_headers(app: Flask, path: str) -> None:
    """Also errors and streams; each header once."""
    app.add_url_rule("/open", view_func=public(lambda: "ok"), endpoint="open")
    app.add_url_rule("/crash", view_func=lambda: 1 / 0, endpoint="crash")  # type: ignore[arg-type]
    app.add_url_rule("/stream", view_func=lambda: Response(iter(["a"])), endpoint="stream")
    response = app.test_client().get(path, base_url=HTTPS, headers=caller())
    assert {name: response.headers.getlist(name) for name in POLICY} == {name: [POLICY[name]] for name in POLICY}
    assert "X-XSS-Protection" not in response.headers
    assert len(response.headers["X-Request-ID"]) == 32


def test_the_view_may_allow_caching(app: Flask) -> None:
    """A Cache-Control of the view stays; headers that name the software go."""
    own = {"Cache-Control": "max-age=60", "Server": "model/1.2", "X-Powered-By": "numpy"}
    app.add_url_rule("/open", view_func=public(lambda: ("ok", own)))
    headers = app.test_client().get("/open", base_url=HTTPS).headers
    assert headers["Cache-Control"] == "max-age=60"
    assert not {"Server", "X-Powered-By"} & set(headers.keys())


def test_browsers_may_read_the_challenge(protected: MakeApp) -> None:
    """DP-16: with DPoP, scripts of other origins may read the headers that they need; without it, no more."""
    issuer = {"issuer": "https://a", "audience": "b", "algorithms": ["RS256"], "jwks_uri": "https://a/jwks"}
    exposed = [
        protected(TOKEN_ISSUERS=[issuer], DPOP=mode, RESOURCE_URI="https://a")
        .test_client()
        .get("/", base_url=HTTPS)
        .headers.get("Access-Control-Expose-Headers")
        for mode in ("accept", "off")
    ]
    assert exposed == ["WWW-Authenticate, DPoP-Nonce", None]


def test_hsts_max_age(protected: MakeApp) -> None:
    """SECURE_ML_HSTS_MAX_AGE sets the seconds."""
    response = protected(HSTS_MAX_AGE=60).test_client().get("/x", base_url=HTTPS)
    assert response.headers["Strict-Transport-Security"] == "max-age=60; includeSubDomains"


@pytest.mark.parametrize("query", ["a=\xff", "\xed\xa0\x80"], ids=["latin-1", "surrogate"])
def test_a_query_beyond_ascii_is_rejected(app: Flask, query: str) -> None:
    """Raw bytes in the query would be a 500 of Werkzeug in any view that reads its arguments."""
    app.add_url_rule("/open", view_func=public(lambda: dict(request.args)))
    client = app.test_client()
    for headers in ({}, caller()):
        response = client.get("/open", base_url=HTTPS, headers=headers, environ_overrides={"QUERY_STRING": query})
        assert (response.status_code, response.json["code"]) == (400, "malformed_request")  # type: ignore[index]


def test_session_cookies_are_protected(app: Flask) -> None:
    """A session of the user's app travels over TLS only and is hidden from scripts."""
    app.secret_key = "k" * 32

    @app.get("/login")
    @public
    def login() -> str:
        session["user"] = "ada"
        return "ok"

    cookie = app.test_client().get("/login", base_url=HTTPS).headers["Set-Cookie"]
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
