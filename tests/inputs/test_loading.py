"""Loading with a schema stops after twenty errors, without examining the rest."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, ClassVar

import pytest
from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from flask_secure_ml.errors import ValidationFailed
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.loading import Loader
from flask_secure_ml.inputs.marshmallow_internals import inner_fields
from flask_secure_ml.inputs.problems import validation_failed


class Counting(fields.Float):
    """A number that counts how often it was examined."""

    seen = 0

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        Counting.seen += 1
        return super()._deserialize(value, attr, data, **kwargs)


@pytest.fixture(autouse=True)
def _from_zero() -> None:
    Counting.seen = 0


class Row(Schema):
    values = fields.List(Counting())


class Body(Schema):
    numbers = fields.List(Counting(), validate=validate.Length(max=5_000))
    matrix = fields.List(fields.List(Counting()))
    rows = fields.List(fields.Nested(Row))
    many = fields.Nested(Row, many=True)
    named = fields.Dict(fields.String(), fields.List(Counting()))
    pair = fields.Tuple((fields.Integer(), fields.List(Counting())))
    instances = Tensor((None,), required=False)


BAD = ["x"] * 4_000
SCHEMA = Body()


def load(schema: Schema, value: Any) -> Any:
    return Loader(schema).load(value)


def pointers(schema: Schema, value: Any) -> list[str]:
    with pytest.raises(ValidationFailed) as caught:
        load(schema, value)
    return [error["pointer"] for error in caught.value.members["errors"]]


@pytest.mark.parametrize(
    ("value", "first"),
    [
        pytest.param({"numbers": BAD}, "/numbers/0", id="list"),
        pytest.param({"matrix": [BAD] * 100}, "/matrix/0/0", id="list of lists"),
        pytest.param({"matrix": [["x"]] * 4_000}, "/matrix/0/0", id="list of short lists"),
        pytest.param({"rows": [{"values": ["x"]}] * 4_000}, "/rows/0/values/0", id="list of objects"),
        pytest.param({"rows": [{"values": BAD}] * 50}, "/rows/0/values/0", id="list of objects with lists"),
        pytest.param({"many": [{"values": ["x"]}] * 4_000}, "/many/0/values/0", id="many"),
        pytest.param({"many": [{"values": BAD}]}, "/many/0/values/0", id="many with lists"),
        pytest.param({"named": {"a": BAD}}, "/named/a/value/0", id="dict"),
        pytest.param({"pair": [1, BAD]}, "/pair/1/0", id="tuple"),
    ],
)
def test_after_twenty_nothing_more_is_looked_at(value: Any, first: str) -> None:
    """However a schema nests its lists, thousands of wrong items cost as much as the first steps of them."""
    found = pointers(SCHEMA, value)
    assert found[0] == first
    assert len(found) == 20
    assert Counting.seen <= 10_000 if "matrix" in value or "rows" in value else Counting.seen <= 200


def test_places_are_those_in_the_whole_list() -> None:
    """Errors far behind the first step have their own place."""
    numbers: list[Any] = [1.0] * 1_000
    for place in (0, 99, 100, 101, 550, 999):
        numbers[place] = "x"
    expected = ["/numbers/0", "/numbers/99", "/numbers/100", "/numbers/101", "/numbers/550", "/numbers/999"]
    assert pointers(SCHEMA, {"numbers": numbers}) == expected
    rows = [{"values": [number]} for number in numbers]
    assert pointers(SCHEMA, {"many": rows}) == [
        each.replace("numbers", "many") + "/values/0" for each in expected
    ]  # fmt: skip


def test_good_values_are_loaded_as_ever() -> None:
    """Loading in steps gives the same result for any length."""
    for length in (0, 1, 99, 100, 101, 350):
        numbers = list(range(length))
        value = {"numbers": numbers, "rows": [{"values": numbers}] * 3, "many": [{"values": numbers}] * length}
        assert load(SCHEMA, value) == Body().load(value)


@pytest.mark.parametrize("value", [None, 1, "text", {"a": 1}], ids=str)
def test_what_is_no_list(value: Any) -> None:
    """The messages are marshmallow's own."""
    for name in ("numbers", "many"):
        with pytest.raises(ValidationError) as expected:
            Body().load({name: value})
        assert pointers(SCHEMA, {name: value}) == [f"/{name}"]
        assert list(expected.value.messages) == [name]


def test_validators_see_the_whole_list() -> None:
    """A validator of the list is called once, with all items."""
    assert pointers(SCHEMA, {"numbers": [1.0] * 5_001}) == ["/numbers"]
    assert len(load(SCHEMA, {"numbers": [1.0] * 5_000})["numbers"]) == 5_000


class Short(Schema):
    numbers = fields.List(Counting(), validate=validate.Length(max=4))
    exact = fields.List(Counting(), validate=[validate.Length(equal=2, error="Two."), validate.ContainsOnly([1, 2])])
    both = fields.List(Counting(), validate=validate.And(validate.Length(1, 3), validate.ContainsOnly([1])))
    rows = fields.Nested(Row, many=True, validate=validate.Length(max=2))
    named = fields.Dict(fields.String(), Counting(), validate=validate.Length(max=2))
    inner = fields.List(fields.List(Counting(), validate=validate.Length(max=1)))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"numbers": [1.0] * 5}, id="list"),
        pytest.param({"exact": [1.0] * 3}, id="equal"),
        pytest.param({"exact": [1.0]}, id="too short"),
        pytest.param({"both": [1.0] * 4}, id="one of several"),
        pytest.param({"rows": [{"values": [1.0]}] * 3}, id="objects"),
        pytest.param({"named": {"a": 1.0, "b": 1.0, "c": 1.0}}, id="dict"),
        pytest.param({"inner": [[1.0] * 2]}, id="inner list"),
    ],
)
def test_the_length_is_checked_before_the_items(value: Any) -> None:
    """The items of a list of the wrong length are not loaded, and its error is marshmallow's."""
    with pytest.raises(ValidationError) as expected:
        Short().load(value)
    looked_at = Counting.seen
    with pytest.raises(ValidationFailed) as caught:
        load(Short(), value)
    assert caught.value.members == validation_failed(expected.value).members
    assert (looked_at > 0, Counting.seen - looked_at) == (True, 0)


def test_lists_of_the_right_length_are_loaded() -> None:
    """The early length check rejects nothing else, and other validators still get the loaded value."""
    value = {"numbers": [1.0] * 4, "exact": [1, 2], "both": [1], "rows": [{}] * 2, "named": {"a": 1, "b": 2}}
    assert load(Short(), value) == Short().load(value)
    assert pointers(Short(), {"both": [2]}) == ["/both"]
    assert pointers(Short(), {"named": []}) == ["/named"]


def test_a_hook_may_change_how_many_objects_there_are() -> None:
    """If a hook takes the collection, the length of its result is checked."""
    schema = Schema.from_dict({"rows": fields.Nested(First, many=True, validate=validate.Length(max=1))})
    assert load(schema(), {"rows": [{"value": 1}] * 3}) == {"rows": [{"value": 1}]}


def test_many_at_the_top() -> None:
    """A schema of a list of objects stops as well."""
    schema = Row(many=True)
    assert len(load(schema, [{"values": [1.0]}] * 250)) == 250
    assert pointers(schema, [{"values": ["x"]}] * 1_000)[0] == "/0/values/0"
    assert Counting.seen <= 500
    assert pointers(schema, {"values": []}) == [""]


# marshmallow 4 has another name for it.
WHOLE: Any = {"pass_collection" if int(version("marshmallow").split(".")[0]) > 3 else "pass_many": True}


class Whole(Schema):
    value = fields.Integer()

    @validates_schema(**WHOLE)
    def together(self, data: Any, many: bool, **_kwargs: Any) -> None:
        if many and len(data) != 250:
            raise ValidationError("Not all of them.")


class Totalled(Schema):
    value = fields.Integer()

    @post_load(**WHOLE)
    def total(self, data: Any, many: bool, **_kwargs: Any) -> Any:
        return sum(each["value"] for each in data) if many else data


class First(Schema):
    value = fields.Integer()

    @post_load(**WHOLE)
    def first(self, data: Any, many: bool, **_kwargs: Any) -> Any:
        return data[:1] if many else data


@pytest.mark.parametrize("schema", [Whole, Totalled])
def test_hooks_of_the_whole_collection_get_it_whole(schema: type[Schema]) -> None:
    """A rule about all objects is not applied to a part of them."""
    value = [{"value": 1}] * 250
    assert load(schema(many=True), value) == schema(many=True).load(value)
    outer = Schema.from_dict({"all": fields.Nested(schema, many=True)})
    assert load(outer(), {"all": value}) == outer().load({"all": value})


class Unindexed(Row):
    class Meta:
        index_errors = False


def test_errors_without_an_index() -> None:
    """No positions are invented for a schema without index_errors."""
    assert pointers(Unindexed(many=True), [{"values": [1.0]}] * 150 + [{"values": ["x"]}]) == ["/values/0"]


class Tree(Schema):
    children = fields.List(fields.Nested("Tree"))
    values = fields.List(Counting())


def test_a_schema_inside_itself() -> None:
    """Recursion in a schema ends where the value ends, and every level of it stops."""
    assert pointers(Tree(), {"children": [{"children": [{"values": BAD}]}]})[0] == "/children/0/children/0/values/0"
    assert Counting.seen <= 100


class Strange(fields.List):  # type: ignore[type-arg,unused-ignore]
    """A list of the author's own, which looks at all of it."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        return len(super()._deserialize(value, attr, data, **kwargs))


def test_fields_of_the_authors_own_are_left_alone() -> None:
    """Only marshmallow's own fields are known to take their items one by one."""
    schema = Schema.from_dict({"x": Strange(fields.Integer())})()
    assert load(schema, {"x": [1] * 250}) == {"x": 250}


def test_other_schemas_of_the_class_are_left_alone() -> None:
    """Neither one that exists, nor one that is made afterwards, nor the class."""
    first, second = Body(), Body()
    load(first, {})
    assert type(second.fields["numbers"]) is fields.List
    assert isinstance(first.fields["numbers"], fields.List)
    assert type(Body().fields["many"]) is fields.Nested


def test_the_schema_itself_is_left_as_it_is() -> None:
    """Neither a schema, nor a field of it, nor a schema that it nests is changed by loading with it."""
    schema, nested = Body(), Row()
    own: dict[str, Any] = {"rows": fields.List(fields.Nested(nested)), "pair": fields.Tuple((fields.List(Counting()),))}
    nesting = Schema.from_dict(own)()
    for each in (schema, nesting):
        before = snapshot(each)
        load(each, {})
        pointers(each, {"rows": [{"values": BAD}], "pair": [BAD]})
        assert snapshot(each) == before
    assert type(nested.fields["values"]) is fields.List
    inner: Any = nesting.fields["rows"]
    assert type(inner.inner.schema.fields["values"]) is fields.List


def snapshot(schema: Schema) -> Any:
    """Return all fields of a schema, nested ones included, with class and attributes."""
    found: list[Any] = [vars(schema).copy()]
    for field in schema.load_fields.values():
        for each in (field, *inner_fields(field)):
            # marshmallow keeps the nested schema there when it is first asked for.
            attributes = {name: vars(each)[name] for name in vars(each) if name != "_schema"}
            found += [each, type(each), attributes]
    return found


def test_a_schema_without_lists_needs_no_copy() -> None:
    """None of its fields can have many items, so it is used directly."""
    schema = Schema.from_dict({"instances": Tensor((None,)), "name": fields.String()})()
    assert Loader(schema)._schema is schema


def test_what_a_hook_keeps_on_its_schema() -> None:
    """A hook can read attributes of its schema, also after the first load."""

    class Scaled(Schema):
        numbers = fields.List(Counting())
        scales: ClassVar[list[float]] = [2.0]

        @post_load
        def scale(self, data: Any, **_kwargs: Any) -> Any:
            return [each * self.scales[0] for each in data["numbers"]]

    loader = Loader(Scaled())
    assert loader.load({"numbers": [1.0]}) == [2.0]
    Scaled.scales[0] = 3.0
    assert loader.load({"numbers": [1.0]}) == [3.0]
