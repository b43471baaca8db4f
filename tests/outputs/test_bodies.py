"""Bodies that a view wrote itself, read and written again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.outputs.bodies import (
    CheckedBody,
    is_json,
    mark_checked,
    read_json,
    rewrite,
    sole_chunk,
    write_json,
)
from flask_secure_ml.outputs.formats import read_npy, write_npy
from flask_secure_ml.outputs.scores import MaskingError
from flask_secure_ml.policy.options import NO_SCORE_OPTIONS, ScoreOptions
from flask_secure_ml.policy.policy import Policy


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
    """Values are not changed, not even an integer beyond 64 bits."""
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
    """It is rejected, and so are numbers that JSON has not."""
    with pytest.raises(MaskingError):
        read_json(body, allow_nan=False)


def test_an_overflow_beside_a_long_integer() -> None:
    """A number too large for a double becomes Infinity in the parser that keeps digits; it is not written."""
    found = read_json(b"[1e999, 99999999999999999999]", allow_nan=False)
    with pytest.raises(MaskingError):
        write_json(found, allow_nan=False)
    with pytest.raises(MaskingError):
        write_json([float("inf"), None], allow_nan=False)


def test_nan_where_it_is_allowed() -> None:
    """It is null afterwards, and stays rejected where an integer is too long for the writer that makes it so."""
    found = read_json(b"[NaN, Infinity, 0.5]", allow_nan=True)
    assert write_json(found, allow_nan=True) == b"[null,null,0.5]\n"
    with pytest.raises(MaskingError):
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
    """Any response of the json module is read and written with the same values."""
    found = read_json(json.dumps(value, ensure_ascii=False).encode(errors="replace"), allow_nan=False)
    again = json.loads(write_json(found, allow_nan=False))
    assert json.dumps(again) == json.dumps(json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace")))


@given(st.binary(max_size=60))
def test_fuzz_reading(body: bytes) -> None:
    """Any bytes are JSON or rejected."""
    for allow_nan in (True, False):
        with suppress(MaskingError):
            json.dumps(read_json(body, allow_nan=allow_nan))


@pytest.mark.parametrize(
    ("mimetype", "json_like"),
    [("application/json", True), ("application/vnd.api+json", True), ("application/problem+json", True),
     ("text/html", False), ("application/jsonp", False), ("application/x-ndjson", False), ("", False)],
)  # fmt: skip
def test_media_types(mimetype: str, json_like: bool) -> None:
    """JSON, and media types with the syntax of JSON."""
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
    """An npy file is read, masked and written, and NaN in it is rejected."""
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
    """The reason is reported."""
    with pytest.raises(MaskingError, match="a stream, a file or an encoded body"):
        rewrite(response, same, NO_SCORE_OPTIONS)


def test_an_empty_body() -> None:
    """There is nothing to mask in it, whatever its media type."""
    response = Response(b"", mimetype="text/html")
    rewrite(response, same, ScoreOptions(round=1))
    assert response.get_data() == b""


MASKED = ScoreOptions(round=1)
POLICY = Policy(scores=MASKED)


def checked(policy: Policy | None = POLICY, options: ScoreOptions = MASKED) -> Response:
    response = Response(b"[0.1]", mimetype="application/json")
    mark_checked(response, policy, options)
    return response


def meets(response: Response, policy: Policy = POLICY, options: ScoreOptions = MASKED) -> bool:
    body = response.response
    return isinstance(body, CheckedBody) and body.meets(policy, lambda: options)


def test_a_checked_body_is_sent_as_any_other() -> None:
    """To Werkzeug it is a list of bytes: with a length, and not a stream."""
    response = checked()
    assert (response.get_data(), response.is_sequence, response.is_streamed) == (b"[0.1]", True, False)
    assert response.headers["Content-Length"] == "5"
    assert b"".join(response({"REQUEST_METHOD": "GET"}, lambda *_: None)) == b"[0.1]"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "options", "met"),
    [
        pytest.param(POLICY, MASKED, True, id="same"),
        pytest.param(POLICY, ScoreOptions(round=1), True, id="equal options"),
        pytest.param(POLICY, ScoreOptions(round=0), False, id="options of another plan"),
        pytest.param(Policy(scores=MASKED), MASKED, False, id="another policy"),
    ],
)
def test_a_mark_is_for_one_policy_and_its_options(policy: Policy, options: ScoreOptions, met: bool) -> None:
    """A response that was made for another caller, and cached, is not taken for one that is masked for this one."""
    assert meets(checked(), policy, options) is met
    assert meets(checked(None), policy, options)


def _compressed(response: Response) -> None:
    response.set_data(gzip.compress(response.get_data()))


CHANGES: list[Any] = [
    pytest.param(lambda response: response.set_data(b"[0.123]"), id="set"),
    pytest.param(lambda response: response.set_data(response.get_data()), id="set again"),
    pytest.param(lambda response: setattr(response, "response", [b"[0.123]"]), id="replaced"),
    pytest.param(lambda response: setattr(response, "response", iter([b"[0.1]"])), id="streamed"),
    pytest.param(lambda response: response.response.append(b"0.123"), id="appended"),
    pytest.param(lambda response: response.response.insert(0, b"0.123"), id="inserted"),
    pytest.param(lambda response: response.response.__setitem__(0, b"[0.123]"), id="item"),
    pytest.param(lambda response: response.response.clear(), id="cleared"),
    pytest.param(lambda response: response.stream.write(b"0.123"), id="written"),
    pytest.param(_compressed, id="compressed"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_another_body_loses_the_mark(change: Callable[[Response], None]) -> None:
    """Any change of a body by the app removes the mark."""
    response = checked()
    assert meets(response)
    change(response)
    assert not meets(response)


@pytest.mark.parametrize(
    "body", [[bytearray(b"1")], [b"1", b""], [], (b"1",), iter([b"1"])], ids=lambda body: type(body).__name__
)
def test_only_one_piece_of_bytes_is_marked(body: Any) -> None:
    """A body that can still change, or is in several pieces, is checked when it is sent."""
    response = Response()
    response.response = body
    mark_checked(response, POLICY, MASKED)
    assert response.response is body
    assert sole_chunk(response) is None
