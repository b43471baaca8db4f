"""The schema of an answer after the terms of outputs, which take away, cut and round what the view has declared."""

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


class Answered:
    """Makes the schemas of answers under some terms, each beside the one that it comes from.

    :param components: the components of the description, which the made ones are added to. Their names say the terms,
        such as ``Prediction.round3``.
    """

    def __init__(self, components: Components, terms: ScoreOptions) -> None:
        self._components = components
        self._terms = terms
        self._suffix = ".".join(_suffix(terms))

    def of(self, schema: JsonSchema) -> JsonSchema:
        """Return what an answer that was declared by a schema is when it leaves."""
        return self._walk(schema) if self._suffix else schema

    def _walk(self, schema: JsonSchema) -> JsonSchema:
        if "$ref" in schema:
            return schema | {"$ref": self._reference(schema["$ref"].rpartition("/")[2])}
        found = {name: self._part(name, each) for name, each in schema.items()}
        if self._terms.label_only:
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
            # It is there before it is made, because it may refer to itself.
            schemas[made] = {}
            schemas[made] |= self._walk(schemas[name])
        return f"#/components/schemas/{made}"

    def _loosened(self, leaf: JsonSchema) -> JsonSchema:
        """Return a score's schema without what the terms can break."""
        found = {name: each for name, each in leaf.items() if self._holds(name, each)}
        if self._terms.allows_nan:
            found["type"] = sorted(_types(found) | {"null"}, key="null".__eq__)
        return found

    def _holds(self, name: str, term: Any) -> bool:
        """Tell whether a term of a schema still holds: cut scores become lower ones, rounding can pass a bound."""
        if self._terms.top_k is not None and name in ("enum", *_LOWER):
            return False
        if self._terms.round is not None and name in _BOUNDS:
            return bool(round(term, self._terms.round) == term)
        return self._terms.round is None or name not in ("enum", "multipleOf")


def _suffix(terms: ScoreOptions) -> Iterator[str]:
    if terms.label_only:
        yield "label_only"
        return
    if terms.top_k is not None:
        yield f"top_k{terms.top_k}"
    if terms.round is not None:
        yield f"round{terms.round}"
    if terms.allows_nan:
        yield "nan"


def _labels(schema: JsonSchema) -> JsonSchema:
    """Return an object's schema without the members that are scores; what may be one or not need not be there."""
    members = schema.get("properties", {})
    kept = {name: _without(each) for name, each in members.items() if not _is_scores(each) or "null" in _types(each)}
    found = schema | ({"properties": kept} if "properties" in schema else {})
    if "required" in schema:
        found["required"] = [name for name in schema["required"] if _is_label(members[name])]
    # Of scores in a list, only their places are left.
    return found if _is_label(schema) else {name: each for name, each in found.items() if name not in _COUNTED}


def _without(schema: JsonSchema) -> JsonSchema:
    return {"type": "null"} if _is_scores(schema) else schema


def _is_scores(schema: JsonSchema) -> bool:
    """Tell whether a member has scores and nothing else, whatever its value."""
    return "number" in _types(schema) or str(schema.get("x-dtype", "")).startswith("float")


def _is_label(schema: JsonSchema) -> bool:
    """Tell whether a member is there without its scores."""
    if "$ref" in schema:
        return True
    types = _types(schema)
    if "array" in types:
        return isinstance(schema.get("items"), dict) and _is_label(schema["items"])
    return bool(types) and types <= _LABELS


def _types(schema: JsonSchema) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)
