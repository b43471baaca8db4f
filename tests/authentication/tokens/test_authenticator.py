"""Schemes, verifiers and bindings: who may use a valid token."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flask_secure_ml.authentication.guard import AuthenticationGuard
from flask_secure_ml.authentication.throttle import Calls
from flask_secure_ml.authentication.tokens.authenticator import (
    AccessTokens,
    BearerAuthenticator,
    DPoPAuthenticator,
    VerifiedToken,
)
from flask_secure_ml.errors import InvalidProof, NotAuthenticated, SecureMLError
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.principal import Principal

CERTIFICATE = b"the certificate of this connection"
X5T = urlsafe_b64encode(hashlib.sha256(CERTIFICATE).digest()).rstrip(b"=").decode()
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
ALICE = Principal("jwt", "alice", "https://issuer.example")


class Verifier:
    """Knows tokens by their first letter; each is valid, with the binding that it was given."""

    def __init__(self, letter: str, confirmation: Any = None) -> None:
        self.letter = letter
        self.confirmation = confirmation
        self.seen: list[str] = []

    def accepts(self, token: str) -> bool:
        return token.startswith(self.letter)

    def verify(self, token: str, calls: Calls) -> VerifiedToken:
        self.seen.append(token)
        if token.endswith("bad"):
            raise NotAuthenticated("a bad token")
        return VerifiedToken(ALICE, confirmation=self.confirmation)


class Proofs:
    """Finds one key behind every proof but a wrong one."""

    def __init__(self) -> None:
        self.checked = 0

    def check(self, request: Request, exchange: Exchange, token: str, accept: object = None) -> str:
        self.checked += 1
        if request.environ.get("HTTP_DPOP") == "wrong":
            raise InvalidProof("a wrong proof")
        return JKT


Outcome = tuple[int, str]


@pytest.fixture
def outcome(make_guard: Callable[..., AuthenticationGuard], request_with: Callable[..., Request]) -> Callable[..., Any]:
    """Return status and first challenge for a header and a verifier."""

    def run(header: str, verifier: Verifier, certificate: bytes | None = None, proof: str = "good") -> Outcome:
        tokens = AccessTokens([verifier])
        guard = make_guard(BearerAuthenticator(tokens), DPoPAuthenticator(tokens, Proofs()))
        exchange = Exchange("r", 0.0, 0.0, "", "", secure=True, certificate=certificate)
        try:
            guard.check(request_with({"Authorization": header, "DPoP": proof}), exchange)
        except SecureMLError as error:
            return error.code or 0, dict(reversed(error.extra_headers))["WWW-Authenticate"]
        return 200, ""

    return run


FORM = "application/x-www-form-urlencoded"
BEARER, DPOP = 'Bearer realm="model"', 'DPoP realm="model"'
INVALID = ', error="invalid_token"'


@pytest.mark.parametrize(
    ("header", "confirmation", "certificate", "expected"),
    [
        pytest.param("Bearer t", None, None, (200, ""), id="unbound as Bearer"),
        pytest.param("DPoP t", {"jkt": JKT}, None, (200, ""), id="bound to the key of the proof"),
        pytest.param("Bearer t", {"x5t#S256": X5T}, CERTIFICATE, (200, ""), id="MT-1 bound to this certificate"),
        pytest.param("DPoP t", {"jkt": JKT, "x5t#S256": X5T}, CERTIFICATE, (200, ""), id="bound to both"),
        pytest.param("Bearer t", {"jkt": JKT}, None, (401, BEARER + INVALID), id="DP-11 C11 key-bound as Bearer"),
        pytest.param("Bearer t", {"x5t#S256": X5T}, None, (401, BEARER + INVALID), id="MT-1 C11 no certificate"),
        pytest.param("Bearer t", {"x5t#S256": X5T}, b"another", (401, BEARER + INVALID), id="MT-1 another certificate"),
        pytest.param("DPoP t", None, None, (401, DPOP + INVALID), id="DP-12 unbound as DPoP"),
        pytest.param("DPoP t", {"jkt": "another"}, None, (401, DPOP + INVALID), id="DP-10 another key"),
        pytest.param("DPoP t", {"x5t#S256": X5T}, CERTIFICATE, (401, DPOP + INVALID), id="DP-12 only the certificate"),
        pytest.param("Bearer t", {"other": "x"}, CERTIFICATE, (401, BEARER + INVALID), id="MT-5 C11 unknown member"),
        pytest.param("Bearer t", {}, CERTIFICATE, (401, BEARER + INVALID), id="MT-5 empty binding"),
        pytest.param("Bearer t", "text", CERTIFICATE, (401, BEARER + INVALID), id="MT-5 binding that is a text"),
        pytest.param("Bearer t-bad", None, None, (401, BEARER + INVALID), id="BT-4 invalid as Bearer"),
        pytest.param("DPoP t-bad", None, None, (401, DPOP + INVALID), id="DP-15 invalid as DPoP"),
        pytest.param("Bearer unknown", None, None, (401, BEARER + INVALID), id="no verifier knows it"),
        pytest.param("Bearer t t", None, None, (400, BEARER + ', error="invalid_request"'), id="T2 two words"),
        pytest.param("DPoP", None, None, (400, BEARER + ', error="invalid_request"'), id="T2 scheme alone"),
        pytest.param("DPoP {t}", None, None, (400, BEARER + ', error="invalid_request"'), id="BT-1 not a token"),
    ],
)
def test_bindings(
    outcome: Callable[..., Outcome], header: str, confirmation: Any, certificate: bytes | None, expected: Outcome
) -> None:
    """A bound token requires its proof or certificate, and the matching scheme."""
    assert outcome(header, Verifier("t", confirmation), certificate) == expected


def test_wrong_proof(outcome: Callable[..., Outcome]) -> None:
    """DP-14: the error of a proof is not that of a token."""
    expected = (401, f'{DPOP}, error="invalid_dpop_proof"')
    assert outcome("DPoP t", Verifier("t", {"jkt": JKT}), proof="wrong") == expected


def test_proof_of_an_invalid_token_is_not_looked_at(exchange: Exchange, request_with: Callable[..., Request]) -> None:
    """A caller without a valid token cannot make this server store proofs."""
    proofs = Proofs()
    dpop = DPoPAuthenticator(AccessTokens([Verifier("t")]), proofs)
    found = dpop.find(request_with({"Authorization": "DPoP t-bad"}), exchange)
    assert found is not None
    with pytest.raises(NotAuthenticated):
        dpop.verify(found, exchange)
    assert proofs.checked == 0


def test_proof_by_another_key_is_rejected_before_it_is_stored(
    exchange: Exchange, request_with: Callable[..., Request]
) -> None:
    """The proof must be signed by the key to which the token is bound, not by any key."""

    class Storing(Proofs):
        stored = 0

        def check(self, request: Request, exchange: Exchange, token: str, accept: Any = None) -> str:
            accept(JKT)
            self.stored += 1
            return JKT

    proofs = Storing()
    for bound in ({"jkt": "another"}, {}, None):
        dpop = DPoPAuthenticator(AccessTokens([Verifier("t", bound)]), proofs)
        found = dpop.find(request_with({"Authorization": "DPoP t"}), exchange)
        assert found is not None
        with pytest.raises(NotAuthenticated):
            dpop.verify(found, exchange)
    assert proofs.stored == 0


@pytest.mark.parametrize(
    "request_options",
    [
        pytest.param({"data": "access_token=t", "content_type": FORM}, id="BT-10 form"),
        pytest.param({"headers": {"Cookie": "access_token=t; Authorization=Bearer t"}}, id="BT-13 cookie"),
        pytest.param({"query_string": {"access_token": "t"}}, id="BT-9 query"),
    ],
)
def test_tokens_elsewhere_are_no_credentials(
    make_guard: Callable[..., AuthenticationGuard], exchange: Exchange, request_options: dict[str, Any]
) -> None:
    """A token is read from the Authorization header only; elsewhere it is ignored without an error."""
    verifier = Verifier("t")
    guard = make_guard(BearerAuthenticator(AccessTokens([verifier])))
    request = Request(EnvironBuilder(method="POST", **request_options).get_environ())
    with pytest.raises(NotAuthenticated, match="401") as caught:
        guard.check(request, exchange)
    assert caught.value.extra_headers == (("WWW-Authenticate", BEARER),)
    assert verifier.seen == []


def test_first_verifier_that_knows_the_form_decides() -> None:
    """A token that one verifier rejects is not tried with another."""
    particular, general = Verifier("ey"), Verifier("")
    tokens = AccessTokens([particular, general])
    with pytest.raises(NotAuthenticated):
        tokens.verify("ey-bad")
    assert general.seen == []
    tokens.verify("opaque")
    assert particular.seen == ["ey-bad"]
    assert general.seen == ["opaque"]
