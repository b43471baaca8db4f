"""Only declared fields are sent, with their declared types."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from marshmallow import Schema, fields, post_dump, pre_dump, validate

from flask_secure_ml.inputs import Base64Tensor, Tensor
from flask_secure_ml.outputs.responses import UndeclaredError, dump_declared


class Level(enum.IntEnum):
    HIGH = 3


class Item(Schema):
    name = fields.String(required=True)
    score = fields.Float(required=True, validate=validate.Range(0, 1))


class Answer(Schema):
    scores = Tensor((None, 2), "float64", required=False)
    label = fields.String()
    shown = fields.Integer(data_key="count", attribute="n", dump_only=True)
    maybe = fields.String(allow_none=True)
    best = fields.Nested(Item)
    list = fields.List(fields.Nested(Item))
    named = fields.Dict(keys=fields.String(), values=fields.Float())
    pair = fields.Tuple((fields.String(), fields.Float()))
    tags = fields.List(fields.String(), validate=validate.Length(max=2))
    anything = fields.Raw()
    loose = fields.Dict()
    flag = fields.Boolean()
    when = fields.DateTime()
    day = fields.Date()
    id = fields.UUID()
    level = fields.Enum(Level)
    price = fields.Decimal(as_string=True)
    length = fields.Function(lambda _: 2)
    version = fields.Constant("2")


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"label": "a", "secret": 1}, {"label": "a"}, id="undeclared member"),
        pytest.param({"best": {"name": "a", "score": 0.5, "secret": 1}}, {"best": {"name": "a", "score": 0.5}},
                     id="undeclared member inside"),
        pytest.param({"list": [{"name": "a", "score": 1, "x": 1}]}, {"list": [{"name": "a", "score": 1.0}]},
                     id="undeclared member in a list"),
        pytest.param({"n": 3}, {"count": 3}, id="other names"),
        pytest.param({"maybe": None}, {"maybe": None}, id="null where it is allowed"),
        pytest.param({"scores": np.array([[0.1, 0.9]])}, {"scores": [[0.1, 0.9]]}, id="array"),
        pytest.param({"scores": np.array([[0.5, 1]], "f4")}, {"scores": [[0.5, 1.0]]}, id="narrow array"),
        pytest.param({"scores": [[0.1, 0.9]]}, {"scores": [[0.1, 0.9]]}, id="lists"),
        pytest.param({"named": {"a": 0.5}}, {"named": {"a": 0.5}}, id="values by name"),
        pytest.param({"pair": ("a", 0.5)}, {"pair": ["a", 0.5]}, id="tuple"),
        pytest.param({"tags": ("a", "b")}, {"tags": ["a", "b"]}, id="list"),
        pytest.param({"anything": {"a": [1]}, "loose": {"a": [1]}}, {"anything": {"a": [1]}, "loose": {"a": [1]}},
                     id="raw"),
        pytest.param({"flag": np.bool_(1)}, {"flag": True}, id="boolean of numpy"),
        pytest.param({"n": np.int64(3)}, {"count": 3}, id="integer of numpy"),
        pytest.param({"n": 3.0}, {"count": 3}, id="whole float"),
        pytest.param({"when": datetime(2024, 1, 2, tzinfo=UTC)}, {"when": "2024-01-02T00:00:00+00:00"}, id="instant"),
        pytest.param({"day": date(2024, 1, 2)}, {"day": "2024-01-02"}, id="day"),
        pytest.param({"id": UUID(int=1)}, {"id": str(UUID(int=1))}, id="uuid"),
        pytest.param({"level": Level.HIGH}, {"level": "HIGH"}, id="enumeration"),
        pytest.param({"price": Decimal("1.10")}, {"price": "1.10"}, id="decimal as text"),
        pytest.param(SimpleNamespace(label="a", secret=1), {"label": "a"}, id="object"),
        pytest.param({}, {}, id="nothing"),
    ],
)  # fmt: skip
def test_what_leaves(value: Any, expected: Any) -> None:
    """Declared members leave in the form of JSON, others do not."""
    found = plain(dump_declared(Answer(), value))
    assert (found.pop("version"), found.pop("length")) == ("2", 2)
    assert found == expected


@pytest.mark.parametrize(
    ("value", "place"),
    [
        pytest.param({"label": {"secret": 1}}, "/label", id="object as text"),
        pytest.param({"label": ["secret"]}, "/label", id="list as text"),
        pytest.param({"label": 5}, "/label", id="number as text"),
        pytest.param({"label": object()}, "/label", id="anything as text"),
        pytest.param({"label": np.array(["a"])}, "/label", id="array as text"),
        pytest.param({"label": date(2024, 1, 2)}, "/label", id="date as text"),
        pytest.param({"label": b"secret"}, "/label", id="bytes as text"),
        pytest.param({"label": None}, "/label", id="null"),
        pytest.param({"n": "secret"}, "its top", id="text as integer"),
        pytest.param({"n": "5"}, "/count", id="digits as integer"),
        pytest.param({"n": 3.7}, "/count", id="fraction as integer"),
        pytest.param({"n": True}, "/count", id="boolean as integer"),
        pytest.param({"flag": {"secret": 1}}, "/flag", id="object as boolean"),
        pytest.param({"flag": 1}, "/flag", id="number as boolean"),
        pytest.param({"best": {"name": "a"}}, "/best/score", id="missing inside"),
        pytest.param({"best": {"name": "a", "score": 2}}, "/best/score", id="out of range inside"),
        pytest.param({"best": {"name": {"secret": 1}, "score": 1}}, "/best/name", id="object as text inside"),
        pytest.param({"best": 5}, "/best", id="number as object"),
        pytest.param({"best": [{"name": "a", "score": 1}]}, "/best", id="list as object"),
        pytest.param({"list": [{"name": "a", "score": 1}, {"name": ["s"], "score": 1}]}, "/list/1/name",
                     id="in a list"),
        pytest.param({"list": {"name": "a"}}, "/list", id="object as list"),
        pytest.param({"list": "secret"}, "/list", id="text as list"),
        pytest.param({"tags": [["secret"]]}, "/tags/0", id="list as text in a list"),
        pytest.param({"tags": ["a", "b", "c"]}, "/tags", id="validator of a list"),
        pytest.param({"tags": "ab"}, "/tags", id="text as list of texts"),
        pytest.param({"named": {"a": {"secret": 1}}}, "its top", id="object as number by name"),
        pytest.param({"named": {"secret": "1"}}, "/named/*", id="text as number by name"),
        pytest.param({"named": [1]}, "its top", id="list as values by name"),
        pytest.param({"pair": (["secret"], 0.5)}, "/pair/0", id="list as text in a tuple"),
        pytest.param({"scores": np.zeros((1, 3))}, "/scores", id="shape of an array"),
        pytest.param({"scores": np.array([[np.nan, 1]])}, "/scores", id="nan in an array"),
        pytest.param({"scores": np.array([["a", "b"]])}, "/scores", id="array of texts"),
        pytest.param({"scores": [[0.1, "secret"]]}, "/scores", id="text in lists"),
        pytest.param({"scores": "secret"}, "/scores", id="text as array"),
        pytest.param({"when": "2024-01-02"}, "its top", id="text as instant"),
        pytest.param({"id": "secret"}, "/id", id="text as uuid"),
        pytest.param({"level": 3}, "its top", id="number as enumeration"),
        pytest.param([{"label": "a"}], "its top", id="list at the top"),
        pytest.param("secret", "its top", id="text at the top"),
        pytest.param(None, "its top", id="null at the top"),
        pytest.param(np.zeros(2), "its top", id="array at the top"),
    ],
)  # fmt: skip
def test_what_is_rejected(value: Any, place: str) -> None:
    """A value of another type than declared is rejected; the reason has its position, but not the value."""
    with pytest.raises(UndeclaredError) as raised:
        dump_declared(Answer(), value)
    assert place in str(raised.value) or "cannot be dumped" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_required_fields() -> None:
    """A missing one is reported with its position; marshmallow's dump does not report it."""
    assert Item().dump({"name": "a"}) == {"name": "a"}
    with pytest.raises(UndeclaredError, match="/score: missing"):
        dump_declared(Item(), {"name": "a"})


def test_many() -> None:
    """A schema with ``many`` accepts only a list."""
    schema = Item(many=True)
    assert dump_declared(schema, [{"name": "a", "score": 1, "x": 1}]) == [{"name": "a", "score": 1.0}]
    assert dump_declared(schema, []) == []
    for value in ({"name": "a", "score": 1}, None, "ab", [{"name": "a"}], [5]):
        with pytest.raises(UndeclaredError):
            dump_declared(schema, value)


class Hooked(Schema):
    label = fields.String(required=True)

    @pre_dump
    def rename(self, value: Any, **_: Any) -> Any:
        return {"label": value["name"]}

    @post_dump
    def add(self, value: Any, **_: Any) -> Any:
        return value | {"secret": 1}


def test_hooks() -> None:
    """They run, and still only declared fields leave."""
    assert dump_declared(Hooked(), {"name": "a"}) == {"label": "a"}


def test_a_hook_that_hides_everything() -> None:
    """A value that is not an object after the hooks is not sent."""

    class Wrapped(Schema):
        label = fields.String()

        @post_dump
        def wrap(self, value: Any, **_: Any) -> Any:
            return [value]

    with pytest.raises(UndeclaredError, match="its top"):
        dump_declared(Wrapped(), {"label": "a"})


def test_plucked_fields_are_not_supported() -> None:
    """Their values cannot be distinguished from the input, so they are rejected."""

    class Plucked(Schema):
        name = fields.Pluck(Item, "name")

    with pytest.raises(UndeclaredError):
        dump_declared(Plucked(), {"name": {"name": {"secret": 1}}})


def test_other_fields_for_arrays() -> None:
    """An array leaves in the form of its field."""

    class Packed(Schema):
        scores = Base64Tensor((2,), "float32")

    found = dump_declared(Packed(), {"scores": np.array([0.5, 1], "f4")})
    assert found == Packed().dump({"scores": np.array([0.5, 1], "f4")})


def test_validators_that_fail_in_their_own_way() -> None:
    """After any exception of a validator, the response is rejected."""

    def broken(_value: Any) -> None:
        raise KeyError("secret")

    class Broken(Schema):
        one = fields.String(validate=broken)
        all = fields.List(fields.String(), validate=broken)

    for value in ({"one": "a"}, {"all": ["a"]}):
        with pytest.raises(UndeclaredError) as raised:
            dump_declared(Broken(), value)
        assert "secret" not in str(raised.value)
