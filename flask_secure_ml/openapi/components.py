"""The parts of the description that are the same for every app."""

from __future__ import annotations

from typing import Any

from ..inputs.oip_schema import BYTES, DATATYPES

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "The id of this request in the log; name it when you report a fault.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "A challenge for each way in, and what was wrong with the one that was used.",
        "schema": {"type": "string"},
    },
    "DPoP-Nonce": {
        "description": "What the next proof must have as its nonce (RFC 9449 section 8).",
        "schema": {"type": "string"},
    },
    "Allow": {"description": "The methods of this address.", "schema": {"type": "string"}},
    "Accept": {"description": "The media types that are taken, if that was wrong.", "schema": {"type": "string"}},
    "Accept-Encoding": {
        "description": "The content encodings that are taken, if that was wrong.",
        "schema": {"type": "string"},
    },
}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "What was wrong (RFC 9457). Programs look at `code`, which does not change.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "The same text for each code."},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "maxItems": 20,
            "description": "With a 422: what was wrong where. No value that was sent is repeated.",
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
    "description": "The Open Inference Protocol, version 2. Each input fills the field of its name.",
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
                    "data": {"type": "array", "description": "Flat, or nested as shape says."},
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
            "description": "The outputs that are wanted, if not all.",
        },
    },
}

INFERENCE_RESPONSE: dict[str, Any] = {
    "type": "object",
    "description": "The Open Inference Protocol, version 2. Each output is a member of the answer, flat in C order.",
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
