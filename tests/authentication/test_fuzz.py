"""Whatever is sent as a credential, the response is 200, 400 or 401, and only the true token is 200."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.key_set import KeySetError, parse_key_set
from flask_secure_ml.config.issuers import ASYMMETRIC
from flask_secure_ml.testing import make_token, sign_parts

Ask = Callable[..., Any]
LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=60)
SCHEMES = st.sampled_from(["", "Bearer ", "bearer ", "ApiKey ", "Basic ", "Bearer", "DPoP ", "Bearer a, Bearer ", ","])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "zip", "cty", "jku", "x5c", "x"])
CLAIM_NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "client_id", "jti", "scope", "cnf", "x"])
KEY_MEMBERS = st.sampled_from(["kty", "n", "e", "x", "y", "d", "k", "crv", "alg", "use", "key_ops", "kid", "x5c", "zz"])
KEY_VALUES = JSON | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "AA", "", "sig", "enc"])
KNOWN = {200, 400, 401}


@given(scheme=SCHEMES, rest=LATIN_1, own=st.none() | LATIN_1)
def test_any_header(ask: Ask, scheme: str, rest: str, own: str | None) -> None:
    """No header value causes a 500 or is accepted."""
    headers = {"Authorization": scheme + rest} | ({} if own is None else {"X-API-Key": own})
    response = ask(headers)
    assert response.status in {400, 401, 503}  # 503: a well-formed key while there is no key file
    assert response.principal is None


@given(at=st.integers(0, 10_000), char=st.characters(min_codepoint=33, max_codepoint=126))
def test_any_change_of_a_token(ask: Ask, token: Callable[..., str], at: int, char: str) -> None:
    """A token with one other character is rejected."""
    text = token(claims={"jti": "fixed"})
    at %= len(text)
    changed = text[:at] + char + text[at + 1 :]
    response = ask({"Authorization": f"Bearer {changed}"})
    assert response.status in KNOWN
    assert (response.status == 200) is (changed == text)


@given(header=st.dictionaries(HEADER_NAMES, JSON, max_size=3), claims=st.dictionaries(CLAIM_NAMES, JSON, max_size=3))
def test_any_signed_token(
    ask: Ask, signing_keys: Mapping[str, Key], header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """A rightly signed token with members of any type is responded to, never a 500 and never logged as unforeseen."""
    text = make_token(
        signing_keys["Ed25519"],
        issuer="https://issuer.example",
        audience="https://api.example",
        now=1_800_000_000,
        header=header,
        claims=claims,
    )
    response = ask({"Authorization": f"Bearer {text}"})
    assert response.status in KNOWN
    assert " raised " not in response.reason


@given(
    header=st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()), payload=st.binary(max_size=80)
)
def test_any_signed_bytes(ask: Ask, signing_keys: Mapping[str, Key], header: bytes, payload: bytes) -> None:
    """So is a signature over any bytes."""
    response = ask({"Authorization": f"Bearer {sign_parts(signing_keys['Ed25519'], header, payload)}"})
    assert response.status in {400, 401}
    assert " raised " not in response.reason


@given(document=st.binary(max_size=80) | st.one_of(JSON, st.fixed_dictionaries({"keys": JSON})).map(json.dumps))
def test_any_key_set(document: bytes | str) -> None:
    """A document that an issuer publishes gives keys or is rejected, whatever is in it."""
    raw = document if isinstance(document, bytes) else document.encode()
    try:
        parse_key_set(raw, sorted(ASYMMETRIC))
    except KeySetError:
        return


@given(
    base=st.sampled_from(["RS256", "ES256", "Ed25519"]),
    changes=st.dictionaries(KEY_MEMBERS, KEY_VALUES, min_size=1, max_size=3),
)
def test_any_change_of_a_key(signing_keys: Mapping[str, Key], base: str, changes: dict[str, Any]) -> None:
    """A key with changed members is used, ignored or rejected, without other errors."""
    published = dict(signing_keys[base].as_dict(private=False)) | changes
    try:
        found = parse_key_set(json.dumps({"keys": [published]}).encode(), sorted(ASYMMETRIC))
    except KeySetError:
        return
    assert len(found) <= 1
