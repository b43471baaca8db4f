"""Converting marshmallow schemas to JSON Schema: apispec, the fields of this package, and unique schema names."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_cls
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import EXCLUDE, INCLUDE, Schema, fields

from ..inputs.fields.base64_tensor import Base64Tensor, encoded_length
from ..inputs.fields.categorical import Categorical
from ..inputs.fields.file_path import FilePath
from ..inputs.fields.image import Image
from ..inputs.fields.tensor import Tensor
from ..inputs.fields.text import Text
from ..inputs.fields.url import Url
from .tensors import JsonSchema, base64_schema, categorical_schema, tensor_schema

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]")
_RESERVED = ("Problem", "InferenceRequest", "InferenceResponse")


class _Converter(OpenAPIConverter):
    """Adds the docstring of a schema and its handling of unknown members."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._references: dict[Any, dict[Any, str]] = {}

    def resolve_nested_schema(self, schema: Any) -> Any:
        """Add a schema to the components, once for each way of handling unknown members.

        apispec distinguishes instances of a class by their other options only.
        """
        known = self.refs
        self.refs = self._references.setdefault(schema.unknown, {})
        try:
            return super().resolve_nested_schema(schema)  # type: ignore[no-untyped-call]
        finally:
            self.refs = known

    def nested2properties(self, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(field, fields.Nested) or isinstance(field, fields.Pluck) or not field.unknown:
            found: dict[str, Any] = super().nested2properties(field, ret)
            return found
        schema = copy.copy(field.schema)
        schema.unknown = field.unknown
        ret.update(self.resolve_nested_schema(schema))
        return ret

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        instance: Any = schema() if inspect.isclass(schema) else schema
        found.pop("additionalProperties", None)
        if instance.unknown not in (INCLUDE, EXCLUDE):
            found["additionalProperties"] = False
        own = vars(type(instance)).get("__doc__")
        if own and "description" not in found:
            found["description"] = inspect.cleandoc(own)
        return found

    def field2property(self, field: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().field2property(field)
        if is_default_private(field):
            found.pop("default", None)
        own = field_schema(field)
        if own is None:
            return found | (_with_string(found) if getattr(field, "as_string", False) else {})
        descriptions = [each["description"] for each in (found, own) if each.get("description")]
        found = {name: each for name, each in found.items() if name not in ("type", "format")} | own
        return found | ({"description": " ".join(descriptions)} if descriptions else {})


def _with_string(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the type of a number that is also accepted as a string and serialized as one."""
    kind = schema.get("type", [])
    return {"type": [*([kind] if isinstance(kind, str) else kind), "string"]}


class SchemaPlugin(MarshmallowPlugin):
    """The apispec plugin for one document."""

    Converter = _Converter

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=_namer())

    def reference(self, schema: Schema) -> dict[str, Any]:
        """Add a schema to the components, and return a reference to it; for ``many``, an array of it."""
        converter: Any = self.converter
        found: dict[str, Any] = converter.resolve_nested_schema(schema)
        return found


def _namer() -> Callable[[Any], str]:
    """Return a function that names schemas after their classes, with a number if the name is taken."""
    taken = set(_RESERVED)

    def name(schema: type[Schema] | Schema | str) -> str:
        found: Any = resolve_schema_cls(schema)
        cls = found[0] if isinstance(found, list) else found
        plain = _UNNAMEABLE.sub("_", cls.__name__.strip("_"))
        wanted = plain.removesuffix("Schema") or plain
        unique = next(each for each in _numbered(wanted) if each not in taken)
        taken.add(unique)
        return unique

    return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}{number}"
        number += 1


def field_schema(field: Any) -> JsonSchema | None:
    """Return the schema of a field of this package; None for any other field."""
    for kind, make in _MAKERS:
        if isinstance(field, kind):
            found = make(field)
            return _nullable(found) if field.allow_none else found
    return None


def is_default_private(field: Any) -> bool:
    """Return True if the default of a field would reveal an accepted host or the location of a file."""
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
    # The accepted hosts are not revealed, as in errors.
    schemes = " or ".join(f"{each}://" for each in field.schemes)
    description = f"A URL that begins with {schemes}, of a host that is accepted here."
    return {"type": "string", "format": "uri", "maxLength": field.max_length, "description": description}


def _file(field: FilePath) -> JsonSchema:
    # The folder is not revealed.
    ending = "" if field.suffixes is None else f", ending with {' or '.join(field.suffixes)}"
    return {
        "type": "string",
        "maxLength": field.max_length,
        "description": f"The name of an existing file{ending}.",
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
