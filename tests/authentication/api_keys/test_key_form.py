"""The format of API keys, and the stored hash."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import pytest

from flask_secure_ml.authentication.api_keys.key import NO_HASH, NOBODY, KeyHasher, has_form, hash_key, key_id, new_key
from flask_secure_ml.secrets import Secret, SecretRing
from support import OLDER_SECRET, RANDOM_SECRET


def test_form() -> None:
    """A key is sml_, 12 characters, _, 43 characters (at least 256 bits) and a checksum; no two are alike."""
    texts = {new_key() for _ in range(100)}
    assert len(texts) == 100
    assert all(len(text) == 66 and has_form(text) and key_id(text) == text[4:16] for text in texts)
    assert 62**43 > 2**256


def test_checksum_finds_every_typo() -> None:
    """A text with one wrong character is not a key."""
    key = new_key()
    assert {key_id(key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :]) for at in range(66)} == {None}


def test_scanners_find_a_key() -> None:
    """K2: the expression in the documentation finds a key in the middle of a log."""
    page = Path(__file__).parents[3] / "docs" / "howto" / "api_keys.rst"
    expressions = re.findall(r"``(sml_\[.*?)``", page.read_text())
    key = new_key()
    assert expressions
    assert all(re.findall(each, f'{{"key":"{key}"}} sml_not_a_key') == [key] for each in expressions)


def test_the_stand_in_is_no_key() -> None:
    """The replacement of a malformed key has the length of a key, but not its form."""
    assert (len(NOBODY), has_form(NOBODY), key_id(NOBODY)) == (66, False, None)
    assert len(hash_key(NOBODY, b"pepper")) == len(NO_HASH)


def test_only_a_keyed_hash() -> None:
    """K2: the stored value is the HMAC-SHA-256 of the whole key with the pepper."""
    expected = hmac.new(b"pepper", b"text", hashlib.sha256).hexdigest()
    assert hash_key("text", b"pepper") == f"hmac-sha256:{expected}"
    assert hash_key("text", b"another") != hash_key("text", b"pepper")


def test_hasher_agrees_with_hash_key_for_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash for each secret of the ring, newest first, for repeated calls."""
    monkeypatch.setenv("NEW", RANDOM_SECRET)
    monkeypatch.setenv("OLD", OLDER_SECRET)
    hasher = KeyHasher(SecretRing(Secret("env:NEW"), Secret("env:OLD")))
    for text in ("a", "b", "a"):
        assert hasher.hashes(text) == [hash_key(text, secret.encode()) for secret in (RANDOM_SECRET, OLDER_SECRET)]


def test_hasher_sees_a_changed_pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    """State derived from a pepper is dropped as soon as the pepper changes."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    hasher = KeyHasher(SecretRing(Secret("env:PEPPER")))
    hasher.hashes("a")
    monkeypatch.setenv("PEPPER", OLDER_SECRET)
    assert hasher.hashes("a") == [hash_key("a", OLDER_SECRET.encode())]
