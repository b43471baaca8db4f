"""Internals of marshmallow on which this package relies, for the installed release."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from marshmallow import Schema, fields, post_dump, post_load, pre_load, validates_schema

from flask_secure_ml.inputs.marshmallow_internals import (
    AnyList,
    copy_as,
    has_collection_hook,
    has_hook,
    has_pre_load,
    inner_fields,
    with_inner_fields,
    with_load_fields,
)

IS_THREE = version("marshmallow").startswith("3.")
COLLECTION: Any = {"pass_many" if IS_THREE else "pass_collection": True}


def hooked(decorator: Callable[..., Any]) -> Schema:
    """Return a schema with a method that a decorator of marshmallow marks."""

    class Hooked(Schema):
        value = fields.Integer()

        @decorator
        def hook(self, data: Any, **_kwargs: Any) -> Any:
            return data

    return Hooked()


@pytest.mark.parametrize(
    ("decorator", "tag"),
    [
        (pre_load, "pre_load"),
        (post_load, "post_load"),
        (validates_schema, "validates_schema"),
        (post_dump, "post_dump"),
    ],
)
def test_hooks_by_tag(decorator: Any, tag: str) -> None:
    """A method is found under its own tag only, and a subclass inherits it."""
    tags = ("pre_load", "post_load", "validates_schema", "post_dump")
    schema = hooked(decorator)
    for found in (schema, type("Inherited", (type(schema),), {})()):
        assert [each for each in tags if has_hook(found, each)] == [tag]
    assert not any(has_hook(Schema.from_dict({"value": fields.Integer()})(), each) for each in tags)


@pytest.mark.parametrize("decorator", [pre_load, post_load, validates_schema, post_dump])
def test_hooks_that_take_the_collection(decorator: Any) -> None:
    """They are distinguished from hooks of one object, whatever the release names the option."""
    assert has_collection_hook(hooked(decorator(**COLLECTION)))
    assert not has_collection_hook(hooked(decorator))


@pytest.mark.skipif(IS_THREE, reason="fields have hooks from marshmallow 4 on")
def test_hooks_of_a_field() -> None:
    """In marshmallow 4 a field can change its value first."""
    hooks: Any = {"pre_load": str.strip}
    assert has_pre_load(fields.String(**hooks))
    assert not has_pre_load(fields.String())


FIELDS = [
    pytest.param(fields.List(fields.Integer()), [fields.Integer], id="list"),
    pytest.param(fields.Dict(fields.String(), fields.Integer()), [fields.String, fields.Integer], id="dict"),
    pytest.param(fields.Dict(values=fields.Integer()), [fields.Integer], id="dict of values"),
    pytest.param(fields.Dict(), [], id="dict of anything"),
    pytest.param(fields.Tuple((fields.Integer(), fields.String())), [fields.Integer, fields.String], id="tuple"),
    pytest.param(fields.Integer(), [], id="number"),
    pytest.param(fields.Nested(Schema), [], id="nested"),
]


@pytest.mark.parametrize(("field", "kinds"), FIELDS)
def test_inner_fields(field: Any, kinds: list[type]) -> None:
    """They are those that marshmallow loads the items with."""
    schema = Schema.from_dict({"field": field})()
    assert list(map(type, inner_fields(schema.fields["field"]))) == kinds


class Own(AnyList):
    """A subclass without attributes of its own."""


@pytest.mark.parametrize(("field", "kinds"), FIELDS[:5])
def test_other_inner_fields(field: Any, kinds: list[type]) -> None:
    """The copy loads with them, and the field itself still with its own."""
    bound = Schema.from_dict({"field": field})().fields["field"]
    own = inner_fields(bound)
    others: list[Any] = [fields.Boolean() for _ in kinds]
    found = with_inner_fields(bound, type(bound), others)
    assert inner_fields(found) == others
    assert inner_fields(bound) == own
    assert (found.parent, found.name) == (bound.parent, bound.name)


def test_a_copy_of_another_class() -> None:
    """It has the attributes of the field, and shares none of its later changes."""
    bound = Schema.from_dict({"field": fields.List(fields.Integer(), required=True)})().fields["field"]
    found = copy_as(bound, Own)
    assert (type(found), type(bound), found.required) == (Own, fields.List, True)
    found.required = False
    assert bound.required


def test_a_schema_with_other_fields() -> None:
    """It loads with them; the original and the dumped fields are not changed."""

    class Scaled(Schema):
        value = fields.Integer()

        @post_load
        def scale(self, data: Any, **_kwargs: Any) -> Any:
            return {"value": data["value"] * 2}

    schema = Scaled()
    found = with_load_fields(schema, {"value": fields.Float()})
    assert found.load({"value": 0.5}) == {"value": 1.0}
    assert schema.load({"value": 1}) == {"value": 2}
    assert found.dump({"value": 1}) == {"value": 1}
