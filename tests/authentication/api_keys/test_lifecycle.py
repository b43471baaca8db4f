"""Issuing, rotating, disabling and revoking keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import KeyRecord, hash_key, key_id
from flask_secure_ml.authentication.api_keys.lifecycle import disable_key, enable_key, issue_key, revoke_key, rotate_key
from flask_secure_ml.secrets import Secret, SecretRing
from support import OLDER_SECRET

NOW = 1_800_000_000
DAY = 86_400
Issue = Callable[..., KeyRecord]


@pytest.fixture
def issue(store: FileKeyStore, pepper: SecretRing) -> Issue:
    def make(**options: Any) -> KeyRecord:
        usual: dict[str, Any] = {"client": "ada", "scopes": ["a", "b"], "now": NOW}
        return issue_key(store, pepper, **{**usual, **options})[1]

    return make


@pytest.fixture
def rotate(store: FileKeyStore, pepper: SecretRing) -> Callable[..., KeyRecord]:
    def make(old: KeyRecord, *, now: float = NOW, overlap: float = DAY) -> KeyRecord:
        return rotate_key(store, pepper, old.id, now=now, overlap=overlap)[1]

    return make


def stored(store: FileKeyStore, record: KeyRecord) -> KeyRecord:
    found = store.get(record.id)
    assert found is not None
    return found


def test_issued_key(store: FileKeyStore, pepper: SecretRing) -> None:
    """The text goes to the client, the record into the store."""
    text, record = issue_key(
        store, pepper, client="ada", scopes=iter(["a", "b"]), now=NOW + 0.9, plan="gold", endpoints=iter(["/x"])
    )
    assert key_id(text) == record.id
    assert record == KeyRecord(
        record.id,
        hash_key(text, pepper.newest()),
        "ada",
        frozenset({"a", "b"}),
        "gold",
        NOW,
        endpoints=frozenset({"/x"}),
    )
    assert store.list() == (record,)


def test_new_keys_are_hashed_under_the_newest_pepper(
    store: FileKeyStore, pepper: SecretRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the older one can go."""
    monkeypatch.setenv("NEW_PEPPER", OLDER_SECRET)
    ring = SecretRing(Secret("env:NEW_PEPPER"), Secret("env:TEST_PEPPER"))
    text, record = issue_key(store, ring, client="ada", scopes=[], now=NOW)
    assert record.hash == hash_key(text, OLDER_SECRET.encode())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"client": ""}, "client name", id="no client"),
        pytest.param({"client": " "}, "client name", id="client space"),
        pytest.param({"client": "a\nb"}, "client name", id="client with a line end"),
        pytest.param({"client": "a\x1b[0m"}, "client name", id="client with a colour"),
        pytest.param({"client": "x" * 201}, "client name", id="client too long"),
        pytest.param({"scopes": [""]}, "scope", id="scope empty"),
        pytest.param({"scopes": ["a b"]}, "scope", id="scope with a space"),
        pytest.param({"scopes": ['a"b']}, "scope", id="scope with a quote"),
        pytest.param({"scopes": ["a\\b"]}, "scope", id="scope with a backslash"),
        pytest.param({"scopes": ["\u00e9"]}, "scope", id="scope not ASCII"),
        pytest.param({"scopes": ["a\n"]}, "scope", id="scope with a line end"),
        pytest.param({"scopes": "predict"}, "not one string", id="scopes text"),
        pytest.param({"endpoints": []}, "at least one", id="no endpoint"),
        pytest.param({"endpoints": [" "]}, "endpoints", id="endpoint space"),
        pytest.param({"endpoints": ["a\n"]}, "endpoints", id="endpoint with a line end"),
        pytest.param({"endpoints": "predict"}, "not one string", id="endpoints text"),
        pytest.param({"expires": 253_402_300_800}, "year 10000", id="too late"),
        pytest.param({"expires": float("inf")}, "year 10000", id="infinite"),
        pytest.param({"expires": float("nan")}, "year 10000", id="not a number"),
        pytest.param({"plan": "a\nb"}, "members", id="plan with a line end"),
    ],
)
def test_options_that_no_key_has(store: FileKeyStore, issue: Issue, options: dict[str, Any], told: str) -> None:
    """Terms that could forge a line of a log or a table, or could not be read back, are rejected."""
    with pytest.raises(ValueError, match=told):
        issue(**options)
    assert store.list() == ()


def test_successor_has_the_same_options(store: FileKeyStore, issue: Issue, rotate: Callable[..., KeyRecord]) -> None:
    """Client, scopes, plan, endpoints and lifetime go over; id and hash do not."""
    old = issue(plan="gold", endpoints=["/x"], expires=NOW + 90 * DAY)
    new = rotate(old, now=NOW + 80 * DAY)
    assert new == replace(
        old, id=new.id, hash=new.hash, created=NOW + 80 * DAY, expires=NOW + 170 * DAY, replaced_by=None
    )
    assert new.id != old.id
    assert new.hash != old.hash
    assert store.list() == (replace(old, expires=NOW + 81 * DAY, replaced_by=new.id), new)


@pytest.mark.parametrize(
    ("lifetime", "overlap", "left"),
    [
        pytest.param(None, DAY, DAY, id="never expired before"),
        pytest.param(10 * DAY, DAY, DAY, id="expired later"),
        pytest.param(3600, DAY, 3600, id="never beyond its own end"),
        pytest.param(None, 0, 0, id="at once"),
        pytest.param(None, 1.9, 1, id="whole seconds"),
    ],
)
def test_end_of_a_rotated_key(
    store: FileKeyStore,
    issue: Issue,
    rotate: Callable[..., KeyRecord],
    lifetime: int | None,
    overlap: float,
    left: int,
) -> None:
    """K5: the old key ends with the overlap, or with its own time if that is sooner."""
    old = issue(expires=None if lifetime is None else NOW + lifetime)
    new = rotate(old, overlap=overlap)
    assert stored(store, old).expires == NOW + left
    assert new.expires == (None if lifetime is None else NOW + lifetime)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda store, old, rotate: store.revoke(old.id), "is revoked", id="revoked"),
        pytest.param(lambda store, old, rotate: disable_key(store, old.id), "is disabled", id="disabled"),
        pytest.param(lambda store, old, rotate: rotate(old), "was already replaced by", id="replaced"),
    ],
)
def test_what_is_not_rotated(
    store: FileKeyStore, issue: Issue, rotate: Callable[..., KeyRecord], spoil: Callable[..., Any], told: str
) -> None:
    """A key that is not accepted gets no successor, and no key gets two."""
    old = issue()
    spoil(store, old, rotate)
    before = store.list()
    with pytest.raises(ValueError, match=told):
        rotate(old)
    assert store.list() == before


@pytest.mark.parametrize("overlap", [-1, 31_536_001, float("nan"), float("inf")])
def test_overlap_has_bounds(
    store: FileKeyStore, issue: Issue, rotate: Callable[..., KeyRecord], overlap: float
) -> None:
    """From no time to a year; anything else is rejected before a key is made."""
    old = issue()
    with pytest.raises(ValueError, match="overlap"):
        rotate(old, overlap=overlap)
    assert store.list() == (old,)


def test_expired_key_is_not_rotated(issue: Issue, rotate: Callable[..., KeyRecord]) -> None:
    """Its client has already lost access, and needs a new key to get it back."""
    with pytest.raises(ValueError, match="has expired"):
        rotate(issue(expires=NOW + 10), now=NOW + 10)


def test_unknown_key_is_not_rotated(store: FileKeyStore, pepper: SecretRing, issue: Issue) -> None:
    """No key is created."""
    issue()
    with pytest.raises(KeyError, match="nobody"):
        rotate_key(store, pepper, "nobody", now=NOW, overlap=0)
    assert len(store.list()) == 1


def test_revocation_during_a_rotation_stays(
    store: FileKeyStore, pepper: SecretRing, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation concurrent with a revocation returns no key and leaves none behind."""
    old = issue()
    original = store.add

    def revoked_meanwhile(record: KeyRecord) -> None:
        original(record)
        store.revoke(old.id)

    monkeypatch.setattr(store, "add", revoked_meanwhile)
    with pytest.raises(ValueError, match="is revoked"):
        rotate_key(store, pepper, old.id, now=NOW, overlap=DAY)
    assert [record.status for record in store.list()] == ["revoked", "revoked"]
    assert stored(store, old).expires is None


def test_disable_and_enable(store: FileKeyStore, issue: Issue) -> None:
    """Enabling undoes disabling; both can be repeated."""
    old = issue()
    assert [disable_key(store, old.id).status for _ in range(2)] == ["disabled"] * 2
    assert stored(store, old).status == "disabled"
    assert [enable_key(store, old.id) for _ in range(2)] == [old] * 2


@pytest.mark.parametrize("change", [disable_key, enable_key])
def test_revoked_stays_revoked(store: FileKeyStore, issue: Issue, change: Callable[..., KeyRecord]) -> None:
    """No command brings a revoked key back, not even by way of a disabled one."""
    old = issue()
    assert revoke_key(store, old.id).status == "revoked"
    with pytest.raises(ValueError, match="revoked permanently"):
        change(store, old.id)
    assert stored(store, old).status == "revoked"


def test_disabled_key_can_be_revoked(store: FileKeyStore, issue: Issue) -> None:
    """Every key can be revoked, repeatedly."""
    old = issue()
    disable_key(store, old.id)
    assert [revoke_key(store, old.id).status for _ in range(2)] == ["revoked"] * 2


@pytest.mark.parametrize("change", [revoke_key, disable_key, enable_key])
def test_unknown_id(store: FileKeyStore, issue: Issue, change: Callable[..., KeyRecord]) -> None:
    """A key that is not there is named."""
    issue()
    with pytest.raises(KeyError, match="nobody"):
        change(store, "nobody")
