"""Access to internals of marshmallow 3 and 4. All other modules use its documented interface.

``Schema._hooks`` has no public equivalent; the other functions hide differences between the two releases.
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
    # Both are generic since marshmallow 4.
    AnyField = fields.Field
    AnyList = fields.List

F = TypeVar("F", bound="fields.Field[Any]")


def has_hook(schema: Schema, tag: str) -> bool:
    """Return True if the schema has a method for a tag such as ``pre_load`` or ``post_load``."""
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - of each tag: name, takes the collection, arguments
    return bool(hooks.get(tag))


def has_any_hook(schema: Schema) -> bool:
    """Return True if the schema has a hook that is called on load, validation or dump."""
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - as above
    return any(hooks.values())


def has_collection_hook(schema: Schema) -> bool:
    """Return True if a hook of the schema gets the whole collection at once.

    The option is ``pass_collection`` in marshmallow 4 and ``pass_many`` in marshmallow 3.
    """
    hooks: Mapping[str, Any] = schema._hooks  # noqa: SLF001 - as above
    return any(takes_collection for methods in hooks.values() for _, takes_collection, _ in methods)


def has_pre_load(field: Any) -> bool:
    """Return True if a field has ``pre_load`` functions (marshmallow 4)."""
    return bool(getattr(field, "pre_load", ()))


def has_post_load(field: Any) -> bool:
    """Return True if a field has ``post_load`` functions (marshmallow 4)."""
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
    """Return a copy of a bound field as an instance of a subclass; the field is not modified."""
    found = kind.__new__(kind)
    vars(found).update(vars(field))
    return found


def with_load_fields(schema: Schema, load_fields: Mapping[str, Any]) -> Schema:
    """Return a copy of a schema with other load fields; the schema is not modified.

    The copy is shallow, like the copy that marshmallow makes of a schema instance in ``Nested``.
    """
    found = copy.copy(schema)
    found.load_fields = type(schema.load_fields)(load_fields)
    return found
