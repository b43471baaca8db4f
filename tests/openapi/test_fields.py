"""Fields as JSON Schema: the schema accepts exactly the values that the field accepts."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from marshmallow import Schema, ValidationError

from flask_secure_ml.inputs import Base64Tensor, Categorical, FilePath, Image, Tensor, Text, Url
from flask_secure_ml.openapi.schemas import field_schema

# Each has at most one length that is free, so that lists of different lengths are wrong by schema too.
FIELDS = {
    "range": Tensor((None, 2), minimum=-1, maximum=2),
    "range by column": Tensor((None, 2), minimum=[0, 1], maximum=[1, 3]),
    "one side": Tensor((2,), minimum=1),
    "half precision": Tensor((2,), "float16"),
    "endless": Tensor((2,), minimum=float("-inf"), maximum=2),
    "nothing finite": Tensor((2,), allowed=[float("inf")]),
    "something finite": Tensor((2,), allowed=[1, float("inf")]),
    "items": Tensor((None,), max_items=2),
    "integers": Tensor((2,), "int8"),
    "unsigned": Tensor((None, 2), "uint8", maximum=3),
    "booleans": Tensor((2,), "bool"),
    "allowed": Tensor((None, 2), "int16", allowed=[0, 1, 3]),
    "null": Tensor((2,), allow_none=True),
    "clipped": Tensor((2,), minimum=0, maximum=1, outside="clip"),
    "cube": Tensor((1, 2, 1), minimum=0),
    "category": Categorical(["a", "b"]),
    "categories": Categorical([1, 2], (None,)),
    "null category": Categorical(["a", "b"], allow_none=True),
    "text": Text(3, min_length=2),
}
# Without 1.0, which JSON Schema cannot tell from 1.
NUMBERS = [0, 1, 2, 3, -1, 127, 128, 256, 0.5, 2.5, 65504, 70000.0]
LEAVES: st.SearchStrategy[Any] = st.sampled_from([*NUMBERS, True, False, None, "a", "ab", "abcd", "", {}])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8) | st.lists(
    st.lists(LEAVES, min_size=2, max_size=2), min_size=1, max_size=3
)


def is_taken(field: Any, value: Any) -> bool:
    try:
        Schema.from_dict({"x": field})().load({"x": value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@given(value=VALUES)
def test_fuzz_the_schema_takes_what_the_field_takes(field: Any, value: Any) -> None:
    """No value passes one and not the other."""
    schema = field_schema(field) or {}
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(value) == is_taken(field, value)


@pytest.mark.parametrize("field", [each for name, each in FIELDS.items() if name != "nothing finite"])
def test_some_value_is_taken(field: Any) -> None:
    """The comparison above is meaningful: each field accepts one of the tried values."""
    tried = [[[0, 1]], [1, 1], [[1, 1]], [1], [True, False], [[[1], [1]]], "a", "ab"]
    assert any(is_taken(field, value) for value in tried)


def test_what_json_schema_has_no_word_for() -> None:
    """Extensions have the named shape, dtype, sums and bounds that do not reject."""
    field = Tensor(
        ("rows", 3), "float64", total=(0, 1), minimum=[0, 0, float("-inf")], outside="report", max_elements=30
    )
    found = field_schema(field) or {}
    assert found["x-shape"] == ["rows", 3]
    assert (found["x-dtype"], found["x-max-elements"], found["x-total"]) == ("float64", 30, [0.0, 1.0])
    assert (found["x-outside"], found["x-minimum"]) == ("report", [0.0, 0.0, None])
    assert "x-features" not in found
    named = field_schema(Tensor((None, 2), features=["age", "income"])) or {}
    assert named["x-features"] == ["age", "income"]


def test_infinite_bounds_are_none() -> None:
    """JSON has no word for Infinity: a side without a bound is null, or is not reported."""
    field = Tensor((2,), minimum=float("-inf"), maximum=2, total=(float("-inf"), 1), norm=(0, float("inf")))
    found = field_schema(field) or {}
    assert (found["x-total"], found["x-norm"]) == ([None, 1.0], [0.0, None])
    assert "inf" not in json.dumps(found, allow_nan=False)
    assert "a sum to 1; the last dimension with a Euclidean norm from 0" in found["description"]


def test_infinite_values_are_not_allowed() -> None:
    """Of allowed values, those are reported that can be sent."""
    found = field_schema(Tensor((2,), allowed=[1, float("inf")])) or {}
    assert found["items"] == {"type": "number", "enum": [1.0]}


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16", "float64", "bool", "<f4", "O", "float128", "(2,)f4"])
def test_dtypes_of_base64(dtype: str) -> None:
    """Those are reported that the field takes, by name."""
    field = Base64Tensor((2,), "float32")
    size = 8 if dtype in ("<f4", "O", "float128", "(2,)f4") else 2 * np.dtype(dtype).itemsize
    value = {"b64": b64encode(bytes(size)).decode(), "dtype": dtype}
    assert Draft202012Validator(field_schema(field) or {}).is_valid(value) == is_taken(field, value)


SENT = st.fixed_dictionaries(
    {},
    optional={
        "b64": st.sampled_from(["AAAAAAAAAAA=", "AAA=", "AAAA"]),
        "shape": st.sampled_from([[2], [1], [2, 1], []]),
        "dtype": st.sampled_from(["float32", "int32", "float16", "bool", "<f4", "O", "float128"]),
        "more": st.none(),
    },
)


@given(value=SENT)
def test_fuzz_base64_takes_no_more_than_it_says(value: dict[str, Any]) -> None:
    """Values that the field accepts match the schema, which cannot express the number of bytes."""
    field = Base64Tensor((2,), "float32")
    fits = Draft202012Validator(field_schema(field) or {}).is_valid(value)
    assert fits or not is_taken(field, value)
    if fits and value["b64"] == "AAAAAAAAAAA=":
        size = 2 * np.dtype(value.get("dtype", "float32")).itemsize
        assert is_taken(field, value) == (size == len(b64decode(value["b64"])))


def test_other_fields() -> None:
    """Images, URLs and tensors in base64 have their format and limits."""
    picture = field_schema(Image(max_bytes=300)) or {}
    assert (picture["contentEncoding"], picture["maxLength"]) == ("base64", 400)
    address = field_schema(Url(["a.example"])) or {}
    assert address["format"] == "uri"
    assert "a.example" not in str(address)
    packed = field_schema(Base64Tensor((1, 2), "uint8", minimum=3)) or {}
    for example in packed["examples"]:
        assert Draft202012Validator(packed).is_valid(example)
        assert is_taken(Base64Tensor((1, 2), "uint8", minimum=3), example)
    file = field_schema(FilePath("/srv/models", suffixes=[".onnx"])) or {}
    assert ".onnx" in file["description"]
    assert "srv" not in str(file)
    assert field_schema(Schema.from_dict({})()) is None
