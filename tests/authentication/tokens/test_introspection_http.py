"""The whole way to an introspection endpoint, over a real server on loopback."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_secure_ml import current_principal
from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.authentication.tokens.introspection_client import MAX_RESPONSE, bounded
from flask_secure_ml.config.issuers import issuers_field
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.testing import FakeClock, MemorySink
from http_servers import QuietHandler, in_thread
from introspection_endpoint import AUDIENCE, ISSUER, NOW, TOKEN, USUAL, status_of
from support import HTTPS, RANDOM_SECRET, MakeApp

CLIENT = "models:api/größe"
Behaviour = Callable[[QuietHandler], object]


class Site(ThreadingHTTPServer):
    """An endpoint that knows one client and one token; ``behaviour`` replaces its response."""

    behaviour: Behaviour | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/introspect"


class _Handler(QuietHandler):
    server: Site

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        if self.server.behaviour is not None:
            self.server.behaviour(self)
        elif not self._knows_client():
            self.respond(401, b"{}")
        else:
            known = parse_qs(body.decode("ascii"))["token"] == [TOKEN]
            self.respond(200, json.dumps(USUAL if known else {"active": False}).encode())

    def do_GET(self) -> None:
        self.do_POST()

    def _knows_client(self) -> bool:
        text = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode("ascii")
        return [unquote_plus(half) for half in text.split(":")] == [CLIENT, RANDOM_SECRET]


@pytest.fixture
def site() -> Iterator[Site]:
    with in_thread(Site()) as server:
        yield server


def entry(site: Site, **members: Any) -> dict[str, Any]:
    usual = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "introspection_uri": site.address,
        "client_id": CLIENT,
        "client_secret": RANDOM_SECRET,
        "insecure_http": True,
    }
    return {**usual, **members}


def introspector(site: Site, *, timeout: float | None = None, **members: Any) -> Introspector:
    [config] = issuers_field().deserialize([entry(site, **members)])
    send = bounded(config, timeout) if timeout else None
    return Introspector(config, FakeClock(NOW), leeway=30, max_age=0, send=send)


def test_active_token(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """IN-1, IN-7: POST, credentials in the header, the token only in the body."""
    caplog.set_level(logging.DEBUG)
    assert introspector(site).verify(TOKEN).principal.subject == "alice"
    [(method, path, headers, body)] = site.seen
    assert (method, path) == ("POST", "/introspect")
    assert body == f"token={TOKEN}&token_type_hint=access_token".encode()
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Cookie" not in headers
    assert TOKEN not in repr(headers) + caplog.text


def test_token_that_is_not_active(site: Site) -> None:
    """IN-2: the server reports it with a 200."""
    assert status_of(introspector(site), "another") == 401


def test_credentials_that_are_rejected(site: Site) -> None:
    """IN-5: a wrong client secret is 503."""
    assert status_of(introspector(site, client_secret="sixteen characters")) == 503


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(site: Site, status: int) -> None:
    """IN-6: token and credentials are not sent to another URL, and a response there is not used."""
    with in_thread(Site()) as other:
        other.behaviour = lambda handler: handler.respond(200, json.dumps(USUAL).encode())
        site.behaviour = lambda handler: handler.respond(status, headers={"Location": other.address})
        assert status_of(introspector(site)) == 401
        assert not other.seen


@pytest.mark.parametrize(("size", "status"), [(MAX_RESPONSE, 200), (MAX_RESPONSE + 1, 503)])
def test_size_of_a_response(site: Site, size: int, status: int) -> None:
    """API10: a response has a largest size."""
    body = json.dumps(USUAL).encode()
    site.behaviour = lambda handler: handler.respond(200, body + b" " * (size - len(body)))
    assert status_of(introspector(site)) == status


@pytest.mark.usefixtures("no_jitter")
def test_slow_server(site: Site) -> None:
    """IN-6: a server that does not respond in time is 503 with Retry-After, and is not called again at once."""
    done = threading.Event()

    def response_late(handler: QuietHandler) -> None:
        done.wait(5)
        handler.respond(200, json.dumps(USUAL).encode())

    site.behaviour = response_late
    verifier = introspector(site, timeout=0.2)
    for _ in range(2):
        with pytest.raises(DependencyUnavailable) as caught:
            verifier.verify(TOKEN)
        assert dict(caught.value.extra_headers) == {"Retry-After": "5"}
    done.set()
    assert len(site.seen) == 1


def test_nobody_listens() -> None:
    """IN-6: so is one that is not there."""
    with in_thread(Site()) as site:
        verifier = introspector(site)
    assert status_of(verifier) == 503


@pytest.mark.parametrize(("private", "fault"), [(False, "no allowed IP address"), (True, "SSLError")])
def test_private_address(site: Site, private: bool, fault: str) -> None:
    """IN-1, API7: without private_network, only public addresses are connected to, and https is TLS."""
    address = site.address.replace("http:", "https:")
    with pytest.raises(DependencyUnavailable) as caught:
        introspector(site, introspection_uri=address, private_network=private).verify(TOKEN)
    assert fault in caught.value.reason
    assert not site.seen


# --- through an app ----------------------------------------------------------------------------------------


@pytest.fixture
def make_app(site: Site, protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> MakeApp:
    """Make an app that introspects at the site; keywords are settings without the prefix."""
    monkeypatch.setenv("TEST_CLIENT_SECRET", RANDOM_SECRET)

    def make(**settings: Any) -> Flask:
        issuer = entry(site, client_secret="env:TEST_CLIENT_SECRET")
        app = protected(parts={"authenticators": []}, TOKEN_ISSUERS=[issuer], **settings)
        app.add_url_rule("/me", "me", lambda: {"id": current_principal.id})
        return app

    return make


def get(app: Flask, token: str = TOKEN) -> TestResponse:
    return app.test_client().get("/me", base_url=HTTPS, headers={"Authorization": f"Bearer {token}"})


def test_responses_of_an_app(make_app: MakeApp, site: Site, sink: MemorySink) -> None:
    """IN-2, IN-6, IN-7: the view runs for an active token only, and the request log has no token."""
    app = make_app(INTROSPECTION_CACHE_SECONDS=0)
    assert get(app).json == {"id": f"{ISSUER}#alice"}
    rejected = get(app, "another-opaque-token")
    assert (rejected.status_code, rejected.headers["WWW-Authenticate"]) == (
        401,
        'Bearer realm="model", error="invalid_token"',
    )
    site.behaviour = lambda handler: handler.respond(503)
    assert (get(app).status_code, get(app).headers["Retry-After"]) == (503, "5")
    assert [record["status"] for record in sink.records] == [200, 401, 503, 503]
    assert not [line for line in sink.lines if TOKEN in line or "another-opaque-token" in line]


@pytest.mark.parametrize(("seconds", "asked"), [(0, 2), (60, 1)])
def test_introspection_cache_seconds(make_app: MakeApp, site: Site, seconds: int, asked: int) -> None:
    """SECURE_ML_INTROSPECTION_CACHE_SECONDS sets how long a response is reused."""
    app = make_app(INTROSPECTION_CACHE_SECONDS=seconds)
    assert [get(app).status_code for _ in range(2)] == [200, 200]
    assert len(site.seen) == asked


@pytest.mark.parametrize(("seconds", "status"), [(0, 401), (30, 200)])
def test_leeway(make_app: MakeApp, site: Site, seconds: int, status: int) -> None:
    """SECURE_ML_TOKEN_LEEWAY is that of introspected tokens too."""
    body = json.dumps({**USUAL, "exp": NOW - 10}).encode()
    site.behaviour = lambda handler: handler.respond(200, body)
    assert get(make_app(TOKEN_LEEWAY=seconds)).status_code == status
