"""The authentication guard: which credential is used, and what a rejection reveals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flask_secure_ml.authentication.api_keys.authenticator import ApiKeyAuthenticator
from flask_secure_ml.authentication.guard import AuthenticationGuard
from flask_secure_ml.authentication.revocation import Revocations
from flask_secure_ml.config.plans import Plan
from flask_secure_ml.errors import (
    DependencyUnavailable,
    InvalidProof,
    MalformedRequest,
    NonceRequired,
    NotAuthenticated,
    RateLimited,
    UnusableCredential,
)
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.pipeline import Stage
from flask_secure_ml.principal import Principal

Ask = Callable[..., Any]
MakeGuard = Callable[..., AuthenticationGuard]


class Scripted:
    """An authenticator with a prepared outcome."""

    name = "scripted"

    def __init__(self, outcome: object, challenge: str = "Bearer") -> None:
        self.outcome = outcome
        self.challenge = challenge

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return "credential"

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome  # type: ignore[return-value]


def test_public_route_does_not_look_at_credentials(ask: Ask, failures: list[str]) -> None:
    """An invalid credential on a public route is neither rejected nor counted."""
    response = ask({"Authorization": "Bearer a b", "X-API-Key": "x"}, public=True)
    assert (response.status, response.principal, failures) == (200, None, [])


def test_route_without_policy_is_protected(make_guard: MakeGuard, request_with: Ask) -> None:
    """A request for which no policy was found is treated as protected."""
    exchange = Exchange("r", 0.0, 0.0, "", "", secure=True)
    guard = make_guard()
    assert guard.stage is Stage.AUTHENTICATE
    with pytest.raises(NotAuthenticated):
        guard.check(request_with(), exchange)


def test_principal_and_challenges_are_written(ask: Ask, token: Callable[..., str]) -> None:
    """A good credential writes the principal, and the schemes on offer with the used one first."""
    response = ask({"Authorization": f"Bearer {token()}"})
    assert response.principal.id == "https://issuer.example#alice"
    assert response.exchange.challenges == ('Bearer realm="model"', 'ApiKey realm="model"')


@pytest.mark.parametrize("plan", ["default", "gold"])
def test_caller_and_plan_are_written(ask_with: Ask, plans: dict[str, Plan], plan: str) -> None:
    """Limits and responses read them, so both are of the same caller."""
    exchange = ask_with(Scripted(Principal("t", "ada", plan=plan))).exchange
    assert exchange.caller == "t:ada"
    assert exchange.plan is plans[plan]


def test_an_anonymous_caller_is_its_network(ask: Ask, plans: dict[str, Plan]) -> None:
    """It has the default plan; a caller that was not authenticated has none."""
    exchange = ask({}, public=True).exchange
    assert exchange.caller == "address:192.0.2.1"
    assert exchange.plan is plans["default"]
    rejected = ask({}).exchange
    assert (rejected.caller, rejected.plan) == ("", None)


def test_a_plan_that_is_not_configured(ask_with: Ask) -> None:
    """The caller is rejected rather than unlimited."""
    response = ask_with(Scripted(Principal("t", "ada", plan="lost")))
    assert response.status == 500
    assert response.reason == "the plan 'lost' of t:ada is not in SECURE_ML_PLANS"


def test_used_scheme_comes_first(ask: Ask) -> None:
    """The challenge of the used scheme comes first, and ApiKey has no error code."""
    assert ask({"X-API-Key": "wrong"}).challenges == ('ApiKey realm="model"', 'Bearer realm="model"')


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        pytest.param(NotAuthenticated("revoked"), 401, "revoked", id="refused"),
        pytest.param(TypeError("unhashable"), 401, "scripted raised TypeError", id="TypeError"),
        pytest.param(RecursionError(), 401, "scripted raised RecursionError", id="RecursionError"),
        pytest.param(None, 401, "scripted returned no principal", id="no principal"),
        pytest.param("alice", 401, "scripted returned no principal", id="a string"),
        pytest.param(DependencyUnavailable("down"), 503, "down", id="dependency"),
        pytest.param(MalformedRequest("broken"), 400, "broken", id="malformed"),
    ],
)
def test_outcomes_of_verify(ask_with: Ask, outcome: object, status: int, reason: str) -> None:
    """Whatever verify does, only a Principal is accepted, and the result is never a 500."""
    response = ask_with(Scripted(outcome))
    assert (response.status, response.reason, response.principal) == (status, reason, None)


def test_unforeseen_error_is_logged(ask_with: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """The trace of an unforeseen error goes to the log."""
    ask_with(Scripted(TypeError("unhashable")))
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        pytest.param(NotAuthenticated("x"), 1, id="invalid"),
        pytest.param(InvalidProof("x"), 1, id="invalid proof"),
        pytest.param(UnusableCredential("x"), 0, id="authentic but unusable"),
        pytest.param(NonceRequired("x"), 0, id="first proof without the nonce"),
        pytest.param(KeyError("x"), 1, id="unforeseen"),
        pytest.param(DependencyUnavailable("x"), 0, id="dependency down"),
        pytest.param(Principal("t", "a"), 0, id="valid"),
    ],
)
def test_failures_are_counted(ask_with: Ask, failures: list[str], outcome: object, counted: int) -> None:
    """Only an unproven credential counts against its sender, including failures without that information."""
    ask_with(Scripted(outcome))
    assert len(failures) == counted


def test_missing_credential_is_not_counted(ask: Ask, failures: list[str]) -> None:
    """A request without a credential is not a guess."""
    ask({})
    assert failures == []


def test_one_body_for_every_reason(ask: Ask, token: Callable[..., str]) -> None:
    """The 401 responses for expired, forged and missing credentials have the same body."""
    headers = [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {token(lifetime=-99)}"},
        {"X-API-Key": "x"},
    ]
    assert len({ask(each).body for each in headers}) == 1


def test_claimed_key_is_told(ask_with: Ask, failures: list[str]) -> None:
    """The throttle learns which key was guessed at; the caller does not."""
    error = NotAuthenticated("wrong secret")
    error.claimed = "abc"
    response = ask_with(Scripted(error))
    assert (failures, response.status) == (["abc"], 401)
    assert b"abc" not in response.body


def test_throttle_may_response(
    make_guard: MakeGuard, request_with: Ask, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error raised by the throttle for a failure is the response."""

    def reject(*_: object) -> None:
        raise RateLimited("too often")

    guard = make_guard(Scripted(NotAuthenticated("x")))
    monkeypatch.setattr(guard._throttle, "failed", reject)
    with pytest.raises(RateLimited):
        guard.check(request_with(), exchange)


@pytest.mark.parametrize("principal", [Principal("test", "alice"), Principal("jwt", "alice", "https://i")])
def test_revoked_principal(ask_with: Ask, revocations: Revocations, failures: list[str], principal: Principal) -> None:
    """C10: whatever kind of credential it has, a revoked principal gets the response of an invalid one."""
    assert ask_with(Scripted(principal)).status == 200
    revocations.revoke_principal(principal.id)
    response = ask_with(Scripted(principal))
    assert (response.status, response.principal) == (401, None)
    assert response.challenges == ('Bearer realm="model", error="invalid_token"',)
    assert failures == []


class Brittle(Scripted):
    """An authenticator that raises an error on its input."""

    def find(self, request: Request, exchange: Exchange) -> object | None:
        raise ValueError("invalid literal for int()")


def test_outcome_of_a_failing_find(ask_with: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error in find is caused by the request: 400, with the traceback only in the log."""
    response = ask_with(Brittle(None))
    assert (response.status, response.reason) == (400, "scripted raised ValueError")
    assert caplog.records[0].exc_info is not None


class Connection(Scripted):
    """An authenticator for credentials of the connection."""

    name = "connection"

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return exchange.certificate


@pytest.mark.parametrize(
    ("certificate", "header", "status", "kind"),
    [
        pytest.param(b"der", {}, 200, "mtls", id="certificate alone"),
        pytest.param(b"der", {"X-API-Key": "wrong"}, 401, None, id="an invalid credential is final"),
        pytest.param(b"der", {"Authorization": "Basic eA=="}, 401, None, id="a credential that is not on offer"),
        pytest.param(b"der", {"Authorization": "DPoP x"}, 401, None, id="a bound token where DPoP is off"),
        pytest.param(None, {}, 401, None, id="neither"),
    ],
)
def test_ambient_credential(
    make_guard: MakeGuard,
    api_keys: ApiKeyAuthenticator,
    request_with: Ask,
    exchange: Exchange,
    certificate: bytes | None,
    header: dict[str, str],
    status: int,
    kind: str | None,
) -> None:
    """A credential of the connection is used only if the request itself carries none."""
    exchange.certificate = certificate
    guard = make_guard(api_keys, ambient=[Connection(Principal("mtls", "trainer"), challenge="")])
    if status == 200:
        guard.check(request_with(header), exchange)
        assert exchange.principal is not None
        assert exchange.principal.kind == kind
    else:
        with pytest.raises(NotAuthenticated):
            guard.check(request_with(header), exchange)


def test_the_first_ambient_credential(make_guard: MakeGuard, request_with: Ask, exchange: Exchange) -> None:
    """Clients send these automatically, so two are not an error; if the first fails, the result is final."""
    exchange.certificate = b"der"
    session, certificate = Scripted(Principal("session", "7"), ""), Connection(Principal("mtls", "trainer"), "")
    make_guard(ambient=[session, certificate]).check(request_with(), exchange)
    assert exchange.principal == session.outcome
    with pytest.raises(NotAuthenticated):
        make_guard(ambient=[Scripted(UnusableCredential("revoked"), ""), certificate]).check(
            request_with(), Exchange("r", 0.0, 0.0, "", "", secure=True, certificate=b"der")
        )


@pytest.mark.parametrize(
    ("headers", "query", "reason"),
    [
        pytest.param({}, "", "no credential", id="nothing"),
        pytest.param({}, "version=2", "no credential", id="another query"),
        pytest.param(
            {"Authorization": "Bearer sml_x"},
            "",
            "no credential; ignored: Authorization with the scheme bearer",
            id="another scheme",
        ),
        pytest.param(
            {"Authorization": "sml_secret"},
            "",
            "no credential; ignored: Authorization with another scheme",
            id="a key without its scheme",
        ),
        pytest.param({"X-API-Key": "sml_x"}, "", "no credential; ignored: X-API-Key", id="header"),
        pytest.param({}, "API_KEY=secret", "no credential; ignored: a credential in the query", id="query"),
        pytest.param(
            {"Authorization": "Basic c2VjcmV0", "X-API-Key": "sml_x"},
            "access_token=x",
            "no credential; ignored: Authorization with the scheme basic, X-API-Key, a credential in the query",
            id="all",
        ),
    ],
)
def test_the_reason_without_a_credential(
    make_guard: MakeGuard, exchange: Exchange, headers: dict[str, str], query: str, reason: str
) -> None:
    """It names ignored credentials without their values: a key may be sent without a scheme."""
    request = Request(EnvironBuilder("/", headers=[*headers.items()], query_string=query).get_environ())
    with pytest.raises(NotAuthenticated) as caught:
        make_guard(Nothing()).check(request, exchange)
    assert caught.value.reason == reason


class Nothing(Scripted):
    """An authenticator whose credential no request has."""

    def __init__(self) -> None:
        super().__init__(None)

    def find(self, request: Request, exchange: Exchange) -> None:
        return None
