"""The guard: which credential counts, and what a refusal tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Request

from flask_secure_ml.errors import DependencyUnavailable, MalformedRequest, NotAuthenticated
from flask_secure_ml.exchange import Exchange, Principal
from flask_secure_ml.pipeline import Stage

Ask = Callable[..., Any]


class Scripted:
    """An authenticator that does what it is told."""

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


def test_public_route_does_not_look_at_credentials(ask: Ask, failures: list[Exchange]) -> None:
    """A broken credential on a public route is neither refused nor counted."""
    answer = ask({"Authorization": "Bearer a b", "X-API-Key": "x"}, public=True)
    assert (answer.status, answer.principal, failures) == (200, None, [])


def test_route_without_policy_is_protected(ask_with: Ask, request_with: Ask) -> None:
    """A request for which no policy was found is treated as protected."""
    from flask_secure_ml.authentication.base import AuthenticationGuard

    exchange = Exchange("r", 0.0, 0.0, "", "", secure=True)
    guard = AuthenticationGuard([], "model", lambda _: None)
    assert guard.stage is Stage.AUTHENTICATE
    with pytest.raises(NotAuthenticated):
        guard.check(request_with(), exchange)


def test_principal_and_challenges_are_written(ask: Ask, token: Callable[..., str]) -> None:
    """A good credential writes the principal, and the schemes on offer with the used one first."""
    answer = ask({"Authorization": f"Bearer {token()}"})
    assert answer.principal.id == "jwt:https://issuer.example#alice"
    assert answer.exchange.challenges == ('Bearer realm="model"', 'ApiKey realm="model"')


def test_used_scheme_comes_first(ask: Ask) -> None:
    """The challenge of the scheme that was used stands before the others, and ApiKey has no error code."""
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
    """Whatever verify does, nothing but a Principal lets the request pass, and nothing becomes a 500."""
    answer = ask_with(Scripted(outcome))
    assert (answer.status, answer.reason, answer.principal) == (status, reason, None)


def test_unforeseen_error_is_logged(ask_with: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """The trace of an unforeseen error goes to the log."""
    ask_with(Scripted(TypeError("unhashable")))
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        pytest.param(NotAuthenticated("x"), 1, id="invalid"),
        pytest.param(KeyError("x"), 1, id="unforeseen"),
        pytest.param(DependencyUnavailable("x"), 0, id="dependency down"),
        pytest.param(Principal("t", "a"), 0, id="valid"),
    ],
)
def test_failures_are_counted(ask_with: Ask, failures: list[Exchange], outcome: object, counted: int) -> None:
    """Only an invalid credential counts against its sender."""
    ask_with(Scripted(outcome))
    assert len(failures) == counted


def test_missing_credential_is_not_counted(ask: Ask, failures: list[Exchange]) -> None:
    """A request without a credential guesses nothing."""
    ask({})
    assert failures == []


def test_one_body_for_every_reason(ask: Ask, token: Callable[..., str]) -> None:
    """The 401 of an expired, a forged and a missing credential cannot be told apart by the body."""
    headers = [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {token(lifetime=-99)}"},
        {"X-API-Key": "x"},
    ]
    assert len({ask(each).body for each in headers}) == 1


def test_scheme_offered_once(ask_with: Ask) -> None:
    """Two authenticators of one scheme make one challenge (RFC 6750 section 3)."""
    from flask_secure_ml.authentication.base import AuthenticationGuard

    guard = AuthenticationGuard([Scripted(None), Scripted(None)], "model", lambda _: None)
    assert guard._challenges() == ('Bearer realm="model"',)
