"""Components that are the same for every app, and examples for schemas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..inputs.formats.oip import BYTES, DATATYPES
from .tensors import MAX_EXAMPLE, JsonSchema, nearest_to_zero

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "The id of this request in the log; include it when you report a fault.",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-Error-Code": {
        "description": "The error code, also if the body is not a problem document.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "A challenge for each authentication method, with the error of the one that was used.",
        "schema": {"type": "string"},
    },
    "DPoP-Nonce": {
        "description": "The nonce for the next proof (RFC 9449 section 8).",
        "schema": {"type": "string"},
    },
    "Allow": {"description": "The methods of this URL.", "schema": {"type": "string"}},
    "Accept": {
        "description": "The accepted media types, if the media type was not accepted.",
        "schema": {"type": "string"},
    },
    "Accept-Encoding": {
        "description": "The accepted content encodings, if the encoding was not accepted.",
        "schema": {"type": "string"},
    },
}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457). `code` is for programs and does not change.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "Constant for each code."},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "maxItems": 20,
            "description": "With 422 and some 400: errors and their positions. Values of the request are not quoted.",
            "items": {
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON pointer (RFC 6901) into the body."},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_NAMED: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": ["object", "null"]}},
}

INFERENCE_REQUEST: dict[str, Any] = {
    "type": "object",
    "description": "The Open Inference Protocol, version 2. Each input is loaded by the field of its name.",
    "required": ["inputs"],
    "properties": {
        "id": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "maxItems": 32, "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"type": "string", "enum": [*DATATYPES, BYTES]},
                    "data": {"type": "array", "description": "Flat, or nested as in shape."},
                    "parameters": {
                        "type": ["object", "null"],
                        "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                    },
                },
            },
        },
        "outputs": {
            "type": ["array", "null"],
            "items": _NAMED,
            "description": "The requested outputs, if not all.",
        },
    },
}

INFERENCE_RESPONSE: dict[str, Any] = {
    "type": "object",
    "description": "The Open Inference Protocol, version 2. Each output is a member of the response, flat in C order.",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"type": "string", "enum": [*DATATYPES, BYTES]},
                    "data": {"type": "array"},
                },
            },
        },
    },
}


_STRINGS = {
    "date-time": "2026-01-31T12:00:00+00:00",
    "date": "2026-01-31",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ip": "192.0.2.1",
}
# The smallest image: one gray pixel.
_MEDIA = {
    "image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",
}
_DEEPEST = 16
_NUMBERS = frozenset({"integer", "number"})
# Constraints for which no example is generated.
_UNKNOWN = frozenset({"pattern", "multipleOf", "not", "x-total", "x-norm"})


class NoExampleError(ValueError):
    """The schema has a constraint for which no example is generated."""


class Examples:
    """Generates examples for schemas.

    :param schemas: the referenced schemas, by name.
    """

    def __init__(self, schemas: Mapping[str, JsonSchema]) -> None:
        self._schemas = schemas

    def of(self, schema: JsonSchema) -> Any:
        """Return a short value that is valid for the schema; None if none can be generated."""
        try:
            found = self._value(schema, 0)
        except NoExampleError:
            return None
        return found if _size(found) <= MAX_EXAMPLE else None

    def _value(self, schema: JsonSchema, depth: int) -> Any:
        if depth > _DEEPEST or _UNKNOWN & schema.keys():
            raise NoExampleError
        if "$ref" in schema:
            return self._value(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        for name, pick in _GIVEN.items():
            if name in schema:
                return pick(schema[name])
        for name in ("oneOf", "anyOf"):
            if name in schema:
                return self._value(schema[name][0], depth + 1)
        return self._of_type(_type(schema), schema, depth)

    def _of_type(self, kind: str, schema: JsonSchema, depth: int) -> Any:
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in _NUMBERS:
            return _number(kind, schema)
        if kind == "string":
            return _string(schema)
        if kind == "boolean":
            return False
        raise NoExampleError

    def _object(self, schema: JsonSchema, depth: int) -> dict[str, Any]:
        members = schema.get("properties", {})
        return {name: self._value(members[name], depth + 1) for name in members if name in schema.get("required", ())}

    def _array(self, schema: JsonSchema, depth: int) -> list[Any]:
        first = [self._value(each, depth + 1) for each in schema.get("prefixItems", ())]
        more = max(0, max(schema.get("minItems", 0), 1) - len(first)) if schema.get("items") else 0
        if more * math.prod(_lengths(schema["items"])) > MAX_EXAMPLE if more else False:
            raise NoExampleError
        # All items can be the same object, because it is only serialized.
        return first + ([self._value(schema["items"], depth + 1)] * more if more else [])


_GIVEN: Mapping[str, Callable[[Any], Any]] = {
    "example": lambda given: given,
    "examples": lambda given: given[0],
    "const": lambda given: given,
    "enum": lambda given: given[0],
}


def _type(schema: JsonSchema) -> str:
    kind = schema.get("type", "")
    return str(kind if isinstance(kind, str) else next(each for each in kind if each != "null"))


def _number(kind: str, schema: JsonSchema) -> float:
    if "exclusiveMinimum" in schema or "exclusiveMaximum" in schema:
        raise NoExampleError
    value: float = nearest_to_zero(schema)
    return math.ceil(value) if kind == "integer" else value


def _string(schema: JsonSchema) -> str:
    if schema.get("contentEncoding") or schema.get("contentMediaType"):
        return _of(_MEDIA, schema.get("contentMediaType", ""))
    if "format" in schema:
        return _of(_STRINGS, schema["format"])
    value = "text".ljust(schema.get("minLength") or 0, "x")
    return value[: schema.get("maxLength") or len(value)]


def _of(known: Mapping[str, str], name: str) -> str:
    if name not in known:
        raise NoExampleError
    return known[name]


def _lengths(schema: JsonSchema) -> Sequence[int]:
    """Return the minimum number of items at each level of nested arrays."""
    found: list[int] = []
    while isinstance(schema, dict) and schema.get("type") == "array":
        found.append(max(schema.get("minItems", 1), 1))
        schema = schema.get("items") or {}
    return found


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 1
