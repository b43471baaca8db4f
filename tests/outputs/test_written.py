"""Bodies that a view wrote itself, read and written again."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.outputs.filter import is_json, read_json, rewrite, write_json
from flask_secure_ml.outputs.formats import read_npy, write_npy
from flask_secure_ml.outputs.scores import ShapingError
from flask_secure_ml.policy.options import NO_SCORE_OPTIONS, ScoreOptions


def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"a": [1, 0.5, "b", null, true]}', {"a": [1, 0.5, "b", None, True]}, id="plain"),
        pytest.param(b"[12345678901234567890123]", [12345678901234567890123], id="long integer"),
        pytest.param(b"[18446744073709551616, 0.5]", [2**64, 0.5], id="just too long for 64 bits"),
        pytest.param(b"[-99999999999999999999]", [-99999999999999999999], id="long negative integer"),
        pytest.param(b"99999999999999999999", 99999999999999999999, id="long integer alone"),
        pytest.param(b"[0.00012345678901234567890]", [0.00012345678901234567890], id="many decimals"),
        pytest.param(b'{"id": "99999999999999999999"}', {"id": "99999999999999999999"}, id="long text of digits"),
    ],
)
def test_reading_and_writing(body: bytes, expected: Any) -> None:
    """Nothing is changed, also not an integer beyond 64 bits."""
    found = read_json(body, allow_nan=False)
    assert repr(found) == repr(expected)
    assert repr(json.loads(write_json(found, allow_nan=False))) == repr(expected)


@pytest.mark.parametrize(
    "body",
    [b"[NaN]", b"[-Infinity]", b"[1e999, 0.5]", b"[NaN, 99999999999999999999]", b"{", b"", b"\xff", b'"a" "b"',
     b"[" * 100_000, b"9" * 5_000, b"[99999999999999999999", b"callback([1])"],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_what_is_no_json(body: bytes) -> None:
    """It is refused, and so are numbers that JSON has not."""
    with pytest.raises(ShapingError):
        read_json(body, allow_nan=False)


def test_an_overflow_beside_a_long_integer() -> None:
    """A number too large for a double becomes Infinity in the parser that keeps digits; it is not written."""
    found = read_json(b"[1e999, 99999999999999999999]", allow_nan=False)
    with pytest.raises(ShapingError):
        write_json(found, allow_nan=False)
    with pytest.raises(ShapingError):
        write_json([float("inf"), None], allow_nan=False)


def test_nan_where_it_is_allowed() -> None:
    """It is null afterwards, and stays refused where an integer is too long for the writer that makes it so."""
    found = read_json(b"[NaN, Infinity, 0.5]", allow_nan=True)
    assert write_json(found, allow_nan=True) == b"[null,null,0.5]\n"
    with pytest.raises(ShapingError):
        write_json([float("nan"), 2**70], allow_nan=True)


_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**80), 2**80),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(_values)
def test_fuzz_round_trip(value: Any) -> None:
    """Any answer of the json module is read and written with the same values."""
    found = read_json(json.dumps(value, ensure_ascii=False).encode(errors="replace"), allow_nan=False)
    again = json.loads(write_json(found, allow_nan=False))
    assert json.dumps(again) == json.dumps(json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace")))


@given(st.binary(max_size=60))
def test_fuzz_reading(body: bytes) -> None:
    """Any bytes are JSON or refused."""
    for allow_nan in (True, False):
        with suppress(ShapingError):
            json.dumps(read_json(body, allow_nan=allow_nan))


@pytest.mark.parametrize(
    ("mimetype", "json_like"),
    [("application/json", True), ("application/vnd.api+json", True), ("application/problem+json", True),
     ("text/html", False), ("application/jsonp", False), ("application/x-ndjson", False), ("", False)],
)  # fmt: skip
def test_media_types(mimetype: str, json_like: bool) -> None:
    """JSON, and what is written as JSON."""
    assert is_json(Response(b"1", content_type=mimetype)) is json_like


def test_headers_that_tell_of_the_old_body() -> None:
    """A digest of the exact scores would let a client test its guesses of them."""
    response = Response(b"[0.123]", mimetype="application/json", headers={"Content-Digest": "x", "X-Mine": "y"})
    response.add_etag()
    rewrite(response, lambda _value: [0.1], ScoreOptions(round=1))
    assert response.get_data() == b"[0.1]\n"
    assert response.headers["Content-Length"] == "6"
    assert not {"ETag", "Content-Digest"} & set(response.headers.keys())
    assert response.headers["X-Mine"] == "y"


def test_npy() -> None:
    """An npy file is read, shaped and written, and NaN in it is refused."""
    response = Response(write_npy(np.array([0.123])), mimetype="application/x-npy")
    rewrite(response, lambda value: value.round(1), NO_SCORE_OPTIONS)
    assert read_npy(response.get_data()).tolist() == [0.1]
    response = Response(write_npy(np.array([np.nan])), mimetype="application/x-npy")
    with pytest.raises(Exception, match="500"):
        rewrite(response, same, NO_SCORE_OPTIONS)
    rewrite(response, same, ScoreOptions(nan="null"))
    assert np.isnan(read_npy(response.get_data())).all()


@pytest.mark.parametrize(
    "response",
    [
        Response(iter([b"[1]"]), mimetype="application/json"),
        Response([b"[1]"], mimetype="application/json", direct_passthrough=True),
        Response(b"[1]", mimetype="application/json", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["stream", "file", "encoded"],
)
def test_what_cannot_be_read(response: Response) -> None:
    """The reason says so."""
    with pytest.raises(ShapingError, match="a stream, a file or an encoded body"):
        rewrite(response, same, NO_SCORE_OPTIONS)


def test_an_empty_body() -> None:
    """There is nothing to shape in it, whatever its media type."""
    response = Response(b"", mimetype="text/html")
    rewrite(response, same, ScoreOptions(round=1))
    assert response.get_data() == b""
