"""The record of an API key as it is written down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_secure_ml.authentication.api_keys.key import KeyRecord, dump_record, from_members, parse_record, to_members

HASH = "hmac-sha256:" + "a" * 64
USUAL: dict[str, Any] = {
    "id": "k1",
    "hash": HASH,
    "client": "ada",
    "scopes": ["a", "b"],
    "plan": "default",
    "created": 1,
    "expires": None,
    "status": "active",
    "endpoints": None,
    "replaced_by": None,
}


def written(**changes: Any) -> bytes:
    return json.dumps({"version": 1, **USUAL, **changes}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="usual"),
        pytest.param({"endpoints": frozenset({"/x", "y"})}, id="endpoints"),
        pytest.param({"endpoints": frozenset()}, id="no endpoint"),
        pytest.param({"expires": 253_402_300_799}, id="last second"),
        pytest.param({"status": "disabled", "replaced_by": "k2", "expires": 0}, id="disabled, replaced and expired"),
        pytest.param({"client": "A\u0308rztin \u4e2d"}, id="not ASCII"),
    ],
)
def test_records_survive(changes: dict[str, Any]) -> None:
    """A written record is read back."""
    usual: dict[str, Any] = {"client": "ada", "scopes": frozenset({"b", "a"}), "plan": "default", "created": 1}
    record = KeyRecord("k1", HASH, **{**usual, **changes})
    assert parse_record(dump_record(record)) == record
    assert from_members(to_members(record)) == record


def test_written_form() -> None:
    """Version 1 is exactly this; a reader of another version must not guess."""
    record = from_members(USUAL)
    assert json.loads(dump_record(record)) == json.loads(written())


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{}", id="no version"),
        pytest.param(written()[:-5], id="cut"),
        pytest.param(written(version=2), id="other version"),
        pytest.param(written(version=True), id="version true"),
        pytest.param(written(version=1.0), id="version float"),
        pytest.param(written(extra=1), id="unknown member"),
        pytest.param(written().replace(b'"plan": "default", ', b""), id="missing member"),
        pytest.param(written().replace(b'"id"', b'"id": "k2", "id"'), id="duplicate member"),
        pytest.param(written(id=""), id="id empty"),
        pytest.param(written(id="a\nb"), id="id with a line end"),
        pytest.param(written(hash="plain"), id="hash without scheme"),
        pytest.param(written(hash=HASH.upper()), id="hash in upper case"),
        pytest.param(written(hash=None), id="hash null"),
        pytest.param(written(client="a\u001b[31m"), id="client with a colour"),
        pytest.param(written(scopes="predict"), id="scopes text"),
        pytest.param(written(scopes=[1]), id="scope int"),
        pytest.param(written(scopes=["a b"]), id="scope with a space"),
        pytest.param(written(scopes=None), id="scopes null"),
        pytest.param(written(created=True), id="created true"),
        pytest.param(written(created=-1), id="created negative"),
        pytest.param(written(created=1.5), id="created float"),
        pytest.param(written(expires="1"), id="expires text"),
        pytest.param(written(expires=253_402_300_800), id="expires in the year 10000"),
        pytest.param(written(status="off"), id="status unknown"),
        pytest.param(written(status=None), id="status null"),
        pytest.param(written(endpoints="predict"), id="endpoints text"),
        pytest.param(written(endpoints=[""]), id="endpoint empty"),
        pytest.param(written(endpoints=[None]), id="endpoint null"),
        pytest.param(written(replaced_by=""), id="replaced by nothing"),
        pytest.param(written(replaced_by=2), id="replaced by int"),
    ],
)
def test_damaged_record(raw: bytes) -> None:
    """A record that is not exactly right is rejected as a whole."""
    with pytest.raises(ValueError, match=r"."):
        parse_record(raw)


def test_what_could_not_be_read_is_not_written() -> None:
    """A record that a reader would reject never reaches a store."""
    with pytest.raises(ValueError, match="members"):
        dump_record(KeyRecord("k1", "plain", "ada", frozenset(), "default", 1))


@pytest.mark.parametrize(
    ("expires", "now", "expired"),
    [(None, 1e12, False), (10, 9.9, False), (10, 10, True), (10, 11, True)],
    ids=["never", "before", "on the second", "after"],
)
def test_expired(expires: int | None, now: float, expired: bool) -> None:
    """A key ends on its last second."""
    record = KeyRecord("k1", HASH, "ada", frozenset(), "default", 1, expires)
    assert record.expired(now) is expired


def test_principal_is_made_once() -> None:
    """A record never changes, so neither does its principal."""
    record = from_members({**USUAL, "endpoints": ["/x"]})
    assert record.principal is record.principal
    assert (record.principal.kind, record.principal.issued) == ("api_key", 1)
    assert record.principal.endpoints == frozenset({"/x"})
