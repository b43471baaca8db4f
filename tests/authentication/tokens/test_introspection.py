"""Opaque tokens: the meaning of each response of the introspection endpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.config.issuers import MAX_TOKEN_BYTES
from flask_secure_ml.errors import DependencyUnavailable, NotAuthenticated
from flask_secure_ml.testing import FakeClock
from introspection_endpoint import ISSUER, NOW, TOKEN, USUAL, Endpoint, make_introspector, status_of
from support import RANDOM_SECRET

CORPUS = Path(__file__).parents[2] / "corpus" / "introspection"
Case = dict[str, Any]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def make(clock: FakeClock, endpoint: Endpoint) -> Callable[..., Introspector]:
    return partial(make_introspector, clock, endpoint)


def corpus() -> list[Any]:
    found = [case for path in sorted(CORPUS.glob("*.json")) for case in json.loads(path.read_text())]
    return [pytest.param(case, id=case["id"]) for case in found]


@pytest.mark.parametrize("case", corpus())
def test_response(case: Case, make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """IN-2, IN-3, J4: only a sound response that is active and for this app proves anything."""
    endpoint.say(*case.get("drop", []), **case.get("answer", {}))
    if "text" in case:
        endpoint.body = case["text"].encode(case.get("encoding", "utf-8"))
    endpoint.status = case.get("answered", 200)
    assert status_of(make()) == case.get("status", 401)


def test_principal(make: Callable[..., Introspector]) -> None:
    """The principal has the data of the response, under the configured issuer; its id is that of a JWT's subject."""
    verified = make().verify(TOKEN)
    principal = verified.principal
    assert (principal.kind, principal.id) == ("introspection", f"{ISSUER}#alice")
    assert principal.scopes == {"predict", "explain"}
    assert (principal.client_id, principal.token_id, principal.issued) == ("tests", "t1", NOW)
    assert dict(principal.claims) == dict(USUAL)
    assert (principal.roles, principal.endpoints, verified.confirmation) == (frozenset(), None, None)
    with pytest.raises(TypeError):
        principal.claims["sub"] = "root"  # type: ignore[index]


def test_roles(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """AT-10: roles, groups and entitlements are those of the response."""
    endpoint.say(roles=["analyst"], groups=["staff"], entitlements=["gpu"])
    assert make().verify(TOKEN).principal.roles == {"analyst", "staff", "gpu"}


def test_principal_of_a_short_response(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """JB-11: a client is its own subject only where its issuer is configured as one that leaves sub out."""
    endpoint.body = b'{"active": true, "client_id": "batch"}'
    assert status_of(make()) == 401
    principal = make(omits=frozenset({"sub"})).verify(TOKEN).principal
    assert principal.id == f"{ISSUER}#batch"
    assert (principal.client_id, principal.token_id, principal.issued) == ("batch", "", None)
    assert principal.scopes == frozenset()


@pytest.mark.parametrize(
    "members",
    [
        {"typ": "Refresh"},
        {"typ": "ID"},
        {"nonce": "n", "at_hash": "h"},
        {"typ": "Logout", "events": {}},
        {"events": {}},
        {"typ": 5},
    ],
    ids=str,
)
def test_other_kinds_of_tokens(make: Callable[..., Introspector], endpoint: Endpoint, members: dict[str, Any]) -> None:
    """JB-16, C6: an endpoint also reports refresh, ID and logout tokens, which are not access tokens."""
    endpoint.say(**members)
    assert status_of(make()) == 401


@pytest.mark.parametrize("kind", ["Bearer", "at+jwt", "DPoP"])
def test_access_tokens_that_say_so(make: Callable[..., Introspector], endpoint: Endpoint, kind: str) -> None:
    """A claim typ that names an access token is fine."""
    endpoint.say(typ=kind)
    assert status_of(make()) == 200


def test_confirmation(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """MT-2: the top-level cnf is passed to the check of the binding."""
    endpoint.say(cnf={"x5t#S256": "abc"})
    assert make().verify(TOKEN).confirmation == {"x5t#S256": "abc"}


def test_empty_confirmation_is_one(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """MT-5: an empty cnf is not the same as none."""
    endpoint.say(cnf={})
    assert make().verify(TOKEN).confirmation == {}


@pytest.mark.parametrize(("leeway", "status"), [(0, 401), (30, 200)])
def test_leeway(make: Callable[..., Introspector], endpoint: Endpoint, leeway: float, status: int) -> None:
    """SECURE_ML_TOKEN_LEEWAY counts here too."""
    endpoint.say(exp=NOW - 10)
    assert status_of(make(leeway=leeway)) == status


def test_max_age_of_the_issuer(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """The issuer's max_age counts from iat."""
    endpoint.say(iat=NOW - 100)
    assert status_of(make(max_age=0)) == 200
    endpoint.say(iat=NOW - 200_000)
    assert status_of(make(max_age=0)) == 401


@pytest.mark.parametrize(
    ("token", "accepted"),
    [
        pytest.param("a", True, id="one letter"),
        pytest.param("AZaz09-._~+/==", True, id="every character"),
        pytest.param("a.b.c", True, id="like a JWT"),
        pytest.param("", False, id="empty"),
        pytest.param("=", False, id="padding only"),
        pytest.param("a=b", False, id="padding inside"),
        pytest.param("a b", False, id="space"),
        pytest.param("a\n", False, id="line end"),
        pytest.param("é", False, id="beyond ASCII"),
        pytest.param("a&b", False, id="ampersand"),
    ],
)
def test_form(make: Callable[..., Introspector], endpoint: Endpoint, token: str, accepted: bool) -> None:
    """BT-1: a value that is not a b64token is rejected here, and never sent."""
    introspector = make()
    assert introspector.accepts(token) is accepted
    assert status_of(introspector, token) == (200 if accepted else 401)
    assert endpoint.asked == accepted


def test_length(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """A token that is too long is rejected without asking."""
    assert status_of(make(), "a" * MAX_TOKEN_BYTES) == 200
    assert status_of(make(), "a" * (MAX_TOKEN_BYTES + 1)) == 401
    assert endpoint.asked == 1


@pytest.mark.parametrize("status", [200, 302, 401, 403, 500, 503])
@pytest.mark.parametrize("down", [False, True])
def test_token_and_secret_are_nowhere(
    make: Callable[..., Introspector], endpoint: Endpoint, caplog: pytest.LogCaptureFixture, status: int, down: bool
) -> None:
    """IN-7: neither is in a log, an error, a repr or the cache."""
    caplog.set_level(logging.DEBUG)
    introspector = make()
    endpoint.status, endpoint.down = status, down
    endpoint.say(active=status != 200)
    with pytest.raises((NotAuthenticated, DependencyUnavailable)) as caught:
        introspector.verify(TOKEN)
    client = vars(introspector)["_client"]
    seen = [caplog.text, repr(caught.value), str(caught.value), caught.value.reason, repr(caught.value.__cause__)]
    caches = [vars(introspector)[name] for name in ("_rejected", "_valid")]
    seen += [repr(vars(each)) for each in (introspector, client, *caches)]
    assert not [text for text in seen if TOKEN in text or RANDOM_SECRET in text]
