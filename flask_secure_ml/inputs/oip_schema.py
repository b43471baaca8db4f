"""The form of an inference request of the Open Inference Protocol, version 2, but for the data of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from marshmallow import Schema, fields, validate

from .field_base import AnyField

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{
        f"{prefix}INT{bits}": np.dtype(f"{prefix}int{bits}".lower()) for prefix in ("", "U") for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
"""What the numbers of a datatype are in memory; little-endian where they are sent as bytes."""

BYTES = "BYTES"
_MAX_DIMENSIONS = 32


class _Lengths(AnyField):
    """A shape. Not a List of Integers, because nobody has to look at each of a million lengths."""

    default_error_messages = {"invalid": "Not a list of at most 32 lengths."}  # noqa: RUF012 - as in marshmallow

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> tuple[int, ...]:
        if type(value) is not list or len(value) > _MAX_DIMENSIONS or not {int}.issuperset(map(type, value)):
            raise self.make_error("invalid")
        if min(value, default=0) < 0:
            raise self.make_error("invalid")
        return tuple(value)


class _Input(Schema):
    name = fields.String(required=True)
    shape = _Lengths(required=True)
    datatype = fields.String(required=True, validate=validate.OneOf([*DATATYPES, BYTES]))
    parameters = fields.Dict(keys=fields.String(), allow_none=True)
    data = fields.Raw()


class _Output(Schema):
    name = fields.String(required=True)
    parameters = fields.Dict(keys=fields.String(), allow_none=True)


class InferenceRequest(Schema):
    """Null is taken for what may be left out, as clients that write every member have it."""

    model_name = fields.String(allow_none=True)
    model_version = fields.String(allow_none=True)
    id = fields.String(allow_none=True)
    parameters = fields.Dict(keys=fields.String(), allow_none=True)
    inputs = fields.List(fields.Nested(_Input), required=True, validate=validate.Length(min=1))
    outputs = fields.List(fields.Nested(_Output), allow_none=True)
