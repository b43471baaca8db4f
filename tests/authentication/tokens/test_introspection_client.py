"""Requests to the introspection endpoint, and when none is sent."""

from __future__ import annotations

import base64
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote_plus

import pytest

from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock
from introspection_endpoint import NOW, TOKEN, Endpoint, make_introspector, status_of
from support import OLDER_SECRET, RANDOM_SECRET

pytestmark = pytest.mark.usefixtures("no_jitter")
B64TOKEN = "ABCxyz019-._~+/=="
REJECTED = "the introspection endpoint rejects this app's credentials"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def make(clock: FakeClock, endpoint: Endpoint) -> Callable[..., Introspector]:
    return partial(make_introspector, clock, endpoint)


def credentials(header: str) -> tuple[str, str]:
    """Read a Basic header as RFC 6749 section 2.3.1 has it read."""
    scheme, _, encoded = header.partition(" ")
    assert scheme == "Basic"
    user, _, password = base64.b64decode(encoded).decode("ascii").partition(":")
    return unquote_plus(user, errors="strict"), unquote_plus(password, errors="strict")


def secrets_sent(endpoint: Endpoint) -> list[str]:
    return [credentials(headers["Authorization"])[1] for headers in endpoint.headers]


def rejecting(endpoint: Endpoint, *accepted: str) -> Callable[[], None]:
    """Response 401 unless the latest request has one of the accepted secrets."""

    def decide() -> None:
        endpoint.status = 200 if secrets_sent(endpoint)[-1] in accepted else 401

    return decide


def rejection(introspector: Introspector, token: str = TOKEN) -> DependencyUnavailable:
    with pytest.raises(DependencyUnavailable) as caught:
        introspector.verify(token)
    return caught.value


# --- the request -------------------------------------------------------------------------------------------


def test_request(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """IN-1: the token is sent as a form field with its hint, and JSON is requested."""
    make().verify(B64TOKEN)
    assert parse_qsl(endpoint.bodies[0].decode("ascii"), strict_parsing=True) == [
        ("token", B64TOKEN),
        ("token_type_hint", "access_token"),
    ]
    sent = {name.lower(): value for name, value in endpoint.headers[0].items()}
    assert sent.keys() == {"content-type", "accept", "authorization"}
    assert sent["content-type"] == "application/x-www-form-urlencoded"
    assert sent["accept"] == "application/json"


@pytest.mark.parametrize(
    "client_id",
    ["api", "with:colon", "per%20cent", "plus+sign", "a space", "https://api.example/?a=b&c", "Größe", "数"],
)
@pytest.mark.parametrize(
    "secret", [RANDOM_SECRET, "s:e/c+r=e%t & 'more' ~*", "пароль-от-клиента", "line\nbreak-and-more"]
)
def test_credentials(make: Callable[..., Introspector], endpoint: Endpoint, client_id: str, secret: str) -> None:
    """IN-1: id and secret with any characters arrive unchanged (RFC 6749 section 2.3.1).

    Authlib's own method joins them as they are, so that one with a colon is cut in two and one beyond Latin-1 raises.
    """
    make(client_id=client_id, client_secret=SecretRing(Secret(secret, 16))).verify(TOKEN)
    assert credentials(endpoint.headers[0]["Authorization"]) == (client_id, secret)


@pytest.mark.parametrize("missing", ["introspection_uri", "client_id", "client_secret"])
def test_issuer_that_does_not_introspect(make: Callable[..., Introspector], missing: str) -> None:
    """An introspector cannot be made without its address and its credentials."""
    with pytest.raises(ValueError, match="introspection requires"):
        make(**{missing: None})


# --- the secret --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "status", "sent"),
    [
        pytest.param([RANDOM_SECRET, OLDER_SECRET], 200, [RANDOM_SECRET], id="both known"),
        pytest.param([OLDER_SECRET], 200, [RANDOM_SECRET, OLDER_SECRET], id="older known"),
        pytest.param(["the-oldest-of-them"], 503, [RANDOM_SECRET, OLDER_SECRET], id="oldest known"),
        pytest.param([], 503, [RANDOM_SECRET, OLDER_SECRET], id="none known"),
    ],
)
def test_rotation(
    make: Callable[..., Introspector], endpoint: Endpoint, accepted: list[str], status: int, sent: list[str]
) -> None:
    """The newest secret first; where it is not known yet, the one before it, once."""
    ring = SecretRing(Secret(RANDOM_SECRET), Secret(OLDER_SECRET), Secret("the-oldest-of-them", 16))
    endpoint.meanwhile = rejecting(endpoint, *accepted)
    assert status_of(make(client_secret=ring)) == status
    assert secrets_sent(endpoint) == sent


def test_secret_is_read_for_each_call(
    make: Callable[..., Introspector], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new secret counts without a restart."""
    monkeypatch.setenv("TEST_CLIENT_SECRET", RANDOM_SECRET)
    introspector = make(client_secret=SecretRing(Secret("env:TEST_CLIENT_SECRET")), max_age=0)
    introspector.verify(TOKEN)
    monkeypatch.setenv("TEST_CLIENT_SECRET", OLDER_SECRET)
    introspector.verify(TOKEN)
    assert secrets_sent(endpoint) == [RANDOM_SECRET, OLDER_SECRET]


def test_secret_that_is_gone(
    make: Callable[..., Introspector], endpoint: Endpoint, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Without a secret no request is sent: 503, and the log names the reference."""
    introspector = make(client_secret=SecretRing(Secret(f"file:{tmp_path}/gone")))
    assert "no client secret" in rejection(introspector).reason
    assert endpoint.asked == 0
    assert f"file:{tmp_path}/gone" in caplog.text


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_are_an_alarm(
    make: Callable[..., Introspector], endpoint: Endpoint, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """IN-5, J4: the app is misconfigured, so it is 503 and an error in the log, never an acceptance."""
    endpoint.status = status
    error = rejection(make())
    assert error.reason == REJECTED
    assert dict(error.extra_headers)["Retry-After"] == "5"
    assert [each.levelno for each in caplog.records if "rejects this app's credentials" in each.getMessage()] == [
        logging.ERROR
    ]


# --- the pause ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "failures"), [(0, 1), (401, 1), (429, 3), (502, 3), (503, 3), (504, 3)], ids=str)
def test_pause(
    make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock, status: int, failures: int
) -> None:
    """IN-6: after a failure, or three that may be caused by one token, no request is sent for five seconds."""
    introspector = make()
    endpoint.status, endpoint.down = status, not status
    for number in range(failures):
        rejection(introspector, f"token-{number}")
    endpoint.status, endpoint.down = 200, False
    clock.advance(1.5)
    error = rejection(introspector, "another")
    assert error.reason == "the introspection endpoint failed a moment ago"
    assert dict(error.extra_headers)["Retry-After"] == "4"
    assert endpoint.asked == failures
    clock.advance(3.4)
    rejection(introspector, "another")
    assert endpoint.asked == failures
    clock.advance(0.1)
    assert status_of(introspector, "another") == 200


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_one_odd_token_stops_no_other(make: Callable[..., Introspector], endpoint: Endpoint, status: int) -> None:
    """A token for which the endpoint always fails does not stop requests for others."""
    introspector = make()
    for number in range(10):
        endpoint.status = status
        rejection(introspector, "odd")
        endpoint.status = 200
        assert status_of(introspector, f"good-{number}") == 200


@pytest.mark.parametrize("status", [302, 400, 403, 500])
def test_odd_token_does_not_stop_others(make: Callable[..., Introspector], endpoint: Endpoint, status: int) -> None:
    """An error that one token provokes, by a firewall or a fault, affects only that token."""
    introspector = make()
    endpoint.status = status
    assert status_of(introspector, "../../etc/passwd") in {401, 503}
    endpoint.status = 200
    assert status_of(introspector) == 200


def test_one_probe_after_the_pause(make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock) -> None:
    """IN-6: while one thread tests whether the endpoint is back, others do not wait."""
    introspector = make()
    endpoint.down = True
    rejection(introspector)
    clock.advance(5)
    reasons: list[str] = []

    def ask_meanwhile() -> None:
        endpoint.meanwhile = lambda: None
        reasons.append(rejection(introspector, "another").reason)

    endpoint.meanwhile = ask_meanwhile
    rejection(introspector)
    assert reasons == ["the introspection endpoint failed a moment ago"]
    endpoint.down = False
    clock.advance(5)
    assert [status_of(introspector, token) for token in ("a", "b", "c")] == [200, 200, 200]


# --- Authlib -----------------------------------------------------------------------------------------------


CODE = """
import sys, warnings
import flask_secure_ml
print("authlib" in sys.modules)
before = list(warnings.filters)
from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.config.issuers import issuers_field
[issuer] = issuers_field().deserialize([{"issuer": "https://i.example", "audience": "a", "introspection_uri": "https://i.example/x",
                     "client_id": "c", "client_secret": "sixteen characters"}])
Introspector(issuer, SystemClock(), leeway=0, max_age=0)
print("authlib.oauth2.client" in sys.modules, warnings.filters == before, {"requests", "httpx"} & set(sys.modules))
"""


def test_authlib_comes_alone_and_without_side_effects() -> None:
    """Authlib is loaded for opaque tokens only, without an HTTP package, and leaves the warnings as they were."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "True True set()"]
