"""Every case of ``tests/corpus/dpop``: one thing that is wrong with a DPoP proof, or right although it looks odd."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.dpop import ProofChecker
from flask_secure_ml.authentication.tokens.nonces import Nonces
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock, make_dpop_proof, sign_parts
from proofs import NOW, TOKEN, Seen, request_of
from support import OLDER_SECRET, RANDOM_SECRET

CORPUS = Path(__file__).parents[2] / "corpus" / "dpop"
ALGORITHMS = ("ES256", "ES384", "PS256", "RS256", "Ed25519", "EdDSA")
Case = dict[str, Any]


def cases() -> list[Any]:
    found = [case for path in sorted(CORPUS.glob("*.json")) for case in json.loads(path.read_text())]
    return [pytest.param(case, id=case["id"]) for case in found]


def nonces(secret: str = RANDOM_SECRET, seconds: float = 0) -> Nonces:
    return Nonces(SecretRing(Secret(secret)), FakeClock(NOW + seconds))


NONCES: Mapping[str, Callable[[], Nonces]] = {
    "current": nonces,
    "previous": lambda: nonces(seconds=-300),
    "older": lambda: nonces(seconds=-600),
    "next": lambda: nonces(seconds=300),
    "foreign": lambda: nonces(OLDER_SECRET),
}


def jwk_of(case: Case, key: Key) -> dict[str, Any]:
    members = {**key.as_dict(private=case.get("private", False)), **case.get("jwk", {})}
    return {name: value for name, value in members.items() if name not in case.get("drop_jwk", [])}


def proof_of(case: Case, key: Key, **more: Any) -> str:
    header = {"jwk": jwk_of(case, key), **case.get("header", {}), **dict.fromkeys(case.get("drop_header", []), ...)}
    claims = {**case.get("claims", {}), **dict.fromkeys(case.get("drop", []), ...), **more}
    nonce = NONCES[case["nonce"]]().current() if "nonce" in case else None
    return make_dpop_proof(key, TOKEN, now=NOW, nonce=nonce, header=header, claims=claims)


def build(case: Case, key: Key) -> str | None:
    """Return the value of the header ``DPoP``."""
    proof = proof_of(case, key)
    if "header_text" in case or "payload_text" in case:
        header, payload = ({"alg": key.alg, "typ": "dpop+jwt", "jwk": jwk_of(case, key)}, {"jti": "1"})
        encoding = case.get("encoding", "utf-8")
        proof = sign_parts(
            key,
            case.get("header_text", json.dumps(header)).encode(encoding if "header_text" in case else "utf-8"),
            case.get("payload_text", json.dumps(payload)).encode(encoding),
        )
    if "text" not in case:
        return proof
    return None if case["text"] is None else filled(case, key, proof)


def filled(case: Case, key: Key, proof: str) -> str:
    other = proof_of(case, key, jti="another").split(".")
    names = dict(zip(("header", "payload", "signature"), proof.split("."), strict=True))
    names |= {"proof": proof, "other": other[2], "other_payload": other[1], "pad": "A" * case.get("pad", 0)}
    return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], str(case["text"]))


@pytest.mark.parametrize("case", cases())
def test_proof(case: Case, signing_keys: Mapping[str, Key], exchange: Exchange) -> None:
    """A proof is good only when form, key, signature, every claim and the nonce are; else 401 with its code."""
    key, wanted, clock = signing_keys[case.get("sign", "ES256")], case.get("request", {}), FakeClock(NOW)
    store, wants = Seen(clock), nonces() if case.get("nonces") else None
    checker = ProofChecker(ALGORITHMS, 60, clock, store, wants, external=wanted.get("external"))
    request = request_of(build(case, key), wanted)
    if case["oauth_error"] is None:
        assert checker.check(request, exchange, TOKEN) == key.thumbprint()
        return
    with pytest.raises(NotAuthenticated) as caught:
        checker.check(request, exchange, wanted.get("token", TOKEN))
    assert caught.value.oauth_error == case["oauth_error"]
    assert case["reason"] in caught.value.reason
    assert store.calls == []  # what is rejected takes no place in the store


def test_every_case_has_its_own_name() -> None:
    """A case that is there twice would hide one of the two."""
    names = [each.id for each in cases()]
    assert len(set(names)) == len(names) > 150
