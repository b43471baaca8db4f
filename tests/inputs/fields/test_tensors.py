from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marshmallow import Schema, ValidationError

from field_loading import errors, load
from flask_secure_ml.inputs import Tensor


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [[1, 2.5], [-3, 0]]),
        ("float16", [[65504, 0.5]]),
        ("float64", [[1e308, 2**53]]),
        (">f4", [[1.5, 2]]),
        ("int8", [[-128, 127]]),
        ("uint8", [[0, 255]]),
        ("int64", [[-(2**63), 2**63 - 1]]),
        ("uint64", [[0, 2**64 - 1]]),
        (np.int32, [[1, 2]]),
        (bool, [[True, False]]),
    ],
    ids=str,
)
def test_loads_an_array(dtype: Any, value: list[Any]) -> None:
    """Nested lists become a C-contiguous array of the dtype with the same values."""
    array = load(Tensor((None, 2), dtype), value)
    assert (array.dtype, array.flags.c_contiguous) == (np.dtype(dtype), True)
    assert array.tolist() == value


@pytest.mark.parametrize(
    ("shape", "value"),
    [((3,), [1, 2, 3]), ((None,), [1]), ((2, 1, None), [[[1, 2]], [[3, 4]]]), ((1, 1, 1, 1), [[[[7]]]])],
    ids=str,
)
def test_any_number_of_dimensions(shape: tuple[int | None, ...], value: list[Any]) -> None:
    """A shape has one or more dimensions, each of a length or of any length."""
    assert load(Tensor(shape), value).tolist() == value


LISTS = "Not a list."
NUMBER = "Not a number."
INTEGER = "Not an integer."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("12", [LISTS], id="text"),
        pytest.param({"0": [1, 2]}, [LISTS], id="object"),
        pytest.param(1.0, [LISTS], id="number"),
        pytest.param(True, [LISTS], id="boolean"),
        pytest.param((1, 2), [LISTS], id="tuple"),
        pytest.param([], ["Must not be empty."], id="empty"),
        pytest.param([1, 2], {0: [LISTS], 1: [LISTS]}, id="too flat"),
        pytest.param([[1, 2], None], {1: [LISTS]}, id="a row of null"),
        pytest.param([[1, 2], "12"], {1: [LISTS]}, id="a row of text"),
        pytest.param([[]], {0: ["Must have 2 items."]}, id="an empty row"),
        pytest.param([[1, 2], [1], [1, 2, 3]], {1: ["Must have 2 items."], 2: ["Must have 2 items."]}, id="ragged"),
        pytest.param([[[1], 2]], {0: {0: [NUMBER]}}, id="too deep"),
        pytest.param([[True, 2]], {0: {0: [NUMBER]}}, id="a boolean inside"),
        pytest.param([[1, 2], [1, None]], {1: {1: [NUMBER]}}, id="null inside"),
        pytest.param([["1", 2.0]], {0: {0: [NUMBER]}}, id="text inside"),
        pytest.param([[{}, 2.0]], {0: {0: [NUMBER]}}, id="an object inside"),
    ],
)
def test_only_lists_of_numbers_of_the_right_shape(value: Any, expected: Any) -> None:
    """Values are never guessed or converted; every error has the position of its cause."""
    assert errors(Tensor((None, 2)), value) == expected


def test_rows_of_any_length_are_of_one_length() -> None:
    """Without a length in the shape, the first row determines that of the others."""
    field = Tensor((None, None))
    assert errors(field, [[1, 2], [1, 2], [1]]) == {2: ["Must have the same length as its siblings."]}
    assert errors(field, [[], []]) == {0: ["Must not be empty."], 1: ["Must not be empty."]}


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int32", 1.0, INTEGER),
        ("int32", 1.5, INTEGER),
        ("uint8", True, INTEGER),
        ("bool", 1, "Not a boolean."),
        ("bool", 0.0, "Not a boolean."),
        ("float32", float("nan"), "Not a finite number, or too large for float32."),
        ("float64", float("-inf"), "Not a finite number, or too large for float64."),
        ("float32", 1e39, "Not a finite number, or too large for float32."),
        ("float16", 70_000, "Not a finite number, or too large for float16."),
        ("float64", 10**400, "Not a finite number, or too large for float64."),
        ("float64", -(10**400), "Not a finite number, or too large for float64."),
        ("int8", 128, "Must be from -128 to 127."),
        ("int8", -129, "Must be from -128 to 127."),
        ("uint8", -1, "Must be from 0 to 255."),
        ("int64", 2**63, f"Must be from {-(2**63)} to {2**63 - 1}."),
        ("uint64", 2**64, f"Must be from 0 to {2**64 - 1}."),
        ("uint64", -1, f"Must be from 0 to {2**64 - 1}."),
        ("int32", 10**400, f"Must be from {-(2**31)} to {2**31 - 1}."),
    ],
)
def test_numbers_must_fit_the_dtype(dtype: str, value: Any, message: str) -> None:
    """A number that the dtype would change into another one is rejected, at its position."""
    zero: Any = {"b": False, "f": 0.0}.get(np.dtype(dtype).kind, 0)
    assert errors(Tensor((None,), dtype), [zero, value, zero]) == {1: [message]}


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        ({"minimum": 0, "maximum": 16}, [[0, 16], [8, 8]], None),
        ({"minimum": 0, "maximum": 16}, [[0, 16], [-1, 8]], {1: {0: ["Must be at least 0."]}}),
        ({"minimum": 0, "maximum": 16}, [[0, 16.5], [8, 8]], {0: {1: ["Must be at most 16."]}}),
        ({"minimum": [0, -5]}, [[0, -5], [9, 9]], None),
        ({"minimum": [0, -5]}, [[-1, -6]], {0: {0: ["Must be at least 0."], 1: ["Must be at least -5."]}}),
        ({"maximum": [0.5, 1_000_000]}, [[1, 1], [0, 0]], {0: {0: ["Must be at most 0.5."]}}),
        ({"maximum": [0.5, 1_000_000]}, [[0, 0], [0, 1_000_001]], {1: {1: ["Must be at most 1000000."]}}),
        ({"minimum": float("-inf"), "maximum": float("inf")}, [[-1e38, 1e38]], None),
    ],
)  # fmt: skip
def test_bounds(bounds: dict[str, Any], value: list[Any], expected: Any) -> None:
    """Bounds are allowed values themselves, for all positions or one by one of the last dimension."""
    field = Tensor((None, 2), **bounds)
    if expected is None:
        assert load(field, value).shape == np.shape(value)
    else:
        assert errors(field, value) == expected


@pytest.mark.parametrize(
    ("dtype", "bounds", "value", "wrong"),
    [
        ("int64", {"minimum": 2**53 + 1}, [2**53, 2**53 + 1], 0),
        ("int64", {"maximum": 2**63 - 2}, [2**63 - 1, 2**63 - 2], 0),
        ("uint64", {"minimum": 2**64 - 1}, [2**64 - 1, 2**64 - 2], 1),
        ("int16", {"minimum": 0.5}, [1, 0], 1),
        ("int16", {"maximum": 1.5}, [2, 1], 0),
        ("int16", {"minimum": [0, 5]}, [0, 4], 1),
    ],
    ids=str,
)
def test_bounds_of_integers_are_exact(dtype: str, bounds: dict[str, Any], value: list[int], wrong: int) -> None:
    """Integers beyond 2**53 are not compared as floats, and a bound between two integers is the inner one."""
    assert list(errors(Tensor((2,), dtype, **bounds), value)) == [wrong]


@pytest.mark.parametrize("dtype", ["int16", "uint64"])
def test_bounds_of_integers(dtype: str) -> None:
    """Integers have bounds as floats do, also when they are beyond 64 bits."""
    assert errors(Tensor((None,), dtype, minimum=2, maximum=4), [1, 2, 4]) == {0: ["Must be at least 2."]}
    assert errors(Tensor((None,), "uint64", maximum=4), [4, 2**64 - 1]) == {1: ["Must be at most 4."]}


def test_bounds_are_checked_before_the_cast() -> None:
    """A value is compared as it was sent, not as float32 rounds it."""
    assert errors(Tensor((1,), maximum=16), [16.0000000001]) == {0: ["Must be at most 16."]}


def test_at_most_twenty_places_are_named() -> None:
    """A batch that is wrong everywhere gets a short response."""
    wrong = errors(Tensor((None, 3), maximum=1), [[2, 2, 2]] * 100)
    assert sum(map(len, wrong.values())) == 20
    assert list(wrong) == list(range(7))
    assert len(errors(Tensor((None, 3)), ["row"] * 100)) == 20


def test_caps() -> None:
    """The cap on rows and the limit on elements are the largest that pass."""
    assert load(Tensor((None, 2), max_items=3), [[1, 2]] * 3).shape == (3, 2)
    assert errors(Tensor((None, 2), max_items=3), [[1, 2]] * 4) == ["Must have at most 3 items."]
    assert load(Tensor((None, None), max_elements=6), [[1, 2]] * 3).shape == (3, 2)
    assert errors(Tensor((None, None), max_elements=6), [[1, 2, 3, 4]] * 2) == ["Must have at most 6 elements in all."]
    assert errors(Tensor((None,)), [0] * 1_000_001) == ["Must have at most 1000000 elements in all."]


def test_a_cap_is_checked_before_rows_are_joined() -> None:
    """Rows that are one and the same list cannot be multiplied past the limit."""
    row = [0.0] * 100_000
    assert errors(Tensor((None, None)), [row] * 100_000) == ["Must have at most 1000000 elements in all."]


def test_options_of_a_field() -> None:
    """Required, null, default and the messages work as with any field of marshmallow."""
    assert errors(Tensor((1,)), None) == ["Field may not be null."]
    assert load(Tensor((1,), allow_none=True), None) is None
    optional = {"y": Tensor((1,), required=False), "z": Tensor((1,), load_default=None)}
    schema = Schema.from_dict({"x": Tensor((1,)), **optional})()
    assert schema.validate({}) == {"x": ["Missing data for required field."]}
    custom = Tensor((None, 2), error_messages={"length": "Needs {expected}.", "maximum": "Over."}, maximum=0)
    assert errors(custom, [[1]]) == {0: ["Needs 2."]}
    assert errors(custom, [[1, 0]]) == {0: {0: ["Over."]}}
    assert Tensor((1,)).error_messages["length"] == "Must have {expected} items."
    assert load(copy.deepcopy(custom), [[0, 0]]).shape == (1, 2)


def test_many_objects_with_tensors() -> None:
    """Each object of an array has its own tensor, and errors begin with its index."""
    schema = Schema.from_dict({"x": Tensor((2,))})(many=True)
    assert [item["x"].tolist() for item in schema.load([{"x": [1, 2]}, {"x": [3, 4]}])] == [[1, 2], [3, 4]]
    wrong: Any = schema.validate([{"x": [1, 2]}, {"x": [3]}])
    assert wrong == {1: {"x": ["Must have 2 items."]}}


def test_dumps_an_array() -> None:
    """An array is dumped as nested lists, and None as None."""
    schema = Schema.from_dict({"x": Tensor((None, 2))})()
    assert schema.dump({"x": np.arange(4.0).reshape(2, 2).T}) == {"x": [[0.0, 2.0], [1.0, 3.0]]}
    assert schema.dump({"x": [[1, 2]]}) == {"x": [[1, 2]]}
    assert schema.dump({"x": None}) == {"x": None}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param({"shape": 3}, "shape must be a tuple", id="shape a number"),
        pytest.param({"shape": "3"}, "shape must be a tuple", id="shape a text"),
        pytest.param({"shape": (0,)}, "shape must be a tuple", id="shape with zero"),
        pytest.param({"shape": (True,)}, "shape must be a tuple", id="shape with a boolean"),
        pytest.param({"shape": (1.0,)}, "shape must be a tuple", id="shape with a float"),
        pytest.param({"shape": ()}, "1 to 32 dimensions", id="no dimension"),
        pytest.param({"shape": (1,) * 33}, "1 to 32 dimensions", id="too many dimensions"),
        pytest.param({"dtype": "complex64"}, "dtype must be", id="complex"),
        pytest.param({"dtype": "U8"}, "dtype must be", id="text"),
        pytest.param({"dtype": object}, "dtype must be", id="object"),
        pytest.param({"dtype": "longdouble"}, "dtype must be", id="long double"),
        pytest.param({"dtype": "float33"}, "not understood", id="unknown dtype"),
        pytest.param({"shape": (None, "two words")}, "shape must be a tuple", id="a name of two words"),
        pytest.param({"shape": (None, "")}, "shape must be a tuple", id="an empty name"),
        pytest.param({"minimum": 2, "maximum": 1}, "minimum must not be greater", id="crossed"),
        pytest.param({"minimum": [0, 5], "maximum": 1}, "minimum must not be greater", id="crossed at one place"),
        pytest.param({"minimum": float("nan")}, "minimum must be a number", id="bound of NaN"),
        pytest.param({"maximum": [1, 2, 3]}, "one for each position", id="too many bounds"),
        pytest.param({"maximum": [[1, 2]]}, "one for each position", id="nested bounds"),
        pytest.param({"shape": (2, None), "maximum": [1, 2]}, "one for each position", id="bounds for any length"),
        pytest.param({"dtype": "bool", "minimum": 0}, "does not apply to booleans", id="bound of booleans"),
        pytest.param({"dtype": "int8", "minimum": 128}, "excludes every value", id="minimum beyond dtype"),
        pytest.param({"dtype": "int8", "minimum": [0, float("inf")]}, "excludes every value", id="infinite minimum"),
        pytest.param({"dtype": "uint8", "maximum": -1}, "excludes every value", id="maximum beyond dtype"),
        pytest.param({"dtype": "int8", "minimum": 0.2, "maximum": 0.8}, "a value between", id="no integer between"),
        pytest.param({"outside": "clip"}, "outside must be", id="clip without bounds"),
        pytest.param({"outside": "report"}, "outside must be", id="report without bounds"),
        pytest.param({"outside": "ignore", "minimum": 0}, "outside must be", id="unknown outside"),
        pytest.param({"allowed": []}, "allowed must be numbers", id="nothing allowed"),
        pytest.param({"allowed": "12"}, "allowed must be numbers", id="allowed a text"),
        pytest.param({"allowed": [True]}, "allowed must be numbers", id="allowed a boolean"),
        pytest.param({"allowed": [float("nan")]}, "allowed must be numbers", id="allowed NaN"),
        pytest.param({"dtype": "int8", "allowed": [1.5]}, "whole numbers", id="allowed a fraction"),
        pytest.param({"dtype": "int8", "allowed": [1, 128]}, "whole numbers that int8 has", id="allowed beyond dtype"),
        pytest.param({"dtype": "bool", "allowed": [1]}, "does not apply to booleans", id="allowed of booleans"),
        pytest.param({"dtype": "bool", "total": (0, 1)}, "does not apply to booleans", id="sum of booleans"),
        pytest.param({"dtype": "bool", "norm": (0, 1)}, "does not apply to booleans", id="norm of booleans"),
        pytest.param({"total": 1}, "total must be two numbers", id="sum a number"),
        pytest.param({"total": (0, 1, 2)}, "total must be two numbers", id="sum of three"),
        pytest.param({"norm": (0, None)}, "norm must be two numbers", id="norm without an end"),
        pytest.param({"norm": (0, float("nan"))}, "norm must be two numbers", id="norm of NaN"),
        pytest.param({"norm": (2, 1)}, "norm must not have its first", id="crossed norm"),
        pytest.param({"max_items": 0}, "max_items must be a whole number", id="no items"),
        pytest.param({"max_items": True}, "max_items must be a whole number", id="items a boolean"),
        pytest.param({"max_elements": 1.5}, "max_elements must be a whole number", id="elements a float"),
        pytest.param({"shape": (9, 2), "max_items": 8}, "max_items must not be less", id="items against shape"),
        pytest.param({"shape": (9, 2), "max_elements": 17}, "max_elements must not be", id="elements against shape"),
    ],
)  # fmt: skip
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """An invalid definition raises an error at once, with valid values."""
    with pytest.raises((TypeError, ValueError), match=part):
        Tensor(**({"shape": (None, 2)} | arguments))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_any_array_comes_back(array: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """A dumped array is loaded bit by bit."""
    field = Tensor((None,) * array.ndim)
    found = load(field, array.tolist())
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


_leaves = st.one_of(st.integers(), st.floats(), st.text(max_size=2), st.booleans(), st.none(), st.just({}))


@given(
    value=st.recursive(_leaves, st.lists, max_leaves=12),
    shape=st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32", "int8", "uint64", "bool"]),
)
def test_fuzz_any_value_is_loaded_as_it_is_or_rejected(value: Any, shape: tuple[int | None, ...], dtype: str) -> None:
    """Invalid values only raise ValidationError, and valid values are not changed."""
    field = Tensor(shape, dtype)
    try:
        array = field.deserialize(value)
    except ValidationError:
        return
    assert array.ndim == len(shape)
    assert array.dtype == dtype
    assert np.array_equal(array, np.array(value, dtype=dtype))
