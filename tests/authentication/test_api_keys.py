"""API keys: their form, the answer to each way of being wrong, and what is stored."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_secure_ml.authentication import api_keys as module
from flask_secure_ml.authentication.api_keys import FileKeyStore, hash_key, issue_key, key_id, new_key
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.secrets import Secret
from flask_secure_ml.testing import FakeClock, make_api_key

Ask = Callable[..., Any]
SECRET_START = len("sml_") + 12 + 1


@pytest.fixture
def key(store: FileKeyStore, pepper: Secret, clock: FakeClock) -> str:
    return make_api_key(store, pepper, clock, client="ada", scopes=["predict", "metrics"], plan="gold")


def with_checksum(body: str) -> str:
    return body + module._checksum(body)


def test_form() -> None:
    """A key is sml_, 12 characters, _, 43 characters (at least 256 bits) and a checksum; no two are alike."""
    texts = {new_key() for _ in range(100)}
    assert len(texts) == 100
    assert all(len(text) == 66 and key_id(text) == text[4:16] for text in texts)
    assert 62**43 > 2**256


def test_checksum_finds_every_typo(key: str) -> None:
    """A text with one wrong character is not in the form of a key."""
    assert {key_id(key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :]) for at in range(66)} == {None}


def test_principal_of_a_key(ask: Ask, key: str) -> None:
    """The record says who calls, with which scopes and on which plan."""
    principal = ask({"X-API-Key": key}).principal
    assert principal.id == f"api_key:{key[4:16]}"
    assert (principal.client_id, principal.plan) == ("ada", "gold")
    assert principal.scopes == {"predict", "metrics"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.swapcase(), id="case"),
        pytest.param(lambda text: text + " ", id="trailing space"),
        pytest.param(lambda text: text + "\n", id="trailing newline"),
        pytest.param(lambda text: text + "\x00", id="nul"),
        pytest.param(lambda text: text[:-1], id="cut"),
        pytest.param(lambda text: text + "a", id="longer"),
        pytest.param(lambda text: text * 1000, id="very long"),
        pytest.param(lambda text: text.replace("s", "\u017f", 1), id="folds to the same letter"),
        pytest.param(lambda text: "".join(chr(ord(c) + 0xFEE0) for c in text), id="full width"),
        pytest.param(lambda text: text[4:], id="no prefix"),
        pytest.param(lambda text: "sml_" + "0" * 12, id="id only"),
        pytest.param(lambda text: with_checksum(text[:SECRET_START] + "0" * 43), id="wrong secret"),
        pytest.param(lambda text: with_checksum("sml_" + "0" * 12 + text[16:-6]), id="unknown id"),
    ],
)
def test_wrong_key(ask: Ask, key: str, change: Callable[[str], str]) -> None:
    """K1, K6: a key is right in every character or refused, with one answer for all."""
    changed = change(key)
    assert changed != key
    answer = ask({"X-API-Key": changed})
    assert (answer.status, answer.challenges) == (401, ('ApiKey realm="model"', 'Bearer realm="model"'))


def test_disabled_expired_and_unknown_look_alike(
    ask: Ask, store: FileKeyStore, pepper: Secret, clock: FakeClock
) -> None:
    """K3: status, body and challenges are the same; only the private reason differs."""
    revoked, expired = (make_api_key(store, pepper, clock, lifetime=lifetime) for lifetime in (None, 10))
    store.revoke(revoked[4:16])
    clock.advance(10)
    answers = [ask({"X-API-Key": text}) for text in (revoked, expired, new_key(), "x")]
    assert len({(each.status, each.body, each.challenges) for each in answers}) == 1
    assert len({each.reason for each in answers}) == 4


def test_expires_on_the_second(ask: Ask, store: FileKeyStore, pepper: Secret, clock: FakeClock) -> None:
    """A key works up to its last second and not after."""
    text = make_api_key(store, pepper, clock, lifetime=10)
    clock.advance(9)
    assert ask({"X-API-Key": text}).status == 200
    clock.advance(1)
    assert ask({"X-API-Key": text}).status == 401


@pytest.mark.parametrize("presented", [new_key(), "x", "", "x" * 100_000], ids=["unknown", "short", "empty", "huge"])
def test_every_failure_compares_digests(
    api_keys: Any, exchange: Any, store: FileKeyStore, key: str, presented: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1: an unknown id costs the same comparison over digests of the same length as a wrong secret."""
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    with pytest.raises(NotAuthenticated):
        api_keys.verify(presented, exchange)
    assert compared == [(76, 76)]


def test_only_a_keyed_hash_is_stored(store: FileKeyStore, key: str, pepper: Secret) -> None:
    """K2: the file holds neither the key nor its secret, and the hash depends on the pepper."""
    content = store.path.read_text()
    assert key not in content
    assert key[SECRET_START:] not in content
    assert hash_key(key, pepper.read()) in content
    assert hash_key(key, b"another pepper") != hash_key(key, pepper.read())


def test_hash_of_another_key_does_not_fit(ask: Ask, store: FileKeyStore, key: str) -> None:
    """K5: the id of one record with the hash of another admits nobody."""
    record = store.list()[0]
    store.replace(replace(record, hash="hmac-sha256:" + "0" * 64))
    assert ask({"X-API-Key": key}).status == 401


def test_missing_pepper_is_503(ask: Ask, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pepper no key can be told from another."""
    monkeypatch.delenv("TEST_PEPPER")
    answer = ask({"X-API-Key": key})
    assert (answer.status, answer.retry_after) == (503, "60")


@pytest.mark.parametrize("client", ["", " ", "a\nb", "a\x1b[0m", "x" * 201])
def test_client_name_is_printable(store: FileKeyStore, pepper: Secret, client: str) -> None:
    """A client name that could forge a line of a log or a table is refused."""
    with pytest.raises(ValueError, match="client name"):
        issue_key(store, pepper, client=client, scopes=[], now=0)


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "\u00e9", "a\n"])
def test_scope_is_a_scope_token(store: FileKeyStore, pepper: Secret, scope: str) -> None:
    """A scope that RFC 6749 section 3.3 does not allow is refused."""
    with pytest.raises(ValueError, match="scope"):
        issue_key(store, pepper, client="ada", scopes=[scope], now=0)
