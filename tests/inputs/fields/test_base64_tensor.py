from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marshmallow import Schema

from field_loading import corpus, errors, load, message
from flask_secure_ml.inputs import Base64Tensor
from flask_secure_ml.inputs.fields.base64_tensor import decode, decoded_size, encoded_length

FIELD = Base64Tensor((None, 2), max_elements=1000)
ONE_TWO = "AACAPwAAAEA="
SHORTS = np.array([1, -2, 3, 4], "<i2")


def encoded(array: Any) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        pytest.param(FIELD, ONE_TWO, [[1, 2]], id="text"),
        pytest.param(FIELD, {"b64": ONE_TWO}, [[1, 2]], id="object"),
        pytest.param(FIELD, {"b64": ONE_TWO, "shape": [1, 2]}, [[1, 2]], id="shape"),
        pytest.param(FIELD, {"b64": ONE_TWO, "dtype": "float32"}, [[1, 2]], id="dtype"),
        pytest.param(FIELD, {"b64": encoded(np.array([1, -2], "<f8")), "dtype": "float64"}, [[1, -2]], id="doubles"),
        pytest.param(FIELD, {"b64": "AQL/AA==", "dtype": "uint8"}, [[1, 2], [255, 0]], id="bytes for floats"),
        pytest.param(Base64Tensor((2, 2), "int16"), encoded(SHORTS), [[1, -2], [3, 4]], id="fixed"),
        pytest.param(Base64Tensor((3,), "bool"), "AQAB", [True, False, True], id="booleans"),
        pytest.param(Base64Tensor((None,), ">f4"), "AACAPw==", [1], id="a field of another byte order"),
        pytest.param(Base64Tensor((None, None)), {"b64": ONE_TWO, "shape": [2, 1]}, [[1], [2]], id="two open lengths"),
        pytest.param(FIELD, np.array([[1, 2]], "f4"), [[1, 2]], id="array"),
    ],
)  # fmt: skip
def test_loads_the_bytes_of_an_array(field: Base64Tensor, value: Any, expected: list[Any]) -> None:
    """Little-endian bytes in C order become an array of the field's dtype that may be written to."""
    found = load(field, value)
    assert (found.tolist(), found.dtype, found.flags.writeable) == (expected, field.dtype, True)


@pytest.mark.parametrize("case", corpus("base64_tensor"))
def test_rejects(case: dict[str, Any]) -> None:
    """Every case of ``tests/corpus/fields/base64_tensor.json`` is rejected, at the member that is wrong."""
    found = errors(FIELD, case["value"])
    expected = case["errors"]
    assert found == ({0: {0: expected["0"]["0"]}} if "0" in expected else expected)


def test_a_dtype_is_taken_as_from_a_list() -> None:
    """Integers may come for floats; floats for integers and numbers for booleans may not."""
    integers = Base64Tensor((1,), "int32")
    assert load(integers, {"b64": "BQ==", "dtype": "uint8"}).tolist() == [5]
    assert errors(integers, {"b64": "AACAPw==", "dtype": "float32"}) == {
        "dtype": ["Not a dtype that is accepted here."]
    }
    assert list(errors(Base64Tensor((1,), "bool"), {"b64": "AQ==", "dtype": "uint8"})) == ["dtype"]
    assert message(Base64Tensor((1,), "bool"), "Ag==") == "Not a boolean."


@pytest.mark.parametrize("text", ["BQU=", "BQUF", "====", "BQ=A"])
def test_padding_counts(text: str) -> None:
    """Strings of one length can have one, two or three bytes; only the right number makes an array."""
    field = Base64Tensor((1,), "uint8")
    assert list(errors(field, {"b64": text, "shape": [1]})) == ["b64"]
    assert load(field, {"b64": "BQ==", "shape": [1]}).tolist() == [5]


def test_two_open_lengths_need_a_shape() -> None:
    """Lengths that do not follow from the number of bytes must be sent."""
    text = "Missing, and does not follow from the number of bytes."
    assert message(Base64Tensor((None, None)), ONE_TWO) == text
    assert errors(Base64Tensor((None, None)), {"b64": ONE_TWO}) == {"shape": [text]}


def test_sizes_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is too large, or does not match, is rejected before decoding."""
    monkeypatch.setattr("flask_secure_ml.inputs.fields.base64_tensor.decode", lambda _text: pytest.fail("decoded"))
    for shape in ([501, 2], [2**62, 2], [10**4000, 2]):
        assert errors(FIELD, {"b64": ONE_TWO, "shape": shape}) == {"shape": ["Must have at most 1000 elements in all."]}
    assert list(errors(FIELD, {"b64": ONE_TWO, "shape": [500, 2]})) == ["b64"]
    assert message(FIELD, "A" * 12_000) == "Must have at most 1000 elements in all."
    assert message(Base64Tensor((None, 2), max_items=2), "A" * 32) == "Must have at most 2 items."


def test_rules_of_tensors_hold() -> None:
    """Bounds and the like are those of Tensor."""
    assert errors(Base64Tensor((2,), maximum=1), ONE_TWO) == {1: ["Must be at most 1."]}
    assert errors(Base64Tensor((2,), total=(0, 1)), ONE_TWO) == ["Must have a sum from 0 to 1."]


def test_many_unknown_members_make_twenty_errors() -> None:
    """The response stays short."""
    assert len(errors(FIELD, {f"m{number}": 0 for number in range(100)})) == 20


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i2", "<u8", "?"]),
        hnp.array_shapes(min_dims=1, max_dims=3),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_fuzz_what_is_dumped_is_loaded(array: np.ndarray[Any, Any]) -> None:
    """A dumped array is loaded bit by bit, whatever its dtype and layout."""
    schema = Schema.from_dict({"x": Base64Tensor((None,) * array.ndim, array.dtype)})()
    for layout in (array, array.T, array.astype(array.dtype.newbyteorder(">"))):
        dumped = schema.dump({"x": layout})
        assert schema.load(dumped)["x"].tobytes() == layout.astype(array.dtype).tobytes()
    assert schema.dump({"x": None}) == {"x": None}


def test_bytes_are_dumped_little_endian() -> None:
    """The byte order of the field in memory does not affect the wire format."""
    dumped = Schema.from_dict({"x": Base64Tensor((None,), ">f4")})().dump({"x": [1.0]})
    assert dumped == {"x": {"b64": "AACAPw==", "shape": [1], "dtype": "float32"}}


@given(st.binary(max_size=40))
def test_fuzz_every_value_has_one_text(data: bytes) -> None:
    """The canonical text is accepted, and its size is known before it is decoded."""
    text = b64encode(data).decode()
    assert (decode(text), decoded_size(text), encoded_length(len(data))) == (data, len(data), len(text))


@given(st.text(st.sampled_from("ABab01+/=-_ \n"), max_size=9))
def test_fuzz_every_text_has_one_value(text: str) -> None:
    """An accepted string is exactly the encoding of its value."""
    try:
        data = decode(text)
    except ValueError:
        return
    assert b64encode(data).decode() == text
