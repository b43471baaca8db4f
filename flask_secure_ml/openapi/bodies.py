"""Descriptions of request bodies in every format that a route accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from marshmallow import Schema

from ..config import Settings
from ..inputs.body_stream import Caps
from ..inputs.fields.tensor import Tensor
from ..inputs.formats import Format, Formats, build_formats, single_tensor
from ..inputs.formats.json import JSON
from ..inputs.formats.oip import DATATYPES, LENGTH_HEADER, OCTETS
from .components import Examples
from .tensors import JsonSchema, tensor_text

_INFERENCE: JsonSchema = {"$ref": "#/components/schemas/InferenceRequest"}
_TABLE_DIMENSIONS = 2


@dataclass(frozen=True)
class Body:
    """The request body of one route.

    :param schema: its marshmallow schema.
    :param reference: the same schema as JSON Schema.
    :param example: a valid value, or None.
    """

    schema: Schema
    reference: JsonSchema
    example: Any


class Bodies:
    """Describes request bodies in the configured formats and content encodings."""

    def __init__(self, settings: Settings, examples: Examples) -> None:
        self._formats: Formats = build_formats(settings.wire_formats, Caps.of(settings))
        self._plain_json = "json" in settings.wire_formats
        self._encodings = [each for each in settings.content_encodings if each != "identity"]
        self._examples = examples
        self.has_inference: bool = "oip" in settings.wire_formats

    def request_body(self, schema: Schema, reference: JsonSchema) -> dict[str, Any]:
        """Return the Request Body Object of a route."""
        body = Body(schema, reference, self._examples.of(reference))
        content: dict[str, Any] = {}
        for each in self._formats.fitting(schema):
            content |= dict(self._content(each, body))
        return {"required": True, "content": content}

    def parameters(self, schema: Schema | None) -> list[dict[str, Any]]:
        """Return the Parameter Objects of the request headers that describe the body."""
        found = []
        if self._encodings:
            found.append(
                _header("Content-Encoding", {"enum": ["identity", *self._encodings]}, "The compression of the body.")
            )
        if schema is not None and self._accepts_binary(schema):
            text = f"The number of bytes of JSON before the binary data; required with {OCTETS}."
            found.append(_header(LENGTH_HEADER, {"type": "integer", "minimum": 0}, text))
        return found

    def _accepts_binary(self, schema: Schema) -> bool:
        return self.has_inference and not schema.many

    def _content(self, found: Format, body: Body) -> Iterator[tuple[str, dict[str, Any]]]:
        if found.name == "oip":
            yield from self._inference(body)
            return
        make = _CONTENTS.get(found.name, _as_json)
        for media_type in found.media_types:
            yield media_type, make(body)

    def _inference(self, body: Body) -> Iterator[tuple[str, dict[str, Any]]]:
        if body.schema.many:
            yield JSON, _as_json(body)
            return
        example = _named("inference request", _inference_example(body))
        if self._plain_json:
            either = {"schema": {"anyOf": [body.reference, _INFERENCE]}}
            yield JSON, either | _examples(_named("smallest", body.example) | example)
        else:
            yield JSON, {"schema": _INFERENCE} | _examples(example)
        text = f"An inference request in JSON and, after {LENGTH_HEADER} bytes, the binary data of its inputs."
        yield OCTETS, {"schema": {"contentMediaType": OCTETS, "description": text}}


def _header(name: str, schema: JsonSchema, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _named(name: str, example: Any) -> dict[str, Any]:
    return {} if example is None else {name: {"value": example}}


def _examples(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"examples": dict(found)} if found else {}


def _as_json(body: Body) -> dict[str, Any]:
    return {"schema": body.reference} | _examples(_named("smallest", body.example))


def _as_npy(body: Body) -> dict[str, Any]:
    name, tensor = _tensor(body)
    text = f"A file of numpy.save with {name}: {tensor_text(tensor)}"
    return {"schema": {"contentMediaType": "application/x-npy", "description": text, "x-dtype": tensor.dtype.name}}


def _as_csv(body: Body) -> dict[str, Any]:
    name, tensor = _tensor(body)
    header = "Send `text/csv; header=present` if its first line has names"
    found: JsonSchema = {"type": "string"}
    if tensor.features:
        header += ": those of x-features, in any order"
        found["x-features"] = list(tensor.features)
    found["description"] = f"A table of numbers, one row per line, with {name}: {tensor_text(tensor)} {header}."
    return {"schema": found} | _examples(_named("smallest", _table(body, name)))


_CONTENTS: Mapping[str, Callable[[Body], dict[str, Any]]] = {"npy": _as_npy, "csv": _as_csv}


def _tensor(body: Body) -> tuple[str, Tensor]:
    found = single_tensor(body.schema)
    if found is None:
        raise ValueError("the schema does not have exactly one tensor")
    return found


def _table(body: Body, name: str) -> str | None:
    """Return the example as CSV; None if it is not a table of numbers."""
    rows = (body.example or {}).get(name)
    _, tensor = _tensor(body)
    if not isinstance(rows, list) or tensor.dtype.kind == "b" or len(tensor.shape) > _TABLE_DIMENSIONS:
        return None
    lines = [",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
    return "\n".join(lines) + "\n"


def _inference_example(body: Body) -> Any:
    """Return the example as an inference request; None if it has fields other than tensors."""
    if not isinstance(body.example, dict):
        return None
    fields = {field.data_key or name: field for name, field in body.schema.load_fields.items()}
    if not body.example or any(type(fields[name]) is not Tensor for name in body.example):
        return None
    return {"inputs": [_input(name, fields[name], value) for name, value in body.example.items()]}


def _input(name: str, field: Any, value: list[Any]) -> dict[str, Any]:
    shape = [length or 1 for length in field.shape]
    flat: list[Any] = value
    for _ in shape[1:]:
        flat = [each for inner in flat for each in inner]
    names = {dtype.name: datatype for datatype, dtype in DATATYPES.items()}
    return {"name": name, "shape": shape, "datatype": names[field.dtype.name], "data": flat[: prod(shape)]}
