"""With any values in fields, the document is strict JSON and reveals no server data."""

from __future__ import annotations

import json
import uuid
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marshmallow import Schema, fields, validate
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_secure_ml import protect
from flask_secure_ml.inputs import FilePath, Url
from flask_secure_ml.openapi import build_document
from flask_secure_ml.openapi.document import plain
from support import MakeApp


class Colour(Enum):
    RED = "red"


INFINITE = float("inf")
ODD = [
    pytest.param(fields.Float(load_default=INFINITE, allow_nan=True), {"type": "number"}, id="infinite default"),
    pytest.param(
        fields.Float(validate=validate.Range(min=-INFINITE, max=1)), {"type": "number", "maximum": 1}, id="one bound"
    ),
    pytest.param(
        fields.Integer(validate=validate.OneOf(list(np.arange(2)))), {"type": "integer", "enum": [0, 1]}, id="numpy"
    ),
    pytest.param(fields.Raw(load_default=Path("/srv/private")), {}, id="path"),
    pytest.param(fields.Raw(load_default=object()), {}, id="object"),
    pytest.param(fields.Raw(metadata={"example": Colour.RED}), {"example": "red"}, id="enum"),
    pytest.param(fields.Raw(metadata={"example": date(2026, 1, 31)}), {"example": "2026-01-31"}, id="date"),
    pytest.param(fields.Float(as_string=True), {"type": ["number", "string"]}, id="number as text"),
]


def member(protected: MakeApp, field: Any) -> Any:
    """Return the description of a field in a route's body, after checking that the document is valid strict JSON."""
    app = protected()

    @app.post("/x")
    @protect(body=type("Body", (Schema,), {"x": field}))
    def x(payload: Any) -> Any:
        return {}

    document = build_document(app)
    OpenAPIV31SpecValidator(document).validate()
    return json.loads(json.dumps(document, allow_nan=False))["components"]["schemas"]["Body"]["properties"]["x"]


@pytest.mark.parametrize(("field", "expected"), ODD)
def test_odd_values_of_fields(protected: MakeApp, field: Any, expected: dict[str, Any]) -> None:
    """A value that JSON cannot represent is omitted, and others are converted."""
    assert member(protected, field) == expected


@pytest.mark.parametrize(
    ("field", "private"),
    [
        pytest.param(
            Url(["models.internal.example"], load_default="https://models.internal.example/x"), "internal", id="host"
        ),
        pytest.param(FilePath("/srv/private", load_default=Path("/srv/private/a.onnx")), "a.onnx", id="file"),
    ],
)
def test_private_defaults(protected: MakeApp, field: Any, private: str) -> None:
    """A default would reveal an accepted host or a file."""
    assert private not in json.dumps(member(protected, field))


def test_order_and_places_stay() -> None:
    """Members keep their order and items their positions; a key becomes a string."""
    found = plain({"b": (1, INFINITE, np.float32(0.5)), "a": {1: uuid.UUID(int=0)}, "c": {"x": {1, 2}}})
    assert json.dumps(found) == '{"b": [1, null, 0.5], "a": {"1": "00000000-0000-0000-0000-000000000000"}, "c": {}}'
