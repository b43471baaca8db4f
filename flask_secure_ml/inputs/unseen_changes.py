"""Finding changes by a schema that have no effect on views that read the body themselves.

Policies of ``SECURE_ML_POLICIES`` are for views that were written without this package. These call
``request.get_json()`` and get the body as sent: the schema can reject it, but its changes to the body have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, missing

from ..policy.policy import Policy
from .fields.tensor import Tensor
from .fields.text import Text
from .fields.url import Url
from .marshmallow_internals import has_hook, inner_fields


def unseen_changes(policies: Mapping[str, Policy]) -> Iterator[str]:
    """Yield a sentence for each configured policy whose schema changes or omits values."""
    for name, policy in policies.items():
        found = list(dict.fromkeys(changes(policy.body))) if policy.body else []
        if found:
            yield (
                f"a view at {name!r} that reads the body itself does not get the changes that the schema in "
                f"SECURE_ML_POLICIES makes: {', '.join(found)}"
            )


def changes(schema: Schema) -> Iterator[str]:
    """Yield the changes that a schema makes, other than the types of values."""
    yield from _of_schema(schema, schema.unknown, "", set())


def _of_schema(schema: Schema, unknown: str | None, path: str, seen: set[type[Schema]]) -> Iterator[str]:
    if type(schema) in seen:
        return
    seen.add(type(schema))
    if unknown == EXCLUDE:
        yield f"unknown fields are left out{f' of {path}' if path else ''}"
    yield from _of_hooks(schema, path)
    for name, field in schema.load_fields.items():
        yield from _of_field(field, f"{path}.{name}" if path else name, seen)


def _of_hooks(schema: Schema, path: str) -> Iterator[str]:
    for tag in ("pre_load", "post_load"):
        if has_hook(schema, tag):
            yield f"{f'{path}.' if path else ''}{tag}"


def _of_field(field: Any, path: str, seen: set[type[Schema]]) -> Iterator[str]:
    yield from (f"{path} ({option})" for option in _options(field))
    if isinstance(field, fields.Nested):
        yield from _of_schema(field.schema, field.unknown or field.schema.unknown, path, seen)
    for inner in inner_fields(field):
        yield from _of_field(inner, path, seen)


def _options(field: Any) -> Iterator[str]:
    if field.load_default is not missing:
        yield "load_default"
    if isinstance(field, Tensor) and field.outside == "clip":
        yield 'outside="clip"'
    if isinstance(field, Url):
        yield "the IP addresses of its host"
    if isinstance(field, Text):
        yield from (f'{name}="strip"' for name in ("control", "bidi", "invisible") if getattr(field, name) == "strip")
        if field.normalise is not None:
            yield f'normalise="{field.normalise}"'
