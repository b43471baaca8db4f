"""Fields whose value is an array: nested lists or a :class:`numpy.ndarray`, checked for its shape and its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress, count
from math import prod
from typing import Any

import numpy as np

from .field_base import required_by_default
from .named_dimensions import DimensionedField
from .positions import MAX_ERRORS, Message, Shape, at
from .tensor_terms import checked_count, checked_shape

_LIST = frozenset({list})
# As many items are looked at before it is asked whether enough of them are wrong.
_STEP = 1_000
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "list": "Not a list.",
    "empty": "Must not be empty.",
    "ragged": "Must have the same length as its siblings.",
    "length": "Must have {expected} items.",
    "shape": "Must have the shape ({shape}).",
    "max_items": "Must have at most {max_items} items.",
    "max_elements": "Must have at most {max_elements} elements in all.",
}


class ArrayField(DimensionedField):
    """The shape and the caps that :class:`Tensor` and :class:`Categorical` share.

    ``shape`` has the length of each dimension, None for any; ``dimensions`` has their names, None without one.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self,
        shape: Sequence[int | str | None],
        *,
        max_items: int | None = None,
        max_elements: int = 1_000_000,
        **options: Any,
    ) -> None:
        self.shape, self.dimensions = checked_shape(shape)
        self.is_named = any(self.dimensions)
        self.max_items = None if max_items is None else checked_count("max_items", max_items)
        self.max_elements = checked_count("max_elements", max_elements)
        self._check_caps()
        super().__init__(**required_by_default(options))

    def _check_caps(self) -> None:
        if self.max_items is not None and not self.shape:
            raise ValueError("max_items needs a shape")
        if self.max_items is not None and (self.shape[0] or 0) > self.max_items:
            raise ValueError("max_items must not be less than the first dimension of shape")
        if prod(length or 1 for length in self.shape) > self.max_elements:
            raise ValueError("max_elements must not be less than what shape needs")

    def _rows(self, value: Any) -> tuple[Shape, list[list[Any]]]:
        """Return the shape and the innermost lists; nothing is copied before its size is known."""
        shape: Shape = ()
        level = [value]
        for expected in self.shape:
            if shape:
                level = list(chain.from_iterable(level))
            self._check_lists(level, shape)
            length = self._common_length(level, shape, expected)
            shape = (*shape, length)
            if prod(shape) > self.max_elements:
                raise self.make_error("max_elements", max_elements=self.max_elements)
        return shape, level

    def _check_lists(self, level: list[Any], shape: Shape) -> None:
        if wrong := _of_others(level, _LIST):
            raise at(wrong, shape, self._says("list"))

    def _check_leaves(
        self, leaves: list[Any], shape: Shape, key: str, allowed: frozenset[type], known: int = 0
    ) -> None:
        """Check the types of all leaves but the first, as many as are known to be right."""
        if wrong := _of_others(leaves, allowed, known):
            raise at(wrong, shape, self._says(key))

    def _common_length(self, level: list[list[Any]], shape: Shape, expected: int | None) -> int:
        lengths = set(map(len, level))
        length = next(iter(lengths)) if len(lengths) == 1 else len(level[0])
        if expected is not None and lengths != {expected}:
            raise at(_unlike(level, expected), shape, self._says("length", expected=expected))
        if len(lengths) > 1:
            raise at(_unlike(level, length), shape, self._says("ragged"))
        if length == 0:
            raise at(range(len(level)), shape, self._says("empty"))
        if not shape and self.max_items is not None and length > self.max_items:
            raise self.make_error("max_items", max_items=self.max_items)
        return length

    def _check_shape(self, shape: Shape) -> None:
        """Check a shape that is known without a look at the numbers, by arithmetic on unbounded integers."""
        if (key := self._fault(shape)) is not None:
            named = zip(self.shape, self.dimensions, strict=True)
            wanted = ", ".join(str(length or name or "any") for length, name in named)
            raise self.make_error(key, shape=wanted, max_items=self.max_items, max_elements=self.max_elements)

    def _fault(self, shape: Shape) -> str | None:
        """Return the key of the message that says what is wrong with a shape."""
        if len(shape) != len(self.shape):
            return "shape"
        if not all(expected in (None, length) for expected, length in zip(self.shape, shape, strict=True)):
            return "shape"
        if not all(shape):
            return "empty"
        if shape and self.max_items is not None and shape[0] > self.max_items:
            return "max_items"
        # One by one first: a product of lengths with thousands of digits each would take its time.
        if max(shape, default=1) > self.max_elements or prod(shape) > self.max_elements:
            return "max_elements"
        return None

    def _says(self, key: str, **values: Any) -> Message:
        message = str(self.error_messages[key]).format(**values)
        return lambda _place: message

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        return None if value is None else np.asarray(value).tolist()


def _of_others(items: list[Any], types: frozenset[type], first: int = 0) -> list[int]:
    """Return the first places of items that are not of these types; after enough of them, the rest is not looked at."""
    found: list[int] = []
    for start in range(first, len(items), _STEP):
        kinds = list(map(type, items[start : start + _STEP]))
        if not set(kinds) <= types:
            found += [start + place for place, kind in enumerate(kinds) if kind not in types]
            if len(found) >= MAX_ERRORS:
                break
    return found


def _unlike(level: list[list[Any]], length: int) -> Iterable[int]:
    return compress(count(), map(length.__ne__, map(len, level)))
