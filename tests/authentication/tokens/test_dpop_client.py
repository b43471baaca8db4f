"""The DPoP client of the documentation, and the effects of the DPoP settings."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flask_secure_ml.authentication.setup import _proofs
from flask_secure_ml.authentication.tokens.dpop import ProofChecker
from flask_secure_ml.authentication.tokens.nonces import Nonces
from flask_secure_ml.config import Settings
from flask_secure_ml.errors import InvalidProof, NonceRequired
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock, make_dpop_proof, make_signing_key
from proofs import NOW, TOKEN, Seen, request_of
from support import RANDOM_SECRET

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "dpop.rst"
CODE = re.compile(r"^\.\. code-block:: python\n   :class: client\n\n((?:(?:   .*)?\n)+)", re.MULTILINE)
ROOT = "https://localhost"
URI = ROOT + "/predict"


@pytest.fixture
def documented() -> dict[str, Any]:
    """Return the names that the client code of the page defines."""
    namespace: dict[str, Any] = {}
    for code in CODE.findall(PAGE.read_text()):
        exec(compile(textwrap.dedent(code), str(PAGE), "exec"), namespace)
    return namespace


class Server:
    """Responses like the app: the check of the proof, and its error and nonce in headers."""

    def __init__(self) -> None:
        clock = SystemClock()
        nonces = Nonces(SecretRing(Secret(RANDOM_SECRET)), clock)
        self.checker = ProofChecker(("ES256",), 60, clock, Seen(clock), nonces)
        self.requests = 0

    def post(self, uri: str, json: object, headers: dict[str, str]) -> SimpleNamespace:
        self.requests += 1
        exchange = Exchange("r", 0.0, 0.0, "", "", secure=True)
        try:
            self.checker.check(request_of(headers["DPoP"]), exchange, headers["Authorization"].removeprefix("DPoP "))
        except InvalidProof as error:
            challenge = {"WWW-Authenticate": f'DPoP error="{error.oauth_error}"'}
            return SimpleNamespace(status_code=401, headers=exchange.reply_headers | challenge)
        return SimpleNamespace(status_code=200, headers=exchange.reply_headers)


def test_documented_proof(documented: dict[str, Any], exchange: Exchange) -> None:
    """The proof that the page shows is good, for an address with a query too."""
    clock = FakeClock(time.time())
    checker = ProofChecker(("ES256",), 60, clock, Seen(clock))
    proof = documented["dpop_proof"]("POST", URI + "?a=b#c", TOKEN)
    assert checker.check(request_of(proof), exchange, TOKEN) == documented["key"].thumbprint()


def test_documented_client(documented: dict[str, Any]) -> None:
    """The client that the page shows gets in with its second request, which has the nonce."""
    server = Server()
    response = documented["post"](server, URI, TOKEN, {})
    assert (response.status_code, server.requests) == (200, 2)


def checker_of(**config: Any) -> ProofChecker:
    clock = FakeClock(NOW)
    issuer = {
        "issuer": "https://i.example",
        "audience": "a",
        "algorithms": ["RS256"],
        "jwks_uri": "https://i.example/j",
    }
    given = {"SECURE_ML_TOKEN_ISSUERS": [issuer], "SECURE_ML_DPOP": "accept", "SECURE_ML_RESOURCE_URI": ROOT, **config}
    return _proofs(Settings.load({"TESTING": True, **given}), clock, Seen(clock))


@pytest.mark.parametrize(
    ("config", "good", "bad"),
    [
        pytest.param({"SECURE_ML_DPOP_ALGORITHMS": ["Ed25519"]}, {"alg": "Ed25519"}, {"alg": "ES256"}, id="algorithms"),
        pytest.param({}, {"alg": "ES384"}, {"alg": "ES512"}, id="algorithms-default"),
        pytest.param({"SECURE_ML_DPOP_MAX_AGE": 10}, {"iat": NOW - 10}, {"iat": NOW - 11}, id="max-age"),
        pytest.param({}, {"iat": NOW - 60}, {"iat": NOW - 61}, id="max-age-default"),
        pytest.param(
            {"SECURE_ML_RESOURCE_URI": "https://models.example"},
            {"htu": "https://models.example/predict"},
            {"htu": URI},
            id="resource",
        ),
    ],
)
def test_setting(config: dict[str, Any], good: dict[str, Any], bad: dict[str, Any], exchange: Exchange) -> None:
    """Each setting decides which proof is good."""

    def check(changes: dict[str, Any]) -> str:
        key = make_signing_key(changes.pop("alg", "ES256"))
        return checker_of(**config).check(
            request_of(make_dpop_proof(key, TOKEN, now=NOW, claims=changes)), exchange, TOKEN
        )

    assert check(dict(good))
    with pytest.raises(InvalidProof):
        check(dict(bad))


def test_setting_nonce_secret(exchange: Exchange) -> None:
    """With a nonce secret, a proof without a nonce is rejected; without the secret no nonce is required."""
    request = request_of(make_dpop_proof(make_signing_key("ES256"), TOKEN, now=NOW))
    with pytest.raises(NonceRequired):
        checker_of(SECURE_ML_DPOP_NONCE_SECRET=RANDOM_SECRET).check(request, exchange, TOKEN)
    assert checker_of().check(request, exchange, TOKEN)
