"""Which published keys may verify a token."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.key_set import _ROCA_PRIMES, KeySetError, check_rsa, parse_key_set
from flask_secure_ml.config.issuers import ASYMMETRIC

ALL = sorted(ASYMMETRIC)


def b64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


@pytest.fixture
def rsa(signing_keys: Mapping[str, Key]) -> dict[str, Any]:
    return {**signing_keys["RS256"].as_dict(private=False), "kid": "rsa"}


@pytest.fixture
def ec(signing_keys: Mapping[str, Key]) -> dict[str, Any]:
    return {**signing_keys["ES256"].as_dict(private=False), "kid": "ec"}


def roca_modulus() -> int:
    """A modulus of the form that the faulty library made: a power of 65537 modulo every small prime."""
    product = 2
    for prime in _ROCA_PRIMES:
        product *= prime
    residue = pow(65_537, 1_234, product)
    return residue + product * ((1 << 2047) // product + 1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"use": "enc"}, id="use enc"),
        pytest.param({"use": "other"}, id="use unknown"),
        pytest.param({"use": None}, id="use null"),
        pytest.param({"key_ops": ["encrypt"]}, id="key_ops without verify"),
        pytest.param({"key_ops": []}, id="key_ops empty"),
        pytest.param({"key_ops": "verify"}, id="key_ops text"),
        pytest.param({"d": "AQAB"}, id="private"),
        pytest.param({"k": "AQAB"}, id="with a secret"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="oct"),
        pytest.param({"kty": "oct"}, id="oct without k"),
        pytest.param({"kty": "EC"}, id="kty of another type"),
        pytest.param({"kty": None}, id="kty null"),
        pytest.param({"kty": []}, id="kty list"),
        pytest.param({"alg": "HS256"}, id="alg hmac"),
        pytest.param({"alg": "ES256"}, id="alg of another type"),
        pytest.param({"alg": "none"}, id="alg none"),
        pytest.param({"alg": 1}, id="alg int"),
        pytest.param({"kid": 1}, id="kid int"),
        pytest.param({"kid": ""}, id="kid empty"),
        pytest.param({"kid": "k" * 257}, id="kid long"),
        pytest.param({"n": b64((1 << 1023) + 1)}, id="RSA-1024"),
        pytest.param({"n": b64((1 << 2046) + 1)}, id="RSA-2047"),
        pytest.param({"n": b64((1 << 8192) + 1)}, id="RSA-8193"),
        pytest.param({"n": b64(roca_modulus())}, id="ROCA"),
        pytest.param({"n": ""}, id="n empty"),
        pytest.param({"n": 5}, id="n int"),
        pytest.param({"e": b64(1)}, id="e = 1"),
        pytest.param({"e": b64(3)}, id="e = 3"),
        pytest.param({"e": b64(65_536)}, id="e even and small"),
        pytest.param({"e": b64(65_538)}, id="e even"),
        pytest.param({"e": None}, id="e null"),
    ],
)
def test_a8_j3_as_5_unsound_key_is_left_out(rsa: dict[str, Any], ec: dict[str, Any], change: dict[str, Any]) -> None:
    """A8, J3, AS-5: an invalid key is ignored, a valid one in the same set is used."""
    found = parse_key_set(raw_set({**rsa, **change}, ec), ALL)
    assert len(found) == 1
    assert found.find("ec", "ES256") is not None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"crv": "P-384"}, id="crv of another size"),
        pytest.param({"crv": "secp256k1"}, id="crv not allowed"),
        pytest.param({"x": "AA"}, id="not on the curve"),
        pytest.param({"y": "!"}, id="not base64"),
        pytest.param({"alg": "ES384"}, id="alg of another curve"),
    ],
)
def test_a8_jb_7_unsound_curve_is_left_out(rsa: dict[str, Any], ec: dict[str, Any], change: dict[str, Any]) -> None:
    """JB-7, A8: a point that is not on the curve, or a curve of another algorithm, is not a valid key."""
    assert len(parse_key_set(raw_set(rsa, {**ec, **change}), ALL)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys": {}}', id="keys object"),
        pytest.param(b'{"keys": [], "keys": []}', id="duplicate member"),
        pytest.param(raw_set(*[{"x": "y" * 1000}] * 260), id="more than 256 KiB"),
        pytest.param(raw_set({"kid": "a"}, {"kid": "a"}), id="kid twice"),
        pytest.param(raw_set({"kid": "a", "kty": "RSA"}, {"kid": "a", "kty": "RSA"}), id="kid twice for one type"),
        pytest.param(raw_set({"kid": "a", "kty": []}, {"kid": "a", "kty": []}), id="kid twice for no type"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_as_5_doubtful_set_is_rejected(raw: bytes) -> None:
    """AS-5: a document that is not a sound set rejects all of it."""
    with pytest.raises(KeySetError):
        parse_key_set(raw, ALL)


def test_encryption_key_may_share_a_kid(rsa: dict[str, Any]) -> None:
    """A key for encryption is ignored here, so its kid does not collide."""
    assert len(parse_key_set(raw_set({**rsa, "use": "enc"}, rsa), ALL)) == 1


def test_as_5_kid_of_two_types(rsa: dict[str, Any], ec: dict[str, Any]) -> None:
    """AS-5: keys of two types may share a kid (RFC 7517 section 4.5); each verifies its own algorithm."""
    found = parse_key_set(raw_set({**rsa, "kid": "one"}, {**ec, "kid": "one"}), ALL)
    assert [str(getattr(found.find("one", name), "algorithm", None)) for name in ("RS256", "ES256")] == [
        "RS256",
        "ES256",
    ]
    assert found.find("one", "PS256") is None
    assert found.has("one")


def test_more_than_fifty_keys(ec: dict[str, Any]) -> None:
    """The size of a set is limited, not the number of its keys."""
    found = parse_key_set(raw_set(*({**ec, "kid": str(number)} for number in range(300))), ALL)
    assert len(found) == 300
    assert found.find("299", "ES256") is not None


def test_entries_that_are_no_objects(rsa: dict[str, Any]) -> None:
    """Entries that are not objects are ignored."""
    assert len(parse_key_set(raw_set(1, None, [], "x", rsa), ALL)) == 1


def test_jb_3_key_without_alg_has_one_algorithm(rsa: dict[str, Any]) -> None:
    """JB-3: a key that names no algorithm verifies the first that the issuer may use, and no other."""
    del rsa["alg"]
    found = parse_key_set(raw_set(rsa), ["ES256", "PS256", "RS256"])
    assert found.find("rsa", "PS256") is not None
    assert found.find("rsa", "RS256") is None


def test_jb_1_key_for_an_algorithm_that_is_not_allowed(rsa: dict[str, Any]) -> None:
    """JB-1: the allowed algorithms are those of the options, not those published."""
    assert len(parse_key_set(raw_set(rsa), ["ES256"])) == 0


def test_only_what_makes_a_key_is_imported(rsa: dict[str, Any]) -> None:
    """Certificates and addresses in a key have no effect."""
    found = parse_key_set(raw_set({**rsa, "x5c": [1], "x5u": 5, "oops": {}}), ALL).find("rsa", "RS256")
    assert found is not None
    assert set(found.key.as_dict()) == {"kty", "n", "e"}


def test_nameless_key_alone(rsa: dict[str, Any], ec: dict[str, Any]) -> None:
    """A key without a kid counts only where it is the only one."""
    del rsa["kid"]
    assert parse_key_set(raw_set(rsa), ALL).find(None, "RS256") is not None
    assert parse_key_set(raw_set(rsa), ALL).find("x", "RS256") is None
    assert parse_key_set(raw_set(rsa, ec), ALL).find(None, "RS256") is None


def test_ordinary_moduli_pass(signing_keys: Mapping[str, Key]) -> None:
    """The check for ROCA does not take a sound key for a weak one."""
    for name in ("RS256", "RS384", "PS256"):
        key: Any = signing_keys[name].public_key
        check_rsa(key.public_numbers().n, key.public_numbers().e)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"alg": "RS384", "n": b64((1 << 1023) + 1)}, id="A8 weak, of another algorithm"),
        pytest.param({"d": "AQAB"}, id="A8 private"),
        pytest.param({"kty": "oct", "k": "AAAA"}, id="A8 symmetric"),
        pytest.param({"alg": "HS256"}, id="A8 alg of another family"),
        pytest.param({"use": "other"}, id="A8 use unknown"),
        pytest.param({"n": b64(roca_modulus())}, id="A8 ROCA"),
        pytest.param({"kid": 1}, id="A8 kid int"),
    ],
)
def test_strict(rsa: dict[str, Any], ec: dict[str, Any], change: dict[str, Any]) -> None:
    """A8: in a configured set, an unusable key rejects the set; the error of each is reported by its number."""
    with pytest.raises(KeySetError) as caught:
        parse_key_set(
            raw_set(ec, {**rsa, **change}, {**ec, "kid": "p", "crv": "P-384"}), ["ES256", "RS256"], strict=True
        )
    assert "signing key 2 cannot be used: " in str(caught.value)
    assert "signing key 3 cannot be used: " in str(caught.value)


def test_strict_with_sound_keys(rsa: dict[str, Any], ec: dict[str, Any]) -> None:
    """Keys for encryption and for unused algorithms are not an error."""
    found = parse_key_set(raw_set({**rsa, "use": "enc", "n": "AA"}, rsa, ec), ["ES256"], strict=True)
    assert len(found) == 1


def test_hmac_is_for_no_published_key(rsa: dict[str, Any]) -> None:
    """JB-8: a public key is none for HMAC, also where the list of algorithms has it by mistake."""
    del rsa["alg"]
    assert len(parse_key_set(raw_set(rsa), ["HS256"])) == 0
