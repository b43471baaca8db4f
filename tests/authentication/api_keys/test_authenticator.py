"""API key authentication: valid keys are accepted; all others get the same response after the same work."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.authentication.api_keys import authenticator as module
from flask_secure_ml.authentication.api_keys import key as key_form
from flask_secure_ml.authentication.api_keys.authenticator import ApiKeyAuthenticator
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import KeyHasher, checksum, hash_key, new_key
from flask_secure_ml.authentication.api_keys.lifecycle import disable_key, rotate_key
from flask_secure_ml.errors import DependencyUnavailable, NotAuthenticated, UnusableCredential
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock
from stored_keys import stored_key
from support import OLDER_SECRET, RANDOM_SECRET

Ask = Callable[..., Any]
CORPUS = Path(__file__).parents[2] / "corpus" / "api_keys"
SECRET_START = len("sml_") + 12 + 1


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in json.loads((CORPUS / name).read_text())]


def fill(text: str, key: str) -> str:
    parts = {
        "key": key,
        "id": key[4:16],
        "secret": key[SECRET_START:-6],
        "checksum": key[-6:],
        "swapped": key.swapcase(),
        "upper": key.upper(),
        "key_without_s": key[1:],
        "key_without_last": key[:-1],
        "full_width": "".join(chr(ord(char) + 0xFEE0) for char in key),
        "hash": hash_key(key, RANDOM_SECRET.encode()),
        "base64": base64.b64encode(key.encode()).decode(),
        "basic": base64.b64encode(f"{key}:".encode()).decode(),
    }
    for name, value in parts.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@pytest.fixture
def key(store: FileKeyStore, pepper: SecretRing, clock: FakeClock) -> str:
    return stored_key(store, pepper, clock, client="ada", scopes=["predict", "metrics"], plan="gold")


@pytest.fixture
def unusable(store: FileKeyStore, pepper: SecretRing, clock: FakeClock, key: str) -> dict[str, str]:
    """A text of each kind that is rejected."""
    made = {name: stored_key(store, pepper, clock) for name in ("revoked", "disabled", "rotated")}
    made["expired"] = stored_key(store, pepper, clock, lifetime=0)
    store.revoke(made["revoked"][4:16])
    disable_key(store, made["disabled"][4:16])
    rotate_key(store, pepper, made["rotated"][4:16], now=clock.now(), overlap=0)
    body = key[:SECRET_START] + "0" * 43
    return made | {
        "wrong secret": body + checksum(body),
        "wrong checksum": key[:-6] + "000000",
        "unknown id": new_key(),
        "short": "x",
        "huge": "x" * 100_000,
        "not ASCII": "\u017f" + key[1:],
        "lone surrogate": key[:-1] + "\ud800",
    }


def test_principal_of_a_key(ask: Ask, store: FileKeyStore, key: str, clock: FakeClock) -> None:
    """The principal has the client, scopes, plan and creation time of the record."""
    principal = ask({"X-API-Key": key}).principal
    assert principal.id == f"api_key:{key[4:16]}"
    assert (principal.client_id, principal.plan) == ("ada", "gold")
    assert principal.scopes == {"predict", "metrics"}
    assert (principal.endpoints, principal.token_id, principal.issued) == (None, "", clock.now())


def test_endpoints_of_a_key(ask: Ask, store: FileKeyStore, pepper: SecretRing, clock: FakeClock) -> None:
    """A key that is restricted to endpoints provides these for authorization."""
    key = stored_key(store, pepper, clock, endpoints=["predict", "/v1/model"])
    assert ask({"X-API-Key": key}).principal.endpoints == {"predict", "/v1/model"}


@pytest.mark.parametrize("case", cases("forms.json"))
def test_changed_key(ask: Ask, key: str, case: dict[str, Any]) -> None:
    """K1, K6: a key is right in every character or rejected, with one response for all."""
    changed = fill(case["text"], key) * case.get("times", 1)
    changed += checksum(changed) if case.get("checked") else ""
    assert changed != key
    response = ask({"X-API-Key": changed})
    assert (response.status, response.challenges) == (401, ('ApiKey realm="model"', 'Bearer realm="model"'))
    assert " raised " not in response.reason
    assert key[SECRET_START:] not in response.reason


@pytest.mark.parametrize("case", cases("headers.json"))
def test_place_of_a_key(ask: Ask, key: str, case: dict[str, Any]) -> None:
    """T4, K6: a key is taken from one of two headers, and two keys at once from none."""
    headers = {name: fill(value, key) for name, value in case["headers"].items()}
    response = ask(headers, url=fill(case.get("url", "/"), key))
    assert response.status == case["status"], response.reason
    assert (response.principal is not None) is (case["status"] == 200)


def test_every_rejection_looks_alike(ask: Ask, unusable: dict[str, str]) -> None:
    """K3: status, body and challenges are the same; only the private reason differs."""
    responses = {name: ask({"X-API-Key": text}) for name, text in unusable.items()}
    assert {(each.status, each.body, each.challenges, each.retry_after) for each in responses.values()} == {
        (401, responses["short"].body, ('ApiKey realm="model"', 'Bearer realm="model"'), None)
    }
    named = ("revoked", "disabled", "expired", "wrong secret", "wrong checksum", "unknown id", "short")
    assert len({responses[name].reason for name in named}) == len(named)


def test_every_text_costs_the_same_work(
    api_keys: ApiKeyAuthenticator,
    exchange: Any,
    store: FileKeyStore,
    key: str,
    unusable: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """K1: one look-up, one HMAC over 66 bytes and one comparison of 76 characters, for a key and for noise."""
    work: list[tuple[str, int]] = []

    def count(owner: Any, name: str, measure: Callable[..., int]) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            work.append((name, measure(*arguments)))
            return original(*arguments)

        monkeypatch.setattr(owner, name, counted)

    count(store, "get", len)
    count(key_form, "_finish", lambda _, raw: len(raw))
    count(hmac, "compare_digest", lambda one, other: len(one) + len(other))
    expected = [("get", 12), ("_finish", 66), ("compare_digest", 152)]
    api_keys.verify(key, exchange)
    assert work == expected
    count(module, "checksum", len)
    for name, text in unusable.items():
        work.clear()
        with pytest.raises(NotAuthenticated):
            api_keys.verify(text, exchange)
        known_secret = name in {"revoked", "disabled", "rotated", "expired"}
        assert work == [*expected, *([] if known_secret else [("checksum", 60)])], name


def test_an_unknown_id_is_hashed_under_every_secret(
    store: FileKeyStore, key: str, exchange: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1: with a ring of two, every text costs two HMACs and two comparisons, also one that matches the first."""
    monkeypatch.setenv("OLD_PEPPER", OLDER_SECRET)
    ring = SecretRing(Secret("env:TEST_PEPPER"), Secret("env:OLD_PEPPER"))
    compared: list[str] = []
    original = hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append(one)
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    authenticator = ApiKeyAuthenticator(store, ring, clock)
    for text in (key, new_key(), "x"):
        compared.clear()
        try:
            authenticator.verify(text, exchange)
        except NotAuthenticated:
            assert text != key
        assert len(set(compared)) == 2


def test_expires_on_the_second(ask: Ask, store: FileKeyStore, pepper: SecretRing, clock: FakeClock) -> None:
    """A key is valid up to its last second."""
    text = stored_key(store, pepper, clock, lifetime=10)
    clock.advance(9)
    assert ask({"X-API-Key": text}).status == 200
    clock.advance(1)
    assert ask({"X-API-Key": text}).status == 401


def test_rotated_key_past_its_overlap(
    ask: Ask, store: FileKeyStore, pepper: SecretRing, key: str, clock: FakeClock
) -> None:
    """K5: both keys work during the overlap; after it the old one is rejected and the new one is not."""
    successor, _ = rotate_key(store, pepper, key[4:16], now=clock.now(), overlap=3600)
    clock.advance(3599)
    assert [ask({"X-API-Key": text}).status for text in (key, successor)] == [200, 200]
    clock.advance(1)
    assert [ask({"X-API-Key": text}).status for text in (key, successor)] == [401, 200]


def test_every_guess_names_the_key_it_is_about(
    ask: Ask, failures: list[str], key: str, unusable: dict[str, str]
) -> None:
    """K3: the throttle counts by id whether there is such a key or not, so its response does not tell which ids exist.

    The right secret of a key that is revoked, disabled or expired is no guess.
    """
    claimed = {}
    for name, text in unusable.items():
        before = len(failures)
        ask({"X-API-Key": text})
        if len(failures) > before:
            claimed[name] = failures[-1]
    assert unusable.keys() - claimed.keys() == {"revoked", "disabled", "rotated", "expired"}
    assert {name for name, each in claimed.items() if not each} == {"short", "huge", "not ASCII", "lone surrogate"}
    assert {claimed["wrong secret"], claimed["wrong checksum"]} == {key[4:16]}


def test_an_altered_key_is_a_guess(api_keys: ApiKeyAuthenticator, exchange: Any, unusable: dict[str, str]) -> None:
    """K3: whatever character of a revoked key is changed, its sender is counted."""
    text = unusable["revoked"]
    with pytest.raises(UnusableCredential):
        api_keys.verify(text, exchange)
    for position, character in enumerate(text):
        altered = text[:position] + ("A" if character != "A" else "B") + text[position + 1 :]
        with pytest.raises(NotAuthenticated) as caught:
            api_keys.verify(altered, exchange)
        assert type(caught.value) is NotAuthenticated, position


def test_only_a_keyed_hash_is_stored(store: FileKeyStore, key: str, pepper: SecretRing) -> None:
    """K2: the file contains neither the key nor its secret, and the hash depends on the pepper."""
    content = store.path.read_text()
    assert key not in content
    assert key[SECRET_START:] not in content
    assert hash_key(key, pepper.newest()) in content


def test_hash_of_another_key_does_not_fit(ask: Ask, store: FileKeyStore, key: str) -> None:
    """K5: the id of one record with the hash of another is rejected."""
    store.update(key[4:16], lambda record: replace(record, hash="hmac-sha256:" + "0" * 64))
    assert ask({"X-API-Key": key}).status == 401


@pytest.mark.parametrize(
    "change",
    [{"hash": "hmac-sha256:" + "b" * 64}, {"status": "disabled"}, {"status": "revoked"}, {"expires": 1}],
    ids=str,
)
def test_what_is_known_of_an_accepted_key_ends_with_its_record(
    ask: Ask, store: FileKeyStore, key: str, change: dict[str, Any]
) -> None:
    """K7: the hash, the status and the expiry of the record count for each request."""
    assert [ask({"X-API-Key": key}).status for _ in range(3)] == [200] * 3
    store.update(key[4:16], lambda record: replace(record, **change))
    assert ask({"X-API-Key": key}).status == 401


def test_accepted_key_expires(
    store: FileKeyStore, pepper: SecretRing, clock: FakeClock, exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is rejected under another pepper, although it was hashed once only."""
    key = stored_key(store, pepper, clock, lifetime=60)
    authenticator = ApiKeyAuthenticator(store, pepper, clock)
    hashed: list[str] = []
    original = KeyHasher.hashes

    def counting(self: KeyHasher, text: str) -> list[str]:
        hashed.append(text)
        return original(self, text)

    monkeypatch.setattr(KeyHasher, "hashes", counting)
    assert [authenticator.verify(key, exchange).subject for _ in range(3)] == [key[4:16]] * 3
    assert hashed == [key]
    clock.advance(60)
    with pytest.raises(UnusableCredential):
        authenticator.verify(key, exchange)
    clock.advance(-60)
    monkeypatch.setenv("TEST_PEPPER", OLDER_SECRET)
    with pytest.raises(NotAuthenticated, match="Valid credentials"):
        authenticator.verify(key, exchange)
    monkeypatch.setenv("TEST_PEPPER", RANDOM_SECRET)
    assert authenticator.verify(key, exchange).subject == key[4:16]


def test_what_was_not_accepted_is_looked_up_at_once(
    store: FileKeyStore, pepper: SecretRing, clock: FakeClock, exchange: Any
) -> None:
    """Only records of accepted keys are cached for 100 ms, so a new key is never unknown for that long."""
    authenticator = ApiKeyAuthenticator(FileKeyStore(store.path, clock), pepper, clock)
    key = stored_key(store, pepper, clock)
    assert authenticator.verify(key, exchange).subject == key[4:16]
    disable_key(store, key[4:16])
    new = stored_key(store, pepper, clock)
    clock.advance(0.05)
    assert authenticator.verify(new, exchange).subject == new[4:16]
    clock.advance(0.1)
    with pytest.raises(UnusableCredential):
        authenticator.verify(key, exchange)


def test_accepted_keys_are_bounded(
    store: FileKeyStore, pepper: SecretRing, clock: FakeClock, exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process knows so many at most, and accepts the others as before."""
    monkeypatch.setattr(module, "MOST_ACCEPTED", 2)
    keys = [stored_key(store, pepper, clock) for _ in range(5)]
    authenticator = ApiKeyAuthenticator(store, pepper, clock)
    for each in keys * 2:
        assert authenticator.verify(each, exchange).subject == each[4:16]
        assert len(authenticator._accepted) <= 2


def test_missing_pepper_is_503(ask: Ask, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pepper no key can be verified; cached results are not used."""
    assert ask({"X-API-Key": key}).status == 200
    monkeypatch.delenv("TEST_PEPPER")
    response = ask({"X-API-Key": key})
    assert (response.status, response.retry_after) == (503, "60")


def test_missing_store_is_503_for_what_may_be_a_key(ask: Ask) -> None:
    """Malformed strings are rejected without the store; a well-formed key needs it."""
    assert [ask({"X-API-Key": text}).status for text in ("x", new_key())] == [401, 503]


# --- a new pepper --------------------------------------------------------------------------------------


@pytest.fixture
def rotated_pepper(monkeypatch: pytest.MonkeyPatch, pepper: SecretRing) -> SecretRing:
    """A newer pepper before the one that the keys were hashed with."""
    monkeypatch.setenv("NEW_PEPPER", OLDER_SECRET)
    return SecretRing(Secret("env:NEW_PEPPER"), Secret("env:TEST_PEPPER"))


def stored_hash(store: FileKeyStore, key: str) -> str:
    record = store.get(key[4:16])
    assert record is not None
    return record.hash


def test_key_of_the_older_pepper_moves_over(
    store: FileKeyStore, key: str, rotated_pepper: SecretRing, exchange: Any, clock: FakeClock
) -> None:
    """A key that is used is hashed again, and works when the older pepper is gone."""
    assert ApiKeyAuthenticator(store, rotated_pepper, clock).verify(key, exchange).client_id == "ada"
    assert stored_hash(store, key) == hash_key(key, OLDER_SECRET.encode())
    only_new = SecretRing(Secret("env:NEW_PEPPER"))
    assert ApiKeyAuthenticator(store, only_new, clock).verify(key, exchange).client_id == "ada"


def test_without_the_older_pepper_its_keys_are_rejected(
    store: FileKeyStore, key: str, rotated_pepper: SecretRing, exchange: Any, clock: FakeClock
) -> None:
    """A removed pepper no longer matches any key."""
    with pytest.raises(NotAuthenticated, match="Valid credentials"):
        ApiKeyAuthenticator(store, SecretRing(Secret("env:NEW_PEPPER")), clock).verify(key, exchange)


def test_unusable_key_is_not_hashed_again(
    store: FileKeyStore, key: str, rotated_pepper: SecretRing, exchange: Any, clock: FakeClock
) -> None:
    """A revoked key does not come back to life by a new pepper."""
    store.revoke(key[4:16])
    before = store.list()
    with pytest.raises(NotAuthenticated):
        ApiKeyAuthenticator(store, rotated_pepper, clock).verify(key, exchange)
    assert store.list() == before


@pytest.mark.parametrize("meanwhile", [{"status": "revoked"}, {"hash": "hmac-sha256:" + "b" * 64}], ids=str)
def test_hashing_again_undoes_nothing(
    store: FileKeyStore,
    key: str,
    rotated_pepper: SecretRing,
    exchange: Any,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: dict[str, Any],
) -> None:
    """A revocation between the look-up and the change of the hash stays, and so does another new hash."""
    original = KeyHasher.hashes

    def changed_meanwhile(self: KeyHasher, text: str) -> list[str]:
        store.update(key[4:16], lambda record: replace(record, **meanwhile))
        return original(self, text)

    monkeypatch.setattr(KeyHasher, "hashes", changed_meanwhile)
    ApiKeyAuthenticator(store, rotated_pepper, clock).verify(key, exchange)
    assert meanwhile.items() <= vars(store.list()[0]).items()


def test_failure_to_hash_again_lets_the_request_pass(
    store: FileKeyStore,
    key: str,
    rotated_pepper: SecretRing,
    exchange: Any,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and tried again a minute later, not with every request."""
    tried: list[str] = []

    def full(key_id: str, change: Any) -> Any:
        tried.append(key_id)
        raise DependencyUnavailable("the disk is full") if len(tried) > 1 else OSError(28, "No space left on device")

    monkeypatch.setattr(store, "update", full)
    authenticator = ApiKeyAuthenticator(store, rotated_pepper, clock)
    with caplog.at_level(logging.WARNING):
        for seconds in (0, 30, 30):
            clock.advance(seconds)
            assert authenticator.verify(key, exchange).client_id == "ada"
    assert tried == [key[4:16]] * 2
    assert ["No space left" in caplog.records[0].message, "disk is full" in caplog.records[1].message] == [True, True]
    assert all(key[SECRET_START:] not in each.message for each in caplog.records)


# --- last used -----------------------------------------------------------------------------------------


def test_accepted_key_is_noted(ask: Ask, store: FileKeyStore, key: str, clock: FakeClock) -> None:
    """The last use is that of the last accepted request, to the minute."""
    assert store.last_used() == {}
    ask({"X-API-Key": key})
    assert store.last_used() == {key[4:16]: clock.now()}


def test_rejected_key_is_not_noted(ask: Ask, store: FileKeyStore, unusable: dict[str, str]) -> None:
    """A guess, or a key that is no longer accepted, does not count as a use of a key."""
    for text in unusable.values():
        ask({"X-API-Key": text})
    assert store.last_used() == {}


def test_use_that_cannot_be_noted_rejects_nobody(ask: Ask, store: FileKeyStore, key: str) -> None:
    """A directory in the place of the file of uses: the request passes."""
    Path(f"{store.path}.used").mkdir()
    assert ask({"X-API-Key": key}).status == 200
