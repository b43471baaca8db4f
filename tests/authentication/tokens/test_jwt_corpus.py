"""Every case of ``tests/corpus/jwt``: a lie in a token that is rightly signed, or in the header that carries it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.secrets import SecretRing
from flask_secure_ml.testing import FakeClock, make_token, sign_parts
from stored_keys import stored_key

CORPUS = Path(__file__).parents[2] / "corpus" / "jwt"
Case = dict[str, Any]


def cases(*, transport: bool) -> list[Any]:
    found: list[Any] = []
    for path in sorted(CORPUS.glob("*.json")):
        if (path.stem == "transport") is transport:
            found += [pytest.param(case, id=case["id"]) for case in json.loads(path.read_text())]
    return found


def build(case: Case, key: Key, now: float) -> str:
    dropped = dict.fromkeys(case.get("drop_header", []), ...), dict.fromkeys(case.get("drop", []), ...)
    text = make_token(
        key,
        issuer="https://issuer.example",
        audience="https://api.example",
        now=now,
        header={**case.get("header", {}), **dropped[0]},
        claims={**case.get("claims", {}), **dropped[1]},
    )
    if "header_text" in case or "payload_text" in case:
        text = build_from_text(case, key)
    if "signature" in case:
        text = text.rpartition(".")[0] + "." + case["signature"]
    return text


def build_from_text(case: Case, key: Key) -> str:
    encoding = case.get("encoding", "utf-8")
    usual = {"alg": key.alg, "typ": "at+jwt", "kid": key.kid}
    payload = {"iss": "https://issuer.example", "aud": "https://api.example", "sub": "a", "client_id": "c", "jti": "1"}
    times = {"iat": 1_800_000_000, "exp": 1_800_000_300}
    header = case["header_text"].encode(encoding) if "header_text" in case else json.dumps(usual).encode()
    body = case["payload_text"].encode(encoding) if "payload_text" in case else json.dumps(payload | times).encode()
    return sign_parts(key, header, body)


@pytest.mark.parametrize("case", cases(transport=False))
def test_at_8_only_a_right_token_is_let_in(
    case: Case, ask: Callable[..., Any], signing_keys: Mapping[str, Key], clock: FakeClock
) -> None:
    """A token is accepted only when form, signature and every claim are right; else 401 invalid_token."""
    text = build(case, signing_keys[case.get("sign", "RS256")], clock.now())
    response = ask({"Authorization": f"Bearer {text}"})
    assert response.status == case.get("status", 401), response.reason
    if response.status == 200:
        assert sorted(response.principal.scopes) == case.get("scopes", ["predict"])
    else:
        assert response.principal is None
        assert " raised " not in response.reason  # rejected for what it is, not by an error of ours
        assert response.challenges == ('Bearer realm="model", error="invalid_token"', 'ApiKey realm="model"')


@pytest.mark.parametrize("case", cases(transport=True))
def test_transport(
    case: Case,
    ask: Callable[..., Any],
    token: Callable[..., str],
    store: FileKeyStore,
    pepper: SecretRing,
    clock: FakeClock,
) -> None:
    """Exactly one credential, in a header, in the syntax of its scheme; the challenge has the error."""
    key = stored_key(store, pepper, clock)
    filled = {name: fill(value, token(), key) for name, value in case["headers"].items()}
    response = ask(filled, url=fill(case.get("url", "/"), token(), key))
    assert response.status == case["status"], response.reason
    if response.status != 200:
        wanted = f', error="{case["error"]}"' if case["error"] else ""
        assert response.challenges == (f'Bearer realm="model"{wanted}', 'ApiKey realm="model"')


def fill(text: str, token: str, key: str) -> str:
    return text.replace("{token}", token).replace("{key}", key)
