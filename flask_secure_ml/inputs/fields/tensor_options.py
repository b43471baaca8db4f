"""The options of tensors: named dimensions, shapes, dtypes, bounds, sums and norms.

A named dimension has the same length wherever the name is used in the fields of one object. A field compares its shape
with the declared shapes of the fields before it in the schema. This needs neither a schema hook nor state between
fields, and a value that does not match its declared shape is rejected by its own field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from marshmallow import Schema
from numpy.typing import DTypeLike, NDArray

from ..marshmallow_internals import has_pre_load
from ..problems import Shape
from . import AnyField, is_count

_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "dimension": 'Its dimension "{name}" must be as long as that of "{other}".',
    "dimension_twice": 'Its dimension "{name}" must have the same length each time.',
}


class DimensionedField(AnyField):
    """A field whose value has a shape.

    ``dimensions`` has a name or None for each dimension, and ``is_named`` is True if there is any name.

    :raises TypeError: at the first use of the schema, if a name could not be compared: inside a ``List`` or ``Dict``,
        or with marshmallow's ``pre_load`` of a field, which changes the value first.
    """

    default_error_messages = _MESSAGES
    dimensions: tuple[str | None, ...] = ()
    is_named = False

    def _bind_to_schema(self, field_name: str, parent: Any) -> None:
        if self.is_named and not isinstance(parent, Schema):
            raise TypeError(f"{field_name}: a named dimension needs a field of its own, not one inside another field")
        if self.is_named and has_pre_load(self):
            raise TypeError(f"{field_name}: a field with a named dimension cannot have pre_load")
        super()._bind_to_schema(field_name, parent)

    def claimed_shape(self, value: Any) -> Shape | None:
        """Return the shape of a valid value; for any other value, a shape or None."""
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
        """Yield the field, name and length of every named dimension of the fields before this one."""
        siblings = self.parent.load_fields if isinstance(self.parent, Schema) else {}
        for attribute, field in siblings.items():
            if field is self:
                return
            if isinstance(field, DimensionedField) and field.is_named:
                key = attribute if field.data_key is None else field.data_key
                shape = field.claimed_shape(data.get(key)) or ()
                yield from ((key, name, length) for name, length in zip(field.dimensions, shape, strict=False) if name)


def shape_of_lists(value: Any, dimensions: int) -> Shape | None:
    """Return the shape of an array, or of nested lists by the first list of each level; None if a level is missing."""
    if type(value) is np.ndarray:
        return tuple(value.shape)
    lengths: list[int] = []
    for _ in range(dimensions):
        if type(value) is not list or not value:
            return None
        lengths.append(len(value))
        value = value[0]
    return tuple(lengths)


# The maximum number of dimensions in every supported release of numpy.
_MAX_DIMENSIONS = 32
_WIDEST_FLOAT = 8
KINDS = "fiub"
OUTSIDE = ("reject", "clip", "report")


def checked_shape(shape: Sequence[int | str | None]) -> tuple[tuple[int | None, ...], tuple[str | None, ...]]:
    """Return the lengths and the names of the dimensions."""
    if isinstance(shape, (str, int)) or not all(length is None or _is_length(length) for length in shape):
        raise TypeError("shape must be a tuple such as (None, 64): whole numbers from 1, names, or None for any length")
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"shape must have 1 to {_MAX_DIMENSIONS} dimensions")
    lengths = tuple(length if isinstance(length, int) else None for length in shape)
    return lengths, tuple(name if isinstance(name, str) else None for name in shape)


def _is_length(length: Any) -> bool:
    return length.isidentifier() if isinstance(length, str) else is_count(length)


def checked_dimensions(shape: Sequence[int | str | None]) -> Sequence[int | str | None]:
    """Return a shape that must have at least one dimension.

    :raises ValueError: it has none.
    """
    if not isinstance(shape, (str, int)) and not shape:
        raise ValueError(f"shape must have 1 to {_MAX_DIMENSIONS} dimensions")
    return shape


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype, which must be one that JSON can represent."""
    found = np.dtype(dtype)
    if found.kind not in KINDS or (found.kind == "f" and found.itemsize > _WIDEST_FLOAT):
        raise ValueError(f"dtype must be bool, an integer or a float of up to 64 bits, not {found.name}")
    return found


def checked_bound(
    name: str, bound: float | Sequence[float] | NDArray[Any], shape: tuple[int | None, ...]
) -> NDArray[np.float64]:
    """Return a bound as a zero-dimensional array, or as an array over the last dimension of ``shape``."""
    found = np.asarray(bound, dtype=np.float64)
    if np.isnan(found).any():
        raise ValueError(f"{name} must be a number")
    if found.ndim and found.shape != shape[-1:]:
        raise ValueError(f"{name} must be one number, or one for each position of the last dimension of shape")
    return found


def checked_span(name: str, span: tuple[float, float]) -> tuple[float, float]:
    """Return the minimum and maximum of a sum or norm; integers stay integers."""
    if not isinstance(span, Sequence) or len(span) != 2 or not all(map(_is_number, span)):  # noqa: PLR2004  (low, high)
        raise ValueError(f"{name} must be two numbers such as (0.99, 1.01)")
    low, high = map(_plain, span)
    if low > high:
        raise ValueError(f"{name} must not have its first number greater than its second")
    return low, high


def _plain(value: Any) -> float:
    found: float = value.item() if isinstance(value, np.number) else value
    return found


def checked_allowed(allowed: Collection[float], dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Return the allowed values, sorted; each must be a value of the dtype."""
    values = tuple(allowed)
    if not values or not all(map(_is_number, values)):
        raise ValueError("allowed must be numbers, at least one")
    if dtype.kind in "iu" and not all(_is_of(value, np.iinfo(dtype)) for value in values):
        raise ValueError(f"allowed must be whole numbers that {dtype.name} has")
    return tuple(sorted(set(values)))


def _is_of(value: float, limits: np.iinfo[Any]) -> bool:
    return isinstance(value, (int, np.integer)) and limits.min <= value <= limits.max


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and not np.isnan(float(value))


Array = NDArray[Any]
_LOW = 0xFFFF_FFFF
# More than the sum of all integers that fit into memory. Both of its halves fit into 64 bits.
_BEYOND_SUMS = 1 << 94


# For each bound: the comparison for values outside, and the functions that return the inner and outer of two values.
_COMPARISONS = {
    "minimum": (np.less, np.maximum, np.minimum),
    "maximum": (np.greater, np.minimum, np.maximum),
}


class Bound:
    """The minimum or maximum value of a field.

    ``declared`` is the bound as given; ``native`` is the bound in the dtype of the field, rounded inwards for integers.
    ``for_all`` is the bound for numbers as sent; None if there is one for each position.

    :raises ValueError: no value of the dtype is within the bound.
    """

    def __init__(self, name: str, bound: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> None:
        self.name = name
        self.declared: NDArray[np.float64] = checked_bound(name, bound, shape)
        self._outside, self._inner, outer = _COMPARISONS[name]
        self._dtype = dtype.newbyteorder("=")
        if dtype.kind == "f":
            self.native, self._wide = _float_bounds(self.declared, self._dtype, outer)
        else:
            self.native = self._wide = _integer_bound(name, bound, self._dtype)
        self.for_all: float | None = None if self.declared.shape else self._wide.item()

    def broken(self, sent: Array) -> NDArray[np.bool_]:
        """Return a mask of the numbers outside the bound."""
        wrong: NDArray[np.bool_] = self._outside(sent, self.native if sent.dtype == self._dtype else self._wide)
        return wrong

    def clipped(self, cast: Array) -> Array:
        """Return the numbers, with those outside changed to the bound."""
        inside: Array = self._inner(cast, self.native)
        return inside


def _float_bounds(declared: NDArray[np.float64], dtype: np.dtype[Any], outer: Any) -> tuple[Array, Array]:
    with np.errstate(over="ignore"):
        native = declared.astype(dtype)
    return native, outer(declared, native.astype(np.float64))


def _integer_bound(name: str, bound: Any, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    # As objects, so that integers beyond 2**53 stay exact.
    exact = np.asarray(bound, dtype=object)
    whole = [_whole(name, value, int(limits.min), int(limits.max)) for value in exact.ravel().tolist()]
    return np.array(whole, dtype=dtype).reshape(exact.shape)


def _whole(name: str, value: float, least: int, most: int) -> int:
    low = name == "minimum"
    found = value if math.isinf(value) else (math.ceil if low else math.floor)(value)
    if (low and found > most) or (not low and found < least):
        raise ValueError(f"{name} excludes every value of the dtype")
    return int(max(least, min(most, found)))


def values_of(allowed: Sequence[float], dtype: np.dtype[Any]) -> Array:
    """Return the allowed values, both exact and cast to the dtype."""
    native = np.array(allowed, dtype=dtype.newbyteorder("="))
    return np.union1d(native.astype(np.float64), np.array(allowed, dtype=np.float64)) if dtype.kind == "f" else native


def off_total(sent: Array, span: tuple[float, float]) -> NDArray[np.bool_]:
    """Return a mask of rows whose sum over the last dimension is outside a span; sums of integers are exact."""
    if sent.dtype.kind == "f":
        return beyond(sums(sent), span)
    sum_high, sum_low = _exact_sums(sent)
    (least_high, least_low), (most_high, most_low) = _halves(math.ceil, span[0]), _halves(math.floor, span[1])
    below = (sum_high < least_high) | ((sum_high == least_high) & (sum_low < least_low))
    above = (sum_high > most_high) | ((sum_high == most_high) & (sum_low > most_low))
    return np.asarray(below | above)


def _exact_sums(sent: Array) -> tuple[Array, Array]:
    """Return the sums of integers over the last dimension, as multiples of 2**32 and remainders.

    Neither half overflows for rows of up to 2**31 integers of 64 bits.
    """
    wide = sent.astype(np.uint64 if sent.dtype == np.uint64 else np.int64, copy=False)
    half, mask = wide.dtype.type(32), wide.dtype.type(_LOW)
    low = (wide & mask).astype(np.int64, copy=False).sum(axis=-1)
    high = (wide >> half).astype(np.int64, copy=False).sum(axis=-1) + (low >> 32)
    return high, low & _LOW


def _halves(rounded: Callable[[float], int], bound: float) -> tuple[int, int]:
    whole = rounded(max(-_BEYOND_SUMS, min(_BEYOND_SUMS, bound)))
    return whole >> 32, whole & _LOW


def sums(sent: Array) -> NDArray[np.float64]:
    """Return the sum over the last dimension."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.float64] = sent.astype(np.float64).sum(axis=-1)
    return found


def norms(sent: Array) -> NDArray[np.float64]:
    """Return the Euclidean norm over the last dimension."""
    with np.errstate(over="ignore"):
        found: NDArray[np.float64] = np.linalg.norm(sent.astype(np.float64), axis=-1)
    return found


def beyond(computed: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.bool_]:
    """Return a mask of computed values outside a span; NaN, a sum that overflows in both directions, is outside."""
    low, high = span
    return np.asarray(~((computed >= low) & (computed <= high)))


def crossed(bounds: Collection[Bound]) -> bool:
    """Return True if the minimum is greater than the maximum."""
    if len(bounds) < 2:  # noqa: PLR2004  both
        return False
    minimum, maximum = bounds
    return bool((minimum.declared > maximum.declared).any() or (minimum.native > maximum.native).any())
