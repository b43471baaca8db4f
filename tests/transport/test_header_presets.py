"""The presets of security headers, and how the setting, a policy and a view adjust them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_secure_ml import ConfigError, protect, public
from flask_secure_ml.config import Settings
from support import HTTPS, MakeApp, caller

API = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
}
CONTENT = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
PAGE = API | {"Content-Security-Policy": CONTENT, "Referrer-Policy": "same-origin"}
OF_THE_REQUEST = {"Content-Type", "Content-Length", "X-Request-ID"}


def headers_of(app: Flask, path: str, base_url: str = HTTPS) -> dict[str, str]:
    response = app.test_client().get(path, base_url=base_url, headers=caller())
    found = [header for header in response.headers if header[0] not in OF_THE_REQUEST]
    assert len(found) == len({name.lower() for name, _ in found})
    return dict(found)


@pytest.fixture
def serve(protected: MakeApp) -> Callable[..., Flask]:
    def make(**settings: Any) -> Flask:
        app = protected(LIMIT_HEADERS=False, **settings)
        app.add_url_rule("/api", "api", protect(headers="api")(lambda: "{}"))
        app.add_url_rule("/page", "page", protect(headers="page")(lambda: "<p>page"))
        app.add_url_rule("/default", "default", lambda: "default")
        return app

    return make


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        pytest.param({}, API, id="not set"),
        pytest.param({"HEADERS": "api"}, API, id="api"),
        pytest.param({"HEADERS": "page"}, PAGE, id="page"),
        pytest.param({"HEADERS": {"preset": "page"}}, PAGE, id="an object"),
    ],
)
def test_presets(serve: Callable[..., Flask], configured: dict[str, Any], expected: dict[str, str]) -> None:
    """The setting applies to routes whose policy has none."""
    app = serve(**configured)
    assert headers_of(app, "/default") == expected
    assert headers_of(app, "/api") == API
    assert headers_of(app, "/page") == PAGE


def test_values(serve: Callable[..., Flask]) -> None:
    """They replace those of the preset, in any letters; null leaves a header out, and others are added."""
    values = {
        "content-security-policy": "default-src 'self' 'sha256-x='",
        "X-Frame-Options": None,
        "x-robots-tag": "none",
    }
    app = serve(HEADERS={"preset": "page", "values": values})
    expected = PAGE | {"Content-Security-Policy": "default-src 'self' 'sha256-x='", "X-Robots-Tag": "none"}
    del expected["X-Frame-Options"]
    assert headers_of(app, "/default") == expected
    assert headers_of(app, "/page") == PAGE


def test_a_policy_replaces_the_setting(serve: Callable[..., Flask]) -> None:
    """Completely: adjustments of the setting do not apply to it."""
    app = serve(HEADERS={"values": {"Cache-Control": None}})
    values = {"Referrer-Policy": "strict-origin"}
    app.add_url_rule("/own", "own", public(headers={"values": values})(lambda: "own"))
    assert headers_of(app, "/default") == {name: value for name, value in API.items() if name != "Cache-Control"}
    assert headers_of(app, "/own") == API | {"Referrer-Policy": "strict-origin"}


def test_the_view_wins(serve: Callable[..., Flask]) -> None:
    """Headers set by the view are kept; shared caches must not store it, as it requires a credential."""
    app = serve()
    own = {"Content-Security-Policy": "default-src 'nonce-x'", "cache-control": "private, max-age=60"}
    app.add_url_rule("/own", "own", protect(headers="page")(lambda: ("own", own)))
    found = {name.lower(): value for name, value in headers_of(app, "/own").items()}
    assert found == {name.lower(): value for name, value in (PAGE | own).items() if name != "Cache-Control"}


def test_clear_text(serve: Callable[..., Flask]) -> None:
    """HSTS is for TLS only, in every preset."""
    app = serve(REQUIRE_TLS=False)
    for path, expected in (("/api", API), ("/page", PAGE)):
        found = headers_of(app, path, "http://localhost")
        assert found == {name: value for name, value in expected.items() if name != "Strict-Transport-Security"}


def test_errors_of_a_page(serve: Callable[..., Flask]) -> None:
    """A page of the app for an error has the headers of its route."""
    app = serve()
    app.register_error_handler(401, lambda _: ("<p>log in", 401))
    response = app.test_client().get("/page", base_url=HTTPS)
    assert (response.status_code, response.headers["Content-Security-Policy"]) == (401, CONTENT)


def test_what_is_mounted(protected: MakeApp) -> None:
    """It gets headers that break no page, or those of its path's policy."""
    app = Flask("model_app")
    mounts: Any = {"/dash": Response("<p>dash"), "/metrics": Response("metrics")}
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, mounts)  # type: ignore[method-assign]
    protected(app, POLICIES={"/dash/*": {"headers": "page"}}, HEADERS="page")
    assert headers_of(app, "/dash/x") == PAGE
    assert headers_of(app, "/metrics") == {
        name: API[name] for name in ("Strict-Transport-Security", "X-Content-Type-Options")
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("pages", "headers: must be one of 'api', 'page', or an object such as"),
        ({}, "headers: is empty; it must have at least one of preset, values"),
        ({"preset": "html"}, "headers.preset: must be one of 'api', 'page', not 'html'"),
        ({"values": []}, "headers.values: must be an object such as"),
        ({"values": {"Content-Security": "x"}}, 'headers.values["Content-Security"]: is not adjustable; did you mean'),
        ({"values": {"Set-Cookie": "a=b"}}, 'headers.values["Set-Cookie"]: is not one of Cache-Control, Content-'),
        ({"values": {"Strict-Transport-Security": "max-age=0"}}, 'headers.values["Strict-Transport-Security"]: is not'),
        ({"values": {"Access-Control-Allow-Origin": "*"}}, 'headers.values["Access-Control-Allow-Origin"]: is not'),
        ({"values": {"Referrer-Policy": "a\r\nSet-Cookie: b"}}, 'headers.values["Referrer-Policy"]: must be one line'),
        ({"values": {"Referrer-Policy": ""}}, 'headers.values["Referrer-Policy"]: must be one line'),
        ({"values": {"Referrer-Policy": "é"}}, 'headers.values["Referrer-Policy"]: must be one line'),
        ({"values": {"Referrer-Policy": 1}}, 'headers.values["Referrer-Policy"]: must be one line'),
        ({"values": {"Referrer-Policy": "a", "referrer-policy": "b"}}, "headers.values: has a header twice"),
    ],
)
def test_mistakes(given: Any, problem: str) -> None:
    """Each is an error with its location and a remedy."""
    with pytest.raises(ConfigError) as caught:
        protect(headers=given)
    assert caught.value.problems[0].startswith(problem)
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_HEADERS": given})
    assert caught.value.problems[0].startswith(problem.replace("headers", "SECURE_ML_HEADERS", 1))
