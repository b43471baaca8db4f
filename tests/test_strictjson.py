from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml import strictjson

CORPUS = Path(__file__).parent / "corpus" / "json"
PADDING = b" " * 5_000


def corpus(folder: str) -> list[Any]:
    files = sorted((CORPUS / folder).glob("*.json"))
    assert files
    return [pytest.param(file.read_bytes(), id=file.stem) for file in files]


@pytest.fixture(params=[b"", PADDING], ids=["small", "large"])
def padding(request: pytest.FixtureRequest) -> bytes:
    """White space that only changes how the rules are checked."""
    return bytes(request.param)


@pytest.mark.parametrize("raw", corpus("accept"))
def test_accepts(raw: bytes, padding: bytes) -> None:
    """JSON of RFC 8259 is parsed to the same value as by the standard library."""
    assert strictjson.loads(raw + padding) == json.loads(raw)


@pytest.mark.parametrize("raw", corpus("refuse"))
def test_rejects(raw: bytes, padding: bytes) -> None:
    """Documents that are not JSON, or ambiguous, are rejected in every size."""
    with pytest.raises(strictjson.StrictJSONError):
        strictjson.loads(raw + padding)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[" * 100_000, id="opening"),
        pytest.param(b"]" * 100_000, id="closing"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="balanced"),
        pytest.param(b'{"a":' * 100_000, id="objects"),
        pytest.param(b'[{"a":' * 50_000, id="mixed"),
        pytest.param(b"[" + (b"[" * 900 + b"]" * 900 + b",") * 100 + b"0]", id="deep many times"),
        pytest.param(b'"' * 100_000, id="quotation marks"),
        pytest.param(b'["' + b"\\" * 100_001 + b'"]', id="backslashes"),
    ],
)
def test_rejects_floods_of_structure(raw: bytes) -> None:
    """A flood of one character is an error as any other: no recursion, no crash."""
    with pytest.raises(strictjson.StrictJSONError):
        strictjson.loads(raw)


@pytest.mark.parametrize("max_depth", [0, 1, 2, 31, 1_000])
def test_max_depth_is_the_deepest_that_passes(max_depth: int, padding: bytes) -> None:
    """The depth given is allowed, one more is not."""
    strictjson.loads(b"[" * max_depth + b"1" + b"]" * max_depth + padding, max_depth=max_depth)
    with pytest.raises(strictjson.StrictJSONError, match=f"deeper than {max_depth}"):
        strictjson.loads(b"[" * (max_depth + 1) + b"1" + b"]" * (max_depth + 1) + padding, max_depth=max_depth)


def test_numbers_are_not_walked_for_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of members ends at the level that has the last one, above the rows of a batch."""
    levels: list[Any] = []
    monkeypatch.setattr(strictjson, "_containers", levels.append)
    raw = json.dumps({"instances": [[0.5] * 64] * 100}).encode()
    assert len(strictjson.loads(raw)["instances"]) == 100
    assert levels == []


def test_integers_beyond_64_bits_become_floats() -> None:
    """A large integer has the precision of a double, as RFC 7493 says; up to 64 bits it is exact."""
    assert strictjson.loads(b"18446744073709551615") == 2**64 - 1
    found = strictjson.loads(b"18446744073709551617")
    assert (type(found), found) == (float, 2.0**64)


def test_error_says_where_and_nothing_of_the_text() -> None:
    """The reason has a position and no content, and does not hold on to the text."""
    with pytest.raises(strictjson.StrictJSONError) as caught:
        strictjson.loads(b'{"card":"4111-secret" oops}')
    assert re.search(r"at character 22$", str(caught.value))
    assert "secret" not in str(caught.value)
    assert "oops" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


class _DuplicateError(Exception):
    pass


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _DuplicateError
    return dict(pairs)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


_strings = st.text(alphabet='ab[]{}":,\\/ \u00e9\n', max_size=6).map(json.dumps)
_texts = st.recursive(
    st.one_of(st.sampled_from(["1", "-2.5e3", "null", "true"]), _strings),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(_strings, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{name}: {value}" for name, value in pairs) + "}"
        ),
    ),
    max_leaves=25,
)


@given(text=_texts, max_depth=st.integers(0, 6), padding=st.sampled_from([b"", PADDING]))
def test_agrees_with_a_reader_that_looks_at_every_object(text: str, max_depth: int, padding: bytes) -> None:
    """For any valid document, the two rules agree with a slow and simple reader."""
    try:
        expected = json.loads(text, object_pairs_hook=_members)
    except _DuplicateError:
        expected = _DuplicateError
    if expected is _DuplicateError or _depth(expected) > max_depth:
        with pytest.raises(strictjson.StrictJSONError):
            strictjson.loads(text.encode() + padding, max_depth=max_depth)
    else:
        assert strictjson.loads(text.encode() + padding, max_depth=max_depth) == expected


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_the_one_error(raw: bytes) -> None:
    """The parser raises only StrictJSONError."""
    try:
        strictjson.loads(raw)
    except strictjson.StrictJSONError:
        return
    json.loads(raw)


def test_members_are_counted_before_parsing() -> None:
    """One object with too many is rejected without being built; colons and braces in texts do not count."""
    many = b"{" + b'"a":1,' * 2_000
    with pytest.raises(strictjson.TooLargeError, match="more than 1000 members"):
        strictjson.loads(many, max_members=1_000)
    for text in (":" * 9_000, "{:" * 9_000):
        assert strictjson.loads(json.dumps({"a": text}).encode(), max_members=1_000) == {"a": text}
    shared = json.dumps([{str(number): number for number in range(900)}] * 3).encode()
    assert len(strictjson.loads(shared, max_members=900)) == 3
    with pytest.raises(strictjson.TooLargeError):
        strictjson.loads(shared, max_members=899)
