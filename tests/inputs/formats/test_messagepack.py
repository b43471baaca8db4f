"""MessagePack with the values of JSON only; the corpus has rejected bodies."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields

from bodies import a_guard, a_request, an_exchange, loaded, peak_of
from flask_secure_ml.errors import MalformedRequest, PayloadTooLarge, SecureMLError
from flask_secure_ml.inputs.formats.messagepack import _depth

MSGPACK = "application/vnd.msgpack"
PACK: Any = import_module("msgpack").packb
GUARD = a_guard(["json", "msgpack"], max_depth=6)


class Anything(Schema):
    x = fields.Raw(allow_none=True)


def load(value: Any, media_type: str = MSGPACK) -> Any:
    body = json.dumps({"x": value}).encode() if media_type == "application/json" else PACK({"x": value})
    return loaded(GUARD, Anything, body, media_type).payload["x"]


@pytest.mark.parametrize("media_type", ["application/msgpack", "application/x-msgpack", MSGPACK, "Application/MsgPack"])
def test_its_media_types(media_type: str) -> None:
    """The registered one and the two that are older."""
    assert load([1, 2.5, "a"], media_type) == [1, 2.5, "a"]


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _FLOATS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(value=_VALUES)
def test_fuzz_it_is_json_in_another_form(value: Any) -> None:
    """Values that JSON can represent are loaded unchanged, with the same depth limit."""
    if _deepest(value) > 5:
        with pytest.raises(MalformedRequest, match="400") as caught:
            load(value)
        assert caught.value.reason == "arrays and objects are nested deeper than 6"
    else:
        assert load(value) == value


def _deepest(value: Any) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return isinstance(value, (dict, list)) + max(map(_deepest, children), default=0)


@given(value=_VALUES, most=st.integers(1, 8))
def test_fuzz_values_are_counted_as_in_json(value: Any, most: int) -> None:
    """The same value is over the limit in both formats, or in none."""
    guard = a_guard(["json", "msgpack"], max_elements=most)

    def is_taken(body: bytes, media_type: str) -> bool:
        try:
            loaded(guard, Anything, body, media_type)
        except PayloadTooLarge:
            return False
        return True

    as_json = json.dumps({"x": value}).encode()
    assert is_taken(PACK({"x": value}), MSGPACK) == is_taken(as_json, "application/json")


def test_numbers_are_not_walked_for_the_depth() -> None:
    """The search for the deepest array ends at the last array, above the numbers."""

    class Untouchable(list[Any]):
        def __iter__(self) -> Any:
            pytest.fail("the numbers were walked")

    rows: Any = [[1.0] * 3, [2.0] * 3]
    assert _depth({"x": rows}, 4, 32) == 3
    assert _depth([Untouchable([1])], 1, 32) == 1


def test_a_claim_allocates_nothing() -> None:
    """Five bytes that declare a million items, nested five hundred times, allocate no memory."""
    body = b"\xdd\x00\x0f\x42\x40" * 500
    guard = a_guard(["msgpack"], max_elements=2_000_000, max_depth=1_000)
    assert peak_of(lambda: guard.check(a_request(body, MSGPACK), an_exchange(body=Anything))) < 300_000


@pytest.mark.parametrize("value", [b"", b"a", {"a": b""}, [1, b""], [[b""], 1.5], {b"": 1}, {b"a": 1}], ids=repr)
def test_bytes_are_rejected_wherever_they_are(value: Any) -> None:
    """JSON has no bytes, and a string field would take them for text."""
    with pytest.raises(MalformedRequest):
        load(value)


def test_what_only_looks_like_bytes_passes() -> None:
    """A number whose own bytes are those of an empty byte string is a number."""
    numbers = [0xC400, 0xC50000, 1]
    assert b"\xc4\x00" in PACK(numbers)
    assert load(numbers) == numbers


def test_a_reason_says_nothing_of_the_data() -> None:
    """The decoder's own messages can quote the body."""
    with pytest.raises(SecureMLError) as caught:
        loaded(GUARD, Anything, b"\x81\xa6secret\xa7\xffsecret", MSGPACK)
    assert "secret" not in caught.value.reason
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
