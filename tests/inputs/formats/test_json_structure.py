from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import EXCLUDE, Schema, fields, pre_load

from flask_secure_ml.errors import PayloadTooLarge
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.formats.json import check_structure

SIZE = 100_000


def schema(**members: Any) -> Schema:
    return Schema.from_dict({"instances": Tensor((None, 100))} | members)()


def body(unit: str, size: int = SIZE) -> bytes:
    return ('{"instances":[' + unit * (size // len(unit)) + "0]}").encode()


@pytest.mark.parametrize("unit", ["[1],", "[],", "{},", '{"a":1},', "[[[[]]]],", '"[[[[[[",'])
def test_more_lists_and_objects_than_fit_are_rejected(unit: str) -> None:
    """They would take longer to load than numbers of that size."""
    with pytest.raises(PayloadTooLarge):
        check_structure(body(unit), schema())


@pytest.mark.parametrize("unit", ["[1],", "[],", "{},"])
def test_a_small_body_is_left_to_its_fields(unit: str) -> None:
    """Their errors have positions."""
    check_structure(body(unit, 60_000), schema())


class _Changed(Schema):
    instances = Tensor((None, 100))

    @pre_load
    def change(self, data: Any, **_: Any) -> Any:
        return data


class _More(Schema):
    class Meta:
        unknown = EXCLUDE

    instances = Tensor((None, 100))


class _Own(Tensor):
    """A field that may take anything."""


@pytest.mark.parametrize(
    "other",
    [
        _Changed(),
        _More(),
        schema(more=fields.Raw()),
        schema(more=fields.List(fields.Integer())),
        schema(more=_Own((None, 100))),
        Schema.from_dict({"instances": Tensor((None, 100))})(many=True),
    ],
    ids=["hook", "unknown", "raw", "list", "subclass", "many"],
)
def test_a_schema_that_may_take_more_is_left_alone(other: Schema) -> None:
    """The maximum structure of its bodies is unknown."""
    check_structure(body("[1],"), other)


def _is_small(shape: list[int]) -> bool:
    return prod(shape) < 60_000


@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 40, 300]), min_size=1, max_size=4).filter(_is_small),
    free=st.lists(st.booleans(), min_size=4, max_size=4),
    tensors=st.integers(1, 3),
)
def test_fuzz_what_a_schema_takes_is_never_rejected(shape: list[int], free: list[bool], tensors: int) -> None:
    """The shortest numbers and no blanks, so that as many lists as can be stand in as few bytes; none spare."""
    # Repeated to a length at which the body is examined.
    times = -(-80_000 // prod(shape)) if free[0] else 1
    sent: Any = 1
    for length in reversed(shape):
        sent = [sent] * length
    sent = sent * times
    declared = tuple(None if is_free else length for length, is_free in zip(shape, free, strict=False))
    found = Schema.from_dict({str(name): Tensor(declared, max_elements=10_000_000) for name in range(tensors)})()
    text = json.dumps({str(name): sent for name in range(tensors)}, separators=(",", ":")).encode()
    check_structure(text, found, spare=0)
