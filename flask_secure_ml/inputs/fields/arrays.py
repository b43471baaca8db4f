"""From numbers as they were sent to an array as the field declares it, without a Python call for each number."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, compress, count
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problems import MAX_ERRORS, Message, Shape, at
from . import checked_count, required_by_default
from .tensor_options import DimensionedField, checked_shape

Array = NDArray[Any]
_WIDEST_FLOAT = 8
# The kinds of arrays that each kind of dtype takes, as it takes Python's types in lists.
_TAKES = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


def of_leaves(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return the leaves as they were sent, before any cast; integers beyond 64 bits stay Python's own."""
    if dtype.kind == "b":
        return np.array(leaves, dtype=dtype)
    try:
        # Filling an array of the standard library takes half as long as numpy's own conversion.
        return np.asarray(array("d" if dtype.kind == "f" else "q", leaves))
    except OverflowError:
        if dtype.kind == "f":
            return np.array(list(map(_float, leaves)), dtype=np.float64)
        return np.array(leaves, dtype=object)


def _float(leaf: float) -> float:
    """Return the leaf as a float; an integer too large for one is infinite, and rejected as such."""
    try:
        return float(leaf)
    except OverflowError:
        return float("inf")


def is_taken(sent: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Return True if an array of one dtype may fill a field of another: no string, object, record or long double."""
    return sent.kind in _TAKES[dtype.kind] and not (sent.kind == "f" and sent.itemsize > _WIDEST_FLOAT)


def has_odd_booleans(sent: Array) -> bool:
    """Return True if an array of booleans, made of bytes, has others than 0 and 1."""
    return sent.dtype.kind == "b" and bool((np.ascontiguousarray(sent).view(np.uint8) > 1).any())


def of_array(sent: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in native byte order; for floats in float64, or in ``dtype`` if it is of that."""
    native = sent.astype(sent.dtype.newbyteorder("="), order="C", copy=False)
    if dtype.kind == "f" and native.dtype != dtype.newbyteorder("="):
        return native.astype(np.float64, copy=False)
    return native


def own(cast: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array that a view may write to: C-contiguous, aligned, of the dtype; a copy only where it must be."""
    return cast if cast.flags.carray and cast.dtype == dtype else cast.astype(dtype, order="C")


_LIST = frozenset({list})
# So many items are checked before the number of wrong ones is.
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
    """The shape and the limits that :class:`Tensor` and :class:`Categorical` share.

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
        self.is_named: bool = any(self.dimensions)
        self.max_items: int | None = None if max_items is None else checked_count("max_items", max_items)
        self.max_elements: int = checked_count("max_elements", max_elements)
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
            raise at(wrong, shape, self._message("list"))

    def _check_leaves(
        self, leaves: list[Any], shape: Shape, key: str, allowed: frozenset[type], known: int = 0
    ) -> None:
        """Check the types of the leaves.

        :param known: how many of the first are known to be right.
        """
        if wrong := _of_others(leaves, allowed, known):
            raise at(wrong, shape, self._message(key))

    def _common_length(self, level: list[list[Any]], shape: Shape, expected: int | None) -> int:
        lengths = set(map(len, level))
        length = next(iter(lengths)) if len(lengths) == 1 else len(level[0])
        if expected is not None and lengths != {expected}:
            raise at(_unlike(level, expected), shape, self._message("length", expected=expected))
        if len(lengths) > 1:
            raise at(_unlike(level, length), shape, self._message("ragged"))
        if length == 0:
            raise at(range(len(level)), shape, self._message("empty"))
        if not shape and self.max_items is not None and length > self.max_items:
            raise self.make_error("max_items", max_items=self.max_items)
        return length

    def _check_shape(self, shape: Shape) -> None:
        """Check a shape that is known before the numbers are read, by arithmetic on unbounded integers."""
        if (key := self._fault(shape)) is not None:
            named = zip(self.shape, self.dimensions, strict=True)
            wanted = ", ".join(str(length or name or "any") for length, name in named)
            raise self.make_error(key, shape=wanted, max_items=self.max_items, max_elements=self.max_elements)

    def _fault(self, shape: Shape) -> str | None:
        """Return the key of the message about what is wrong with a shape."""
        if len(shape) != len(self.shape):
            return "shape"
        if not all(expected in (None, length) for expected, length in zip(self.shape, shape, strict=True)):
            return "shape"
        if not all(shape):
            return "empty"
        if shape and self.max_items is not None and shape[0] > self.max_items:
            return "max_items"
        # One by one first: a product of lengths with thousands of digits each would take long.
        if max(shape, default=1) > self.max_elements or prod(shape) > self.max_elements:
            return "max_elements"
        return None

    def _message(self, key: str, **values: Any) -> Message:
        message = str(self.error_messages[key]).format(**values)
        return lambda _position: message

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        return None if value is None else np.asarray(value).tolist()


def _of_others(items: list[Any], types: frozenset[type], first: int = 0) -> list[int]:
    """Return the positions of the first items of other types; after enough of them, the rest is skipped."""
    found: list[int] = []
    for start in range(first, len(items), _STEP):
        kinds = list(map(type, items[start : start + _STEP]))
        if not set(kinds) <= types:
            found += [start + position for position, kind in enumerate(kinds) if kind not in types]
            if len(found) >= MAX_ERRORS:
                break
    return found


def _unlike(level: list[list[Any]], length: int) -> Iterable[int]:
    return compress(count(), map(length.__ne__, map(len, level)))
