"""Dimensions with a name: of one length wherever the name stands in the fields of one object.

A field compares itself with the fields that stand before it in its schema, by the shape that their values claim.
That needs neither a hook in the schema nor anything kept between fields, and a value that is not what it claims is
refused by its own field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from marshmallow import Schema

from .field_base import AnyField
from .positions import Shape

_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "dimension": 'Its dimension "{name}" must be as long as that of "{other}".',
    "dimension_twice": 'Its dimension "{name}" must have the same length each time.',
}


class DimensionedField(AnyField):
    """A field whose value has a shape.

    ``dimensions`` has a name or None for each dimension, and ``is_named`` tells whether there is any.

    :raises TypeError: at the first use of the schema, when a name could not be compared: inside a ``List`` or
        ``Dict``, or beside marshmallow's ``pre_load`` of a field, which changes the value first.
    """

    default_error_messages = _MESSAGES
    dimensions: tuple[str | None, ...] = ()
    is_named = False

    def _bind_to_schema(self, field_name: str, parent: Any) -> None:
        if self.is_named and not isinstance(parent, Schema):
            raise TypeError(f"{field_name}: a named dimension needs a field of its own, not one inside another field")
        if self.is_named and getattr(self, "pre_load", None):
            raise TypeError(f"{field_name}: a field with a named dimension cannot have pre_load")
        super()._bind_to_schema(field_name, parent)

    def claimed_shape(self, value: Any) -> Shape | None:
        """Return the shape of a value that is valid; for any other one, a shape or None."""
        return shape_of_lists(value, len(self.dimensions))

    def _check_dimensions(self, shape: Shape, data: Mapping[str, Any] | None) -> None:
        lengths: dict[str, int] = {}
        for name, length in zip(self.dimensions, shape, strict=True):
            if name and lengths.setdefault(name, length) != length:
                raise self.make_error("dimension_twice", name=name)
        for other, name, length in self._claimed_before(data or {}):
            if lengths.get(name, length) != length:
                raise self.make_error("dimension", name=name, other=other)

    def _claimed_before(self, data: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
        """Yield field, dimension and length of every named dimension of the fields before this one."""
        siblings = self.parent.load_fields if isinstance(self.parent, Schema) else {}
        for attribute, field in siblings.items():
            if field is self:
                return
            if isinstance(field, DimensionedField) and field.is_named:
                key = attribute if field.data_key is None else field.data_key
                shape = field.claimed_shape(data.get(key)) or ()
                yield from ((key, name, length) for name, length in zip(field.dimensions, shape, strict=False) if name)


def shape_of_lists(value: Any, dimensions: int) -> Shape | None:
    """Return the lengths of the first list of each level, or the shape of an array; None when there is a level less."""
    if type(value) is np.ndarray:
        return tuple(value.shape)
    lengths: list[int] = []
    for _ in range(dimensions):
        if type(value) is not list or not value:
            return None
        lengths.append(len(value))
        value = value[0]
    return tuple(lengths)
