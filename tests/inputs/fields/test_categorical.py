from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from marshmallow import Schema

from field_loading import errors, load, message
from flask_secure_ml.inputs import Categorical

COLOURS = ("red", "green", "blue")
WORDS = "Must be one of: red, green, blue."


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (Categorical(COLOURS), "green", "green"),
        (Categorical(COLOURS, codes=True), "green", 1),
        (Categorical([10, 20]), 20, 20),
        (Categorical([0, 1]), 0, 0),
        (Categorical([""]), "", ""),
        (Categorical([10, 20], codes=True), 20, 1),
    ],
)
def test_a_single_choice(field: Categorical, value: Any, expected: Any) -> None:
    """A single value is loaded as the choice, or as its position."""
    found = load(field, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("field", "value", "expected", "dtype"),
    [
        (Categorical(COLOURS, (None,)), ["blue", "red"], ["blue", "red"], "O"),
        (Categorical(COLOURS, (None,), codes=True), ["blue", "red"], [2, 0], "int64"),
        (Categorical([7, -8], (None, 2)), [[7, -8], [7, 7]], [[7, -8], [7, 7]], "int64"),
        (Categorical(COLOURS, (2,)), np.array(["red", "blue"]), ["red", "blue"], "O"),
        (Categorical(COLOURS, (2,)), np.array(["red", "blue"], object), ["red", "blue"], "O"),
        (Categorical([7, 8], (2, 2)), np.array([[7, 8], [7, 7]], "u1").T, [[7, 7], [8, 7]], "int64"),
    ],
)
def test_many_choices(field: Categorical, value: Any, expected: list[Any], dtype: str) -> None:
    """Lists and arrays of choices become one array."""
    found = load(field, value)
    assert found.dtype == dtype
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "value",
    ["Red", " red", "red\n", "r\u0435d", "", 0, True, None, ["red"], {"red": 1}, 1.0, b"red", "\ud800"],
    ids=repr,
)
def test_nothing_else_is_a_choice(value: Any) -> None:
    """Another case, another form and another type are all rejected, alone and in a list."""
    expected = "Field may not be null." if value is None else WORDS
    assert message(Categorical(COLOURS), value) == expected
    assert errors(Categorical(COLOURS, (None,)), ["red", value, "red"]) == {1: [WORDS]}


@pytest.mark.parametrize("value", [True, 1.0, "1", 2, 2**70, [1], None], ids=repr)
def test_integers_are_strict(value: Any) -> None:
    """A boolean, a float and a string are not integers, even if they are equal to one."""
    assert errors(Categorical([0, 1], (None,)), [0, value]) == {1: ["Must be one of: 0, 1."]}
    assert errors(Categorical([0, 1], (None,), codes=True), [0, value]) == {1: ["Must be one of: 0, 1."]}


@pytest.mark.parametrize(
    "array", [np.array([1.0]), np.array([True]), np.array([b"1"]), np.array(["1"]), np.array([1], "M8[s]")]
)
def test_arrays_of_another_kind_are_rejected(array: Any) -> None:
    """An array has the types of its lists."""
    assert errors(Categorical([1], (None,)), array) == {0: ["Must be one of: 1."]}


def test_shapes_and_caps() -> None:
    """The shape is checked as for tensors, before the choices."""
    assert message(Categorical(COLOURS, (None,)), "red") == "Not a list."
    assert errors(Categorical(COLOURS, (None, 2)), [["red"]]) == {0: ["Must have 2 items."]}
    assert message(Categorical(COLOURS, (None,), max_items=2), ["red"] * 3) == "Must have at most 2 items."
    assert message(Categorical(COLOURS, (None,), max_elements=2), ["red"] * 3) == "Must have at most 2 elements in all."
    assert (
        message(Categorical(COLOURS, (None,), max_elements=2), np.array(["x"] * 3))
        == "Must have at most 2 elements in all."
    )
    assert message(Categorical(COLOURS, (2,)), np.array([["red"]])) == "Must have the shape (2)."


def test_errors_are_bounded_and_name_a_few_choices() -> None:
    """Twenty positions at most, ten choices at most, and braces in a choice are only braces."""
    found = errors(Categorical(range(30), (None,)), [99] * 50)
    assert list(found) == list(range(20))
    assert found[0] == ["Must be one of: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …."]
    assert message(Categorical(["{x}"]), "y") == "Must be one of: {x}."
    assert message(Categorical(["a"], error_messages={"choice": "No."}), "y") == "No."


def test_options_of_a_field() -> None:
    """It is required by default, and dumps the loaded value."""
    schema = Schema.from_dict(
        {
            "one": Categorical(COLOURS, codes=True),
            "many": Categorical(COLOURS, (None,), codes=True),
            "plain": Categorical(COLOURS, (None,), load_default=None),
        }
    )()
    assert set(schema.validate({})) == {"one", "many"}
    value = {"one": "blue", "many": ["red", "blue"], "plain": ["green"]}
    assert schema.dump(schema.load(value)) == value
    assert schema.dump({"one": None}) == {"one": None}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"choices": []}, "at least one"),
        ({"choices": "abc"}, "strings or integers"),
        ({"choices": ["a", 1]}, "not both"),
        ({"choices": [True]}, "strings or integers"),
        ({"choices": [1.5]}, "strings or integers"),
        ({"choices": ["a", "a"]}, "different"),
        ({"choices": [2**63]}, "64 bits"),
        ({"choices": ["a"], "max_items": 1}, "max_items needs a shape"),
        ({"choices": ["a"], "shape": 3}, "shape must be a tuple"),
    ],
)
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """The field is rejected where it is written."""
    with pytest.raises((TypeError, ValueError), match=part):
        Categorical(**arguments)
