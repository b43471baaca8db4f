"""A fast path for valid values of :class:`Tensor` fields: returns the loaded array, or ``NOT_SURE``.

The minimum and maximum of an array are enough to check that all numbers are finite, fit the dtype and are within bounds
for the whole array. All other rules are checked by the methods of the field.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from .fields.tensor import Tensor, packed
from .fields.tensor_options import Bound
from .number_arrays import Kind
from .problems import Shape

NOT_SURE: Final = object()
"""The value may be invalid, so the field has to load it."""

Array = NDArray[Any]
# If the first and the last dimension are at most this long, numbers are converted one at a time, which is faster.
_FEW = 10
_LISTS = frozenset({list})
# The Python types of JSON numbers that a field loads; a boolean is not a number.
_TYPES = {"f": frozenset({float, int}), "i": frozenset({int}), "u": frozenset({int}), "b": frozenset({bool})}


def kind_of(field: Tensor) -> Kind | None:
    """Return the kind of array that is parsed for a field; None for booleans."""
    if field.dtype.kind == "b":
        return None
    if field.dtype.kind == "f":
        return Kind(len(field.shape), "d")
    return Kind(len(field.shape), "u" if field.dtype.itemsize == 8 and field.dtype.kind == "u" else "i")  # noqa: PLR2004


class AcceptTensor:
    """Loads valid values of a field: nested lists from orjson, or an array of the field's :func:`kind_of`."""

    def __init__(self, field: Tensor) -> None:
        self._field = field
        self._types = _TYPES[field.dtype.kind]
        self._is_float = field.dtype.kind == "f"
        self._low, self._high = _range_of(field.dtype)
        self._by_position: list[Bound] = []
        for bound in field._bounds:  # noqa: SLF001 - the package's own; so is what follows
            if bound.for_all is None:
                self._by_position.append(bound)
            elif bound.name == "minimum":
                self._low = max(self._low, bound.for_all)
            else:
                self._high = min(self._high, bound.for_all)
        self._has_rules = any(rule is not None for rule in (field._allowed, field.total, field.norm))  # noqa: SLF001

    def __call__(self, value: Any) -> Any:
        """Return the loaded array, or ``NOT_SURE``."""
        if type(value) is list:
            return self._of_lists(value)
        if type(value) is np.ndarray and self._has_shape(value.shape):
            return self._of_array(value)
        return NOT_SURE

    def _of_lists(self, value: list[Any]) -> Any:
        lists: list[Any] = [value]
        shape: Shape = ()
        for expected in self._field.shape:
            if shape:
                lists = list(chain.from_iterable(lists))
            if set(map(type, lists)) != _LISTS:
                return NOT_SURE
            length, *others = set(map(len, lists))
            if others or not length or (expected is not None and expected != length):
                return NOT_SURE
            shape = (*shape, length)
        found, _ = packed(lists, self._types) if shape[-1] > _FEW or shape[0] > _FEW else (None, 0)
        if found is not None:
            exact = found.astype(np.float64, copy=False) if self._is_float else found
            return self._of_array(exact.reshape(shape))
        leaves = list(chain.from_iterable(lists))
        if not set(map(type, leaves)) <= self._types or not (self._low <= min(leaves) and max(leaves) <= self._high):
            return NOT_SURE
        return self._loaded(np.array(leaves, np.float64 if self._is_float else self._field.dtype).reshape(shape))

    def _of_array(self, array: Array) -> Any:
        is_in_range = self._low <= array.min().item() and array.max().item() <= self._high
        return self._loaded(array) if is_in_range else NOT_SURE

    def _has_shape(self, shape: Shape) -> bool:
        return all(expected in (None, length) for expected, length in zip(self._field.shape, shape, strict=True))

    def _loaded(self, sent: Array) -> Any:
        """Return the loaded array if all numbers are in range; floats are passed as float64."""
        field = self._field
        if sent.size > field.max_elements or (field.max_items is not None and sent.shape[0] > field.max_items):
            return NOT_SURE
        cast = sent.astype(field.dtype, copy=False)
        exact = sent if self._is_float else cast
        for bound in self._by_position:
            if np.count_nonzero(bound.broken(exact)):
                return NOT_SURE
        if self._has_rules:
            try:
                field._check_rules(exact)  # noqa: SLF001
            except ValidationError:
                return NOT_SURE
        return cast


def _range_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the minimum and maximum of a dtype.

    Floats slightly beyond the maximum would be rounded to it; these are left to the field.
    """
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
