"""The fields of this package as JSON Schema, for apispec, which knows marshmallow's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..inputs.base64_tensor import Base64Tensor
from ..inputs.base64_text import encoded_length
from ..inputs.categorical import Categorical
from ..inputs.file_path import FilePath
from ..inputs.image import Image
from ..inputs.tensors import Tensor
from ..inputs.text import Text
from ..inputs.url import Url
from .tensors import JsonSchema, base64_schema, categorical_schema, tensor_schema


def field_schema(field: Any) -> JsonSchema | None:
    """Return what a field of this package takes; None for any other field."""
    for kind, make in _MAKERS:
        if isinstance(field, kind):
            found = make(field)
            return _nullable(found) if field.allow_none else found
    return None


def is_default_private(field: Any) -> bool:
    """Tell whether a field's default would say which hosts are accepted, or where a file is."""
    return isinstance(field, (Url, FilePath)) and "default" not in field.metadata


def _nullable(schema: JsonSchema) -> JsonSchema:
    if "oneOf" in schema:
        return schema | {"oneOf": [*schema["oneOf"], {"type": "null"}]}
    allowed = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | allowed


def _text(field: Text) -> JsonSchema:
    found: JsonSchema = {"type": "string", "minLength": field.min_length, "maxLength": field.max_length}
    if field.max_bytes is not None:
        found["x-max-bytes"] = field.max_bytes
    form = "" if field.normalise is None else f", in the Unicode form {field.normalise}"
    return found | {"description": f"{field.min_length} to {field.max_length} characters{form}."}


def _url(field: Url) -> JsonSchema:
    # Which hosts are accepted is not told, as it is not told by the errors.
    schemes = " or ".join(f"{each}://" for each in field.schemes)
    words = f"An address that begins with {schemes}, of a host that is accepted here."
    return {"type": "string", "format": "uri", "maxLength": field.max_length, "description": words}


def _file(field: FilePath) -> JsonSchema:
    # Where the folder lies is not told.
    ending = "" if field.suffixes is None else f", ending with {' or '.join(field.suffixes)}"
    return {
        "type": "string",
        "maxLength": field.max_length,
        "description": f"The name of a file that is there{ending}.",
    }


def _image(field: Image) -> JsonSchema:
    media_types = [f"image/{each.lower()}" for each in field.formats]
    return {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": media_types[0],
        "maxLength": encoded_length(field.max_bytes),
        "x-media-types": media_types,
        "x-max-pixels": field.max_pixels,
        "description": f"A file of {' or '.join(field.formats)} in base64, with at most {field.max_pixels} pixels.",
    }


_MAKERS: tuple[tuple[Any, Callable[[Any], JsonSchema]], ...] = (
    (Base64Tensor, base64_schema),
    (Tensor, tensor_schema),
    (Categorical, categorical_schema),
    (Text, _text),
    (Url, _url),
    (Image, _image),
    (FilePath, _file),
)
