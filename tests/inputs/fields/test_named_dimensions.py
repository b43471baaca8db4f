from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from marshmallow import Schema, ValidationError, fields, pre_load

from flask_secure_ml import Policy
from flask_secure_ml.inputs import Base64Tensor, Categorical, Tensor


class Batch(Schema):
    rows = Tensor(("batch", 2))
    labels = Categorical(["a", "b"], shape=("batch",), data_key="the labels")
    mask = Base64Tensor(("batch",), "uint8", required=False, allow_none=True)
    pairs = Tensor(("pairs", "pairs"), required=False)


def value(rows: Any, labels: Any, **others: Any) -> dict[str, Any]:
    return {"rows": rows, "the labels": labels, **others}


def faults(schema: Schema, data: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        schema.load(data)
    return caught.value.messages


TWO = [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "data",
    [
        value(TWO, ["a", "b"]),
        value([[1, 2]], ["a"], mask="AA=="),
        value(TWO, ["a", "b"], mask={"b64": "AAE=", "shape": [2]}),
        value(TWO, ["a", "b"], mask=None, pairs=[[1]]),
        value(np.array(TWO), ["a", "b"], mask=np.array([0, 1], "u1")),
    ],
)
def test_dimensions_of_one_name_agree(data: Any) -> None:
    """Dimensions with the same name have the same length, in lists, arrays and base64; missing fields do not count."""
    assert len(Batch().load(data)["labels"]) == len(data["rows"])


RULE = 'Its dimension "batch" must be as long as that of "{}".'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (value(TWO, ["a"]), {"the labels": [RULE.format("rows")]}),
        (value(np.array(TWO), ["a"]), {"the labels": [RULE.format("rows")]}),
        (value(TWO, ["a", "b"], mask="AA=="), {"mask": [RULE.format("rows")]}),
        (value(TWO, ["a", "b"], mask=np.zeros(3, "u1")), {"mask": [RULE.format("rows")]}),
        (
            value([[1, 2]], ["a", "b"], mask={"b64": "AAE=", "shape": [2]}),
            {"the labels": [RULE.format("rows")], "mask": [RULE.format("rows")]},
        ),
        ({"the labels": ["a"], "mask": "AAE="}, {"mask": [RULE.format("the labels")]}),
    ],
)
def test_dimensions_that_differ_are_rejected(data: Any, expected: dict[str, Any]) -> None:
    """The later field of the two has the error."""
    found = faults(Batch(), data)
    found.pop("rows", None)
    assert found == expected


@pytest.mark.parametrize("pairs", [[[1, 2]], [[1], [2]]])
def test_a_name_may_stand_twice_in_one_field(pairs: Any) -> None:
    """A square is a shape with one name for both."""
    expected = {"pairs": ['Its dimension "pairs" must have the same length each time.']}
    assert faults(Batch(), value(TWO, ["a", "b"], pairs=pairs)) == expected
    assert faults(Batch(), value(TWO, ["a", "b"], pairs=np.array(pairs))) == expected


@pytest.mark.parametrize("rows", [5, [], [[]], {}, "text", [1], None, [None]])
def test_a_field_that_is_wrong_has_its_own_error(rows: Any) -> None:
    """A field with no shape to compare is rejected by itself."""
    assert "rows" in faults(Batch(), value(rows, ["a"]))


def test_items_of_a_list_have_lengths_of_their_own() -> None:
    """A name applies within one object."""
    item = Schema.from_dict({"ids": Tensor(("n",)), "mask": Tensor(("n",))})
    schema = Schema.from_dict({"items": fields.List(fields.Nested(item))})()
    good, longer = {"ids": [1], "mask": [1]}, {"ids": [1, 2], "mask": [1, 2]}
    assert len(schema.load({"items": [good, longer]})["items"]) == 2
    wrong = faults(schema, {"items": [good, {"ids": [1], "mask": [1, 2]}]})
    assert list(wrong["items"]) == [1]
    assert faults(item(many=True), [good, {"ids": [1], "mask": [1, 2]}]) == {1: wrong["items"][1]}


def test_what_pre_load_of_the_schema_returns_is_compared() -> None:
    """The hook of a schema runs first, so fields get its result."""

    class Doubled(Schema):
        a = Tensor(("n",))
        b = Tensor(("n",))

        @pre_load
        def double(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
            return {"a": data["a"] * 2, "b": data["b"]}

    assert Doubled().load({"a": [1], "b": [1, 2]})["a"].tolist() == [1, 1]
    assert "b" in faults(Doubled(), {"a": [1], "b": [1]})


@pytest.mark.parametrize(
    "make",
    [
        lambda: fields.List(Tensor(("n",))),
        lambda: fields.Dict(values=Tensor(("n",))),
        lambda: fields.Tuple([Tensor(("n",))]),
        lambda: fields.List(Categorical(["a"], ("n",))),
    ],
    ids=["list", "dict", "tuple", "categories"],
)
def test_a_name_that_nobody_would_compare_is_rejected(make: Callable[[], Any]) -> None:
    """Inside another field a name has no meaning, so the policy with such a schema is rejected."""
    with pytest.raises(TypeError, match="a named dimension needs a field of its own"):
        Policy.build(body=Schema.from_dict({"x": make()}))


def test_a_field_with_a_name_has_no_pre_load() -> None:
    """Values changed by marshmallow 4.3's ``pre_load`` of a field could not be compared."""
    field = Tensor(("n",))
    field.pre_load = [list]
    with pytest.raises(TypeError, match="cannot have pre_load"):
        Policy.build(body=Schema.from_dict({"x": field}))


def test_names_beside_fields_without_and_without_schema() -> None:
    """Other fields are left alone, and a field alone compares with itself only."""
    schema = Schema.from_dict({"a": Tensor((None,)), "b": fields.Raw(), "c": Tensor(("n", None))})()
    assert schema.load({"a": [1, 2], "b": [1], "c": [[1, 2, 3]]})["c"].shape == (1, 3)
    assert Tensor(("n",)).deserialize([1, 2]).shape == (2,)


def test_the_shape_says_names_and_lengths() -> None:
    """Others read the lengths from ``shape`` and the names from ``dimensions``."""
    field = Tensor(("batch", None, 3))
    assert (field.shape, field.dimensions) == ((None, None, 3), ("batch", None, None))
    with pytest.raises(ValidationError, match=r"Must have the shape \(batch, any, 3\)\."):
        field.deserialize(np.zeros((1, 1)))


def test_one_schema_serves_many_threads() -> None:
    """No field keeps anything of a request: requests of different lengths do not meet."""
    schema = Batch()

    def run(length: int) -> bool:
        good = schema.load(value([[1, 2]] * length, ["a"] * length))
        return len(good["rows"]) == length and "the labels" in schema.validate(value([[1, 2]] * length, ["a"] * 99))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, [number % 40 + 1 for number in range(400)]))
