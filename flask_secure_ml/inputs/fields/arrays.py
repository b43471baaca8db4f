"""Converting numbers as sent to the declared array, without a Python call per number."""

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
# The kinds of arrays that each kind of dtype accepts, matching the Python types that it accepts in lists.
_TAKES = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


def of_leaves(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return the leaves as an array, before any cast; integers beyond 64 bits stay Python integers."""
    if dtype.kind == "b":
        return np.array(leaves, dtype=dtype)
    try:
        # Filling an array.array takes half as long as numpy's conversion of a list.
        return np.asarray(array("d" if dtype.kind == "f" else "q", leaves))
    except OverflowError:
        if dtype.kind == "f":
            return np.array(list(map(_float, leaves)), dtype=np.float64)
        return np.array(leaves, dtype=object)


def _float(leaf: float) -> float:
    """Return the leaf as a float; an integer that is too large becomes infinite, and is then rejected."""
    try:
        return float(leaf)
    except OverflowError:
        return float("inf")


def is_taken(sent: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Return True if a field of one dtype accepts arrays of another.

    Strings, objects, structured dtypes and long doubles are never accepted.
    """
    return sent.kind in _TAKES[dtype.kind] and not (sent.kind == "f" and sent.itemsize > _WIDEST_FLOAT)


def has_odd_booleans(sent: Array) -> bool:
    """Return True if an array of booleans that was read from bytes has values other than 0 and 1."""
    return sent.dtype.kind == "b" and bool((np.ascontiguousarray(sent).view(np.uint8) > 1).any())


def of_array(sent: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in native byte order; for a float field, as float64 or ``dtype`` itself."""
    native = sent.astype(sent.dtype.newbyteorder("="), order="C", copy=False)
    if dtype.kind == "f" and native.dtype != dtype.newbyteorder("="):
        return native.astype(np.float64, copy=False)
    return native


def own(cast: Array, dtype: np.dtype[Any]) -> Array:
    """Return a writeable, C-contiguous, aligned array of the dtype, copying only if necessary."""
    return cast if cast.flags.carray and cast.dtype == dtype else cast.astype(dtype, order="C")


_LIST = frozenset({list})
# The number of items that are checked between two checks for enough errors.
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
    """Base class of :class:`Tensor` and :class:`Categorical` with their shape and limits.

    ``shape`` has the length of each dimension, or None for any length; ``dimensions`` has the names, or None.
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
        """Return the shape and the innermost lists; sizes are checked before data is copied."""
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

        :param known: the number of leaves at the start that are known to be valid.
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
        """Check a shape before the numbers are read; the arithmetic uses Python integers, so it cannot overflow."""
        if (key := self._fault(shape)) is not None:
            named = zip(self.shape, self.dimensions, strict=True)
            wanted = ", ".join(str(length or name or "any") for length, name in named)
            raise self.make_error(key, shape=wanted, max_items=self.max_items, max_elements=self.max_elements)

    def _fault(self, shape: Shape) -> str | None:
        """Return the message key for an invalid shape; None if it is valid."""
        if len(shape) != len(self.shape):
            return "shape"
        if not all(expected in (None, length) for expected, length in zip(self.shape, shape, strict=True)):
            return "shape"
        if not all(shape):
            return "empty"
        if shape and self.max_items is not None and shape[0] > self.max_items:
            return "max_items"
        # Lengths are compared first: the product of lengths with thousands of digits would take long.
        if max(shape, default=1) > self.max_elements or prod(shape) > self.max_elements:
            return "max_elements"
        return None

    def _message(self, key: str, **values: Any) -> Message:
        message = str(self.error_messages[key]).format(**values)
        return lambda _position: message

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        return None if value is None else np.asarray(value).tolist()


def _of_others(items: list[Any], types: frozenset[type], first: int = 0) -> list[int]:
    """Return the positions of the first items of other types; the search stops after enough of them."""
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
