"""The reference for the fast path for bodies: loading by the schema, and the comparison of values."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from marshmallow import Schema

from flask_secure_ml.inputs.body_stream import Caps
from flask_secure_ml.inputs.formats.json import check_structure, parse_json
from flask_secure_ml.inputs.loading import Loader


def by_loader(schema: Schema, body: bytes, caps: Caps) -> Any:
    check_structure(body, schema)
    return Loader(schema).load(parse_json(body, caps))


def trait(value: Any) -> Any:
    """Return the properties in which two values must agree; -0.0 is not 0.0, and 1 is not 1.0."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        flags = (value.flags.c_contiguous, value.flags.writeable, value.flags.aligned)
        return value.dtype.str, value.shape, flags, value.tobytes()
    if isinstance(value, float):
        return struct.pack("d", value)
    return type(value), repr(value)


def check_same(found: Any, expected: Any) -> None:
    assert type(found) is dict
    assert [(name, trait(value)) for name, value in found.items()] == [
        (name, trait(value)) for name, value in expected.items()
    ]
