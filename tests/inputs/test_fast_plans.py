"""Which schemas the shortcut has a plan for, and that a plan is as new as its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from marshmallow import (
    EXCLUDE,
    INCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_load,
    validate,
    validates_schema,
)

from bodies import CAPS
from fast_reference import by_loader, check_same
from fast_schemas import SCHEMAS, Floats
from flask_secure_ml.inputs import Categorical, Tensor, Text
from flask_secure_ml.inputs.fast_accept import Acceptor, plan_of


class Hooked(Floats):
    @post_load
    def doubled(self, data: Any, **_kwargs: Any) -> Any:
        return data | {"instances": data["instances"] * 2}


class Prepared(Floats):
    @pre_load
    def same(self, data: Any, **_kwargs: Any) -> Any:
        return data


class Checked(Floats):
    @validates_schema
    def check(self, data: Any, **_kwargs: Any) -> None:
        raise ValidationError("never")


class Loading(Floats):
    def load(self, *args: Any, **kwargs: Any) -> Any:
        return {"from": "load"}


class Handling(Floats):
    def handle_error(self, *args: Any, **kwargs: Any) -> None:
        raise ValidationError("other")


class Deserializing(Floats):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return {}


class Mixin:
    def _do_load(self, *args: Any, **kwargs: Any) -> Any:
        return {}


class WithMixin(Mixin, Floats):
    pass


class Excluding(Floats):
    class Meta:
        unknown = EXCLUDE


class Rounded(Tensor):
    pass


class Louder(Text):
    pass


def of(**members: Any) -> Callable[[], Schema]:
    return Schema.from_dict(members)


@pytest.mark.parametrize(
    "schema",
    [
        *(Hooked, Prepared, Checked, Loading, Handling, Deserializing, WithMixin, Excluding),
        pytest.param(lambda: Floats(many=True), id="many"),
        pytest.param(lambda: Floats(partial=True), id="partial"),
        pytest.param(lambda: Floats(unknown=INCLUDE), id="unknown"),
        pytest.param(of(x=Rounded((None,))), id="subclass of a field"),
        pytest.param(of(x=Louder()), id="subclass of a field of ours"),
        pytest.param(of(x=Text(validate=lambda _: None)), id="validator of a field of ours"),
        pytest.param(of(x=Tensor((None,), attribute="y")), id="attribute"),
        pytest.param(of(x=Tensor((None,), validate=lambda _: None)), id="validator of a tensor"),
        pytest.param(of(x=fields.String(validate=lambda _: None)), id="validator of the user's"),
        pytest.param(
            of(x=fields.Integer(), y=fields.Integer(data_key="x", load_only=True)), id="two fields of one member"
        ),
        pytest.param(of(x=fields.Decimal()), id="another field"),
        pytest.param(of(x=fields.List(fields.Integer())), id="list"),
        pytest.param(of(x=Tensor(("n",)), y=Categorical([1], ("n",))), id="named dimension of another field"),
        pytest.param(of(**{"a.b": fields.Integer()}), id="dotted name"),
    ],
)
def test_schemas_that_can_do_more_have_no_plan(schema: Callable[[], Schema]) -> None:
    """Where marshmallow would call something that is not known, the loader loads."""
    assert plan_of(schema()) is None


def test_processors_of_fields_have_no_plan() -> None:
    """In marshmallow 4 a field can change a value before and after loading."""
    for name in ("pre_load", "post_load"):
        field = Tensor((None,))
        setattr(field, name, [lambda value: value])
        assert plan_of(of(x=field)()) is None


def test_methods_of_objects_have_no_plan() -> None:
    """A method that was put on a schema or a field itself is one that is not known."""
    schema, other = Floats(), Floats()
    vars(schema)["load"] = lambda value: value
    vars(other.load_fields["instances"])["_deserialize"] = lambda *_args, **_kwargs: None
    assert plan_of(schema) is None
    assert plan_of(other) is None


@pytest.mark.filterwarnings("ignore:The `ordered`")
def test_other_classes_of_results_have_no_plan() -> None:
    """marshmallow 3 makes an ``OrderedDict`` for some schemas, and has a context for all."""

    class Ordered(Floats):
        dict_class = type("Other", (dict,), {})

    class InOrder(Floats):
        class Meta:
            ordered = True

    in_order = InOrder()
    # marshmallow 4 has no such option.
    assert (plan_of(in_order) is None) == (in_order.dict_class is not dict)
    with_context = Floats()
    vars(with_context)["context"] = {"a": 1}
    assert plan_of(Ordered()) is None
    assert plan_of(with_context) is None


BODY = SCHEMAS[Floats][0]


def changes() -> Iterator[Any]:
    """Yield changes to a schema after its first use, each with the loader's result for the body."""

    def change(name: str, value: Any) -> Callable[[Schema, Any], None]:
        return lambda _, field: setattr(field, name, value)

    yield pytest.param(lambda schema, _: setattr(schema, "unknown", EXCLUDE), id="unknown")
    yield pytest.param(lambda schema, _: setattr(schema, "many", True), id="many")
    yield pytest.param(lambda schema, _: schema.load_fields.pop("instances"), id="field removed")
    yield pytest.param(lambda schema, _: schema.load_fields.update(y=fields.Integer(required=True)), id="field added")
    yield pytest.param(lambda schema, _: schema.load_fields.update(instances=Tensor((None, 3))), id="field replaced")
    yield pytest.param(lambda _, field: field.validators.append(validate.Length(min=9)), id="validator added")
    yield pytest.param(change("validators", [validate.Length(min=9)]), id="validators replaced")
    yield pytest.param(change("dtype", np.dtype("float64")), id="dtype")
    yield pytest.param(change("shape", (None, 5)), id="shape")
    yield pytest.param(change("max_elements", 2), id="max_elements")
    yield pytest.param(change("data_key", "other"), id="data_key")
    yield pytest.param(change("attribute", "other"), id="attribute")
    yield pytest.param(lambda _, field: field._set_range(5, 9, "reject"), id="range")
    yield pytest.param(change("_allowed", np.array([7.0, 8.0])), id="allowed")
    yield pytest.param(change("_deserialize", lambda *_args, **_kwargs: "own"), id="method")


@pytest.mark.parametrize("change", list(changes()))
def test_a_changed_schema_gets_another_plan(change: Callable[[Schema, Any], None]) -> None:
    """After any change, the fast path returns the loader's result, or None."""
    # Of a class of its own, because the schemas of one class share the lists of its fields.
    schema = Schema.from_dict({"instances": Tensor((None, 4), "float32", minimum=-1e6, maximum=1e6)})()
    acceptor = Acceptor(schema, None)
    assert acceptor.accept(BODY, CAPS) is not None
    change(schema, schema.load_fields.get("instances"))
    found = acceptor.accept(BODY, CAPS)
    if found is not None:
        check_same(found, by_loader(schema, BODY, CAPS))


def test_an_array_of_another_value_is_noticed() -> None:
    """Two different arrays have no truth value when they are compared."""
    schema = Schema.from_dict({"x": Tensor((None,), "float32", allowed=(1, 2))})()
    acceptor = Acceptor(schema, None)
    assert acceptor.accept(b'{"x":[1]}', CAPS) is not None
    vars(schema.load_fields["x"])["_allowed"] = np.array([3.0, 4.0])
    assert acceptor.accept(b'{"x":[1]}', CAPS) is None
