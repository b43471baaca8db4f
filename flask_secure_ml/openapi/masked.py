"""The schema of a masked response: score options remove, cut and round what the view has declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..policy.options import ScoreOptions
from .tensors import JsonSchema

if TYPE_CHECKING:
    from apispec.core import Components

_LISTS = ("prefixItems", "oneOf", "anyOf", "allOf")
_SINGLE = ("items", "additionalProperties")
_LOWER = ("minimum", "exclusiveMinimum")
_BOUNDS = (*_LOWER, "maximum", "exclusiveMaximum")
_COUNTED = frozenset({"minItems", "prefixItems"})
_LABELS = frozenset({"string", "integer", "boolean", "object", "null"})


class MaskedSchemas:
    """Makes the schemas of responses under some score options.

    :param components: the components of the description, which the new schemas are added to. Their names have the
        options, such as ``Prediction.round3``.
    """

    def __init__(self, components: Components, options: ScoreOptions) -> None:
        self._components = components
        self._options = options
        self._suffix = ".".join(_suffix(options))

    def of(self, schema: JsonSchema) -> JsonSchema:
        """Return the schema of a masked response for the schema that declares it."""
        return self._walk(schema) if self._suffix else schema

    def _walk(self, schema: JsonSchema) -> JsonSchema:
        if "$ref" in schema:
            return schema | {"$ref": self._reference(schema["$ref"].rpartition("/")[2])}
        found = {name: self._part(name, each) for name, each in schema.items()}
        if self._options.label_only:
            return _labels(found)
        return self._loosened(found) if "number" in _types(found) else found

    def _part(self, name: str, part: Any) -> Any:
        if name == "properties":
            return {member: self._walk(each) for member, each in part.items()}
        if name in _LISTS:
            return [self._walk(each) for each in part]
        return self._walk(part) if name in _SINGLE and isinstance(part, dict) else part

    def _reference(self, name: str) -> str:
        made = f"{name}.{self._suffix}"
        schemas = self._components.schemas
        if made not in schemas:
            # Added before it is made, because it may refer to itself.
            schemas[made] = {}
            schemas[made] |= self._walk(schemas[name])
        return f"#/components/schemas/{made}"

    def _loosened(self, leaf: JsonSchema) -> JsonSchema:
        """Return the schema of a score without the constraints that the options can break."""
        found = {name: each for name, each in leaf.items() if self._still_holds(name, each)}
        if self._options.allows_nan:
            found["type"] = sorted(_types(found) | {"null"}, key="null".__eq__)
        return found

    def _still_holds(self, name: str, value: Any) -> bool:
        """Return True if a constraint still holds: cut scores become lower ones, rounding can pass a bound."""
        if self._options.top_k is not None and name in ("enum", *_LOWER):
            return False
        if self._options.round is not None and name in _BOUNDS:
            return bool(round(value, self._options.round) == value)
        return self._options.round is None or name not in ("enum", "multipleOf")


def _suffix(options: ScoreOptions) -> Iterator[str]:
    if options.label_only:
        yield "label_only"
        return
    if options.top_k is not None:
        yield f"top_k{options.top_k}"
    if options.round is not None:
        yield f"round{options.round}"
    if options.allows_nan:
        yield "nan"


def _labels(schema: JsonSchema) -> JsonSchema:
    """Return an object's schema without the members that are scores; what may be a score is not required."""
    members = schema.get("properties", {})
    kept = {name: _without(each) for name, each in members.items() if not _is_scores(each) or "null" in _types(each)}
    found = schema | ({"properties": kept} if "properties" in schema else {})
    if "required" in schema:
        found["required"] = [name for name in schema["required"] if _is_label(members[name])]
    # A list of scores has lost its items.
    return found if _is_label(schema) else {name: each for name, each in found.items() if name not in _COUNTED}


def _without(schema: JsonSchema) -> JsonSchema:
    return {"type": "null"} if _is_scores(schema) else schema


def _is_scores(schema: JsonSchema) -> bool:
    """Return True if a member has scores and nothing else, whatever its value."""
    return "number" in _types(schema) or str(schema.get("x-dtype", "")).startswith("float")


def _is_label(schema: JsonSchema) -> bool:
    """Return True if a member is there without its scores."""
    if "$ref" in schema:
        return True
    types = _types(schema)
    if "array" in types:
        return isinstance(schema.get("items"), dict) and _is_label(schema["items"])
    return bool(types) and types <= _LABELS


def _types(schema: JsonSchema) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)
