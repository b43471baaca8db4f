"""marshmallow schemas as components: each variant of a class is separate, and names do not clash."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from marshmallow import EXCLUDE, INCLUDE, Schema, ValidationError, fields

from flask_secure_ml import protect
from flask_secure_ml.openapi import build_document
from support import MakeApp


class Inner(Schema):
    x = fields.Integer(required=True, strict=True)
    y = fields.String(required=True)
    own = fields.List(fields.Nested(lambda: Inner(only=("x",))))


class Outer(Schema):
    plain = fields.Nested(Inner)
    reduced = fields.Nested(Inner, only=("x",))
    without = fields.Nested(Inner(exclude=("y",)))
    some = fields.Nested(Inner(partial=True))
    several = fields.List(fields.Nested(Inner))
    listed = fields.Nested(Inner, many=True)
    plucked = fields.Pluck(Inner, "y")
    lenient = fields.Nested(Inner(unknown=EXCLUDE))
    generous = fields.Nested(Inner, unknown=INCLUDE)
    itself = fields.Nested("Outer")
    named = fields.Integer(data_key="other-name", strict=True)


class InnerSchema(Schema):
    z = fields.Boolean(required=True)


WHOLE = {"x": 1, "y": "a"}
BODIES = [
    {"plain": WHOLE},
    {"plain": {"x": 1}},
    {"plain": WHOLE | {"z": 1}},
    {"plain": WHOLE | {"own": [{"x": 1}]}},
    {"plain": WHOLE | {"own": [WHOLE]}},
    {"reduced": {"x": 1}},
    {"reduced": WHOLE},
    {"without": {"x": 1}},
    {"without": WHOLE},
    {"some": {}},
    {"some": {"y": "a"}},
    {"some": {"z": "a"}},
    {"several": [WHOLE]},
    {"several": WHOLE},
    {"listed": [WHOLE]},
    {"listed": [{"x": 1}]},
    {"plucked": "a"},
    {"plucked": WHOLE},
    {"lenient": WHOLE | {"z": 1}},
    {"generous": WHOLE | {"z": 1}},
    {"generous": {"z": 1}},
    {"itself": {"itself": {"reduced": {"x": 1}}}},
    {"itself": {"itself": {"reduced": WHOLE}}},
    {"other-name": 1},
    {"named": 1},
]


def described(protected: MakeApp, *schemas: Any) -> dict[str, Any]:
    app = protected()
    for number, schema in enumerate(schemas):
        app.add_url_rule(f"/{number}", str(number), protect(body=schema)(lambda payload: {}), methods=["POST"])
    return build_document(app)


def body(document: dict[str, Any], number: int = 0) -> Any:
    content = document["paths"][f"/{number}"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    return Draft202012Validator({"components": document["components"], "allOf": [schema]})


def loads(schema: Schema, value: Any) -> bool:
    try:
        schema.load(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("value", BODIES, ids=str)
def test_variants_of_a_class(protected: MakeApp, value: Any) -> None:
    """Each nested use of a class accepts the same as marshmallow there, in any order of uses."""
    assert body(described(protected, Outer)).is_valid(value) == loads(Outer(), value)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(Inner(), id="plain"),
        pytest.param(Inner(many=True), id="many"),
        pytest.param(Inner(partial=True), id="partial"),
        pytest.param(Inner(partial=("x",)), id="partial in one field"),
        pytest.param(Inner(only=("y",)), id="only"),
        pytest.param(Inner(unknown=EXCLUDE), id="leaves out what it does not know"),
        pytest.param(Inner(unknown=INCLUDE), id="takes what it does not know"),
    ],
)
def test_variants_as_bodies(protected: MakeApp, variant: Schema) -> None:
    """A body is described by its own schema instance, also with another one of its class."""
    document = described(protected, Inner, variant, InnerSchema)
    for value in (WHOLE, [WHOLE], {}, {"x": 1}, {"y": "a"}, {"y": "a", "z": 1}, {"x": "a"}, WHOLE | {"z": 1}):
        assert body(document, 1).is_valid(value) == loads(variant, value), value
        assert body(document, 0).is_valid(value) == loads(Inner(), value), value


def test_names_do_not_clash(protected: MakeApp) -> None:
    """``Inner`` and ``InnerSchema`` would both be called Inner."""
    document = described(protected, Inner, InnerSchema)
    assert body(document, 1).is_valid({"z": True})
    assert not body(document, 1).is_valid(WHOLE)


@pytest.mark.parametrize("name", ["Problem", "ProblemSchema", "InferenceRequest", "InferenceResponse"])
def test_names_of_the_description_itself(protected: MakeApp, name: str) -> None:
    """A class that is called like a part of the description does not take its place."""
    cls = type(name, (Schema,), {"z": fields.Boolean(required=True)})
    document = described(protected, cls)
    assert body(document).is_valid({"z": True})
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]
