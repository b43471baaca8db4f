"""The one module that depends on how marshmallow 3 and 4 are built inside.

Everything else uses their documented interface. ``Schema._hooks`` has no public counterpart; the other functions hide
what differs between the two releases.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from marshmallow import Schema, fields

if TYPE_CHECKING:
    AnyField = fields.Field[Any]
    AnyList = fields.List[Any]
else:
    # Both take type parameters from marshmallow 4 on.
    AnyField = fields.Field
    AnyList = fields.List

F = TypeVar("F", bound="fields.Field[Any]")


def has_hook(schema: Schema, tag: str) -> bool:
    """Return True if the schema has a method for a tag such as ``pre_load`` or ``post_load``."""
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - of each tag: name, takes the collection, arguments
    return bool(hooks.get(tag))


def has_any_hook(schema: Schema) -> bool:
    """Return True if the schema has a method that is called when it loads, validates or dumps."""
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - as above
    return any(hooks.values())


def has_collection_hook(schema: Schema) -> bool:
    """Return True if a method of the schema gets all objects of a collection at once.

    The option is ``pass_collection`` in marshmallow 4 and ``pass_many`` in marshmallow 3.
    """
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - as above
    return any(takes_collection for methods in hooks.values() for _, takes_collection, _ in methods)


def has_pre_load(field: Any) -> bool:
    """Return True if a field changes its value before it loads it, as marshmallow 4 allows."""
    return bool(getattr(field, "pre_load", ()))


def has_post_load(field: Any) -> bool:
    """Return True if a field changes what it loaded, as marshmallow 4 allows."""
    return bool(getattr(field, "post_load", ()))


def inner_fields(field: Any) -> list[Any]:
    """Return the fields inside a list, a mapping or a tuple; a nested schema is not among them."""
    if isinstance(field, fields.List):
        return [field.inner]
    if isinstance(field, fields.Mapping):
        return [inner for inner in (field.key_field, field.value_field) if inner is not None]
    return list(field.tuple_fields) if isinstance(field, fields.Tuple) else []


def with_inner_fields(field: Any, kind: type[F], inner: Iterable[Any]) -> F:
    """Return a copy of a list, a dict or a tuple with other inner fields, in the order of :func:`inner_fields`.

    :param kind: the class of the copy: that of the field, or a subclass without attributes of its own.
    """
    found = copy_as(field, kind)
    attributes = vars(found)
    replaced = iter(inner)
    if isinstance(field, fields.List):
        attributes["inner"] = next(replaced)
    elif isinstance(field, fields.Tuple):
        attributes["tuple_fields"] = list(replaced)
    else:
        names = [name for name in ("key_field", "value_field") if attributes[name] is not None]
        attributes.update(zip(names, replaced, strict=True))
    return found


def copy_as(field: Any, kind: type[F]) -> F:
    """Return a copy of a bound field as an object of a subclass; the field itself stays as it is."""
    found = kind.__new__(kind)
    vars(found).update(vars(field))
    return found


def with_load_fields(schema: Schema, load_fields: Mapping[str, Any]) -> Schema:
    """Return a copy of a schema that loads with other fields; the schema itself stays as it is.

    The copy is shallow, as marshmallow's own of a schema instance in ``Nested``.
    """
    found = copy.copy(schema)
    found.load_fields = type(schema.load_fields)(load_fields)
    return found
