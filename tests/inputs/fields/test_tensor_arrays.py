from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marshmallow import ValidationError
from numpy.typing import NDArray

from field_loading import errors, load, message
from flask_secure_ml.inputs import Tensor

Array = NDArray[Any]
SQUARE = np.arange(4.0).reshape(2, 2)


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        ("float32", np.array([[1, 2.5]], "f4")),
        ("float32", np.array([[1, 2.5]], "f8")),
        ("float32", np.array([[1, 2.5]], "f2")),
        ("float32", np.array([[1, 2]], "u1")),
        ("float32", np.array([[1, 2.5]], ">f4")),
        ("float64", np.array([[-1, 2**53]], ">i8")),
        (">f4", np.array([[1, 2.5]], "f4")),
        ("int8", np.array([[-128, 127]], ">i8")),
        ("uint64", np.array([[0, 2**64 - 1]], "u8")),
        ("int64", np.array([[0, 255]], "u1")),
        ("uint8", np.array([[0, 255]], "i2")),
        ("bool", np.array([[True, False]])),
        ("float32", np.array([[1, 2.5], [3, 4]], "f4").T),
        ("float32", np.array([[1, 9, 2.5, 9]], "f4")[:, ::2]),
        ("float32", np.broadcast_to(np.float32(1), (3, 2))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype.str}{value.shape}",
)
def test_an_array_is_loaded_as_its_lists_would_be(dtype: str, array: Array) -> None:
    """Byte order, width and layout are converted; the result is C-contiguous, aligned and may be written to."""
    found = load(Tensor((None, 2), dtype), array)
    assert found.dtype == np.dtype(dtype)
    assert found.flags.carray or not found.dtype.isnative
    assert (found.flags.c_contiguous, found.flags.writeable) == (True, True)
    assert found.tolist() == array.tolist()


def test_what_fits_is_not_copied() -> None:
    """A writeable array that matches the field is passed on without a copy."""
    array = np.ones((2, 2), "f4")
    assert load(Tensor((None, 2), minimum=0, maximum=1), array) is array


@pytest.mark.parametrize("body", [b"\0\0\x80\x3f" * 4, memoryview(bytearray(b"\0\0\x80\x3f" * 4)).toreadonly()])
def test_a_view_of_the_body_is_copied(body: Any) -> None:
    """A view gets an array of its own when the bytes below are not to be written to."""
    array = np.frombuffer(body, "<f4").reshape(2, 2)
    found = load(Tensor((None, 2)), array)
    found[0, 0] = 7
    assert array[0, 0] == 1


@pytest.mark.parametrize(
    ("dtype", "array", "expected"),
    [
        pytest.param("float32", np.array([["1", "2"]]), "Not a number.", id="text"),
        pytest.param("float32", np.array([[b"1", b"2"]]), "Not a number.", id="bytes"),
        pytest.param("float32", np.array([[1.0, 2.0]], object), "Not a number.", id="objects"),
        pytest.param("float32", np.array([[(1, 2), (3, 4)]], "i4,i4"), "Not a number.", id="records"),
        pytest.param("float32", np.zeros((1, 2), "c8"), "Not a number.", id="complex"),
        pytest.param("float32", np.zeros((1, 2), "M8[s]"), "Not a number.", id="times"),
        pytest.param("float32", np.zeros((1, 2), bool), "Not a number.", id="booleans for numbers"),
        pytest.param("float64", np.zeros((1, 2), "longdouble"), "Not a number.", id="long double"),
        pytest.param("int32", np.zeros((1, 2), "f4"), "Not an integer.", id="floats for integers"),
        pytest.param("int32", np.zeros((1, 2), bool), "Not an integer.", id="booleans for integers"),
        pytest.param("bool", np.zeros((1, 2), "u1"), "Not a boolean.", id="integers for booleans"),
        pytest.param("bool", np.frombuffer(b"\1\2", "?").reshape(1, 2), "Not a boolean.", id="a boolean of 2"),
        pytest.param("float32", np.zeros(2, "f4"), "Must have the shape (any, 2).", id="too flat"),
        pytest.param("float32", np.zeros((1, 2, 1), "f4"), "Must have the shape (any, 2).", id="too deep"),
        pytest.param("float32", np.array(1, "f4"), "Must have the shape (any, 2).", id="no dimension"),
        pytest.param("float32", np.zeros((1, 3), "f4"), "Must have the shape (any, 2).", id="a wrong length"),
        pytest.param("float32", np.zeros((0, 2), "f4"), "Must not be empty.", id="empty"),
        pytest.param("float32", np.ma.zeros((1, 2), "f4"), "Not a list.", id="masked"),
        pytest.param("float32", np.float32(1), "Not a list.", id="a scalar of numpy"),
    ],
)
def test_arrays_are_held_to_the_rules_of_lists(dtype: str, array: Any, expected: str) -> None:
    """An array of another kind or shape is rejected as a whole."""
    assert message(Tensor((None, 2), dtype), array) == expected


@pytest.mark.parametrize(
    ("field", "array", "wrong"),
    [
        (Tensor((2, 2), "int8"), np.array([[0, 300], [0, 0]]), {0: {1: ["Must be from -128 to 127."]}}),
        (Tensor((2, 2), "uint8"), np.array([[0, 0], [-1, 0]], ">i2"), {1: {0: ["Must be from 0 to 255."]}}),
        (Tensor((2, 2), maximum=2), SQUARE, {1: {1: ["Must be at most 2."]}}),
        (Tensor((2, 2), maximum=2), SQUARE.astype("f4"), {1: {1: ["Must be at most 2."]}}),
        (Tensor((2, 2), minimum=[1, 3]), SQUARE.T, {0: {0: ["Must be at least 1."], 1: ["Must be at least 3."]}}),
    ],
)  # fmt: skip
def test_errors_in_arrays_have_positions(field: Tensor, array: Array, wrong: dict[int, Any]) -> None:
    """Values are pointed to as in lists."""
    assert errors(field, array) == errors(field, array.tolist()) == wrong


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_arrays_are_finite(value: float) -> None:
    """Infinite values are rejected, also those that become infinite in the dtype."""
    expected = {0: {1: ["Not a finite number, or too large for float32."]}}
    assert errors(Tensor((None, 2)), np.array([[0, value]])) == expected


def test_caps_hold_for_arrays() -> None:
    """The limits on rows and on elements are the same as for lists."""
    assert load(Tensor((None, 2), max_items=3), np.zeros((3, 2))).shape == (3, 2)
    assert message(Tensor((None, 2), max_items=3), np.zeros((4, 2))) == "Must have at most 3 items."
    assert load(Tensor((None, None), max_elements=6), np.zeros((3, 2))).shape == (3, 2)
    tall = np.broadcast_to(np.float32(0), (7, 1))
    assert message(Tensor((None, None), max_elements=6), tall) == "Must have at most 6 elements in all."


def test_a_float32_passes_the_bound_that_it_rounds() -> None:
    """0.1 as float32 is a little more than 0.1; it passes whether a binary format brings it or JSON."""
    field = Tensor((1,), maximum=0.1)
    nearest = np.array([0.1], "f4")
    assert nearest.astype("f8")[0] > 0.1
    assert load(field, nearest) == nearest
    assert load(field, nearest.tolist()) == nearest
    assert load(field, [0.1]) == nearest
    above = np.nextafter(nearest, np.float32(1))
    assert errors(field, above) == errors(field, above.tolist()) == {0: ["Must be at most 0.1."]}


def test_integers_become_floats_as_those_of_lists_do() -> None:
    """An integer is rounded to 64 bits first, which is where JSON has it, and then to the dtype."""
    tie = (2**24 + 1) * 2**36 + 1
    found = load(Tensor((1,)), np.array([tie]))
    assert found == load(Tensor((1,)), [tie])
    assert found != np.array([tie]).astype("f4")


NUMBERS = hnp.array_shapes(min_dims=1, max_dims=3, max_side=9).flatmap(
    lambda shape: st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u1", ">i4", "i8", "u8", "?"]).flatmap(
        lambda dtype: hnp.arrays(dtype, shape)
    )
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"minimum": -1, "maximum": 0.1},
    {"minimum": -1000, "maximum": 1000, "outside": "clip"},
    {"allowed": [0, 1, 7]},
    {"total": (-1, 10)},
    {"norm": (0, 10)},
]


def outcome(field: Tensor, value: Any) -> Any:
    """Return the result of a field for a value, in a comparable form."""
    try:
        found = field.deserialize(value)
    except ValidationError:
        return None
    return found.dtype.str, found.shape, found.tobytes()


@given(array=NUMBERS, dtype=st.sampled_from(["float16", "float32", "float64", "int8", "uint64"]), options=st.data())
def test_fuzz_lists_and_arrays_are_one(array: Array, dtype: str, options: st.DataObject) -> None:
    """For any numbers, an array gives the same result as its lists."""
    extra = options.draw(st.sampled_from(OPTIONS if np.dtype(dtype).kind == "f" else OPTIONS[3:] + OPTIONS[:1]))
    field = Tensor((None,) * array.ndim, dtype, **extra)
    assert outcome(field, array) == outcome(field, array.tolist())
    booleans = Tensor((None,) * array.ndim, "bool")
    assert outcome(booleans, array) == outcome(booleans, array.tolist())
