"""The :class:`Tensor` field: nested lists of numbers to one checked array, without a Python call per number."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from marshmallow import ValidationError, fields
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    _ArrayField = fields.Field[NDArray[Any]]
else:
    # Field takes type parameters from marshmallow 4 on.
    _ArrayField = fields.Field

Shape = tuple[int, ...]
MAX_ERRORS = 20
# The Python types that each kind of dtype takes, and the message for others. A bool is an int to Python, not here.
_LEAVES: Mapping[str, tuple[str, frozenset[type]]] = {
    "f": ("number", frozenset({float, int})),
    "i": ("integer", frozenset({int})),
    "u": ("integer", frozenset({int})),
    "b": ("boolean", frozenset({bool})),
}
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "list": "Not a list.",
    "number": "Not a number.",
    "integer": "Not an integer.",
    "boolean": "Not a boolean.",
    "empty": "Must not be empty.",
    "ragged": "Must have the same length as its siblings.",
    "length": "Must have {expected} items.",
    "max_items": "Must have at most {max_items} items.",
    "max_elements": "Must have at most {max_elements} elements in all.",
    "finite": "Not a finite number, or too large for {dtype}.",
    "dtype": "Must be from {low} to {high}.",
    "minimum": "Must be at least {bound}.",
    "maximum": "Must be at most {bound}.",
}
# What numpy can nest, in every release that is supported.
_MAX_DIMENSIONS = 32
_WIDEST_FLOAT = 8


class Tensor(_ArrayField):
    """Nested lists of numbers, loaded as a C-contiguous :class:`numpy.ndarray`.

    Only what is meant passes: lists all of the right length, no text, no null, no boolean for a number, no
    fraction for an integer (``1.0`` is one), nothing infinite, also not after the cast to ``dtype``. A list may
    not be empty. Errors name the position of the first 20 offenders, and never repeat a value.

    :param shape: the length of each dimension; None means any length from 1.
    :param dtype: the dtype of the array: booleans, integers, or floats of up to 64 bits.
    :param minimum: the least allowed value, or one for each place of the last dimension.
    :param maximum: the greatest allowed value, given like ``minimum``.
    :param max_items: the greatest length of the first dimension.
    :param max_elements: the greatest number of elements in all.
    :raises TypeError, ValueError: when the definition itself is wrong.

    Takes the other arguments of a marshmallow field too. Unlike those it is required unless ``required=False`` or
    ``load_default`` says otherwise: a view that reads ``payload["instances"]`` must not fail on ``{}``.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self,
        shape: Sequence[int | None],
        dtype: DTypeLike = "float32",
        *,
        minimum: float | Sequence[float] | None = None,
        maximum: float | Sequence[float] | None = None,
        max_items: int | None = None,
        max_elements: int = 1_000_000,
        **options: Any,
    ) -> None:
        self.shape = _checked_shape(shape)
        self.dtype = _checked_dtype(dtype)
        self.max_items = None if max_items is None else _checked_count("max_items", max_items)
        self.max_elements = _checked_count("max_elements", max_elements)
        self.minimum = self._checked_bound("minimum", minimum)
        self.maximum = self._checked_bound("maximum", maximum)
        self._check_terms()
        super().__init__(**{"required": "load_default" not in options} | options)

    def _checked_bound(self, name: str, bound: float | Sequence[float] | None) -> NDArray[np.float64] | None:
        if bound is None:
            return None
        if self.dtype.kind == "b":
            raise ValueError(f"{name} has no meaning for booleans")
        found = np.asarray(bound, dtype=np.float64)
        if np.isnan(found).any():
            raise ValueError(f"{name} must be a number")
        if found.ndim and found.shape != self.shape[-1:]:
            raise ValueError(f"{name} must be one number, or one for each place of the last dimension of shape")
        return found

    def _check_terms(self) -> None:
        if self.minimum is not None and self.maximum is not None and (self.minimum > self.maximum).any():
            raise ValueError("minimum must not be greater than maximum")
        if self.max_items is not None and (self.shape[0] or 0) > self.max_items:
            raise ValueError("max_items must not be less than the first dimension of shape")
        if prod(length or 1 for length in self.shape) > self.max_elements:
            raise ValueError("max_elements must not be less than what shape needs")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        return None if value is None else np.asarray(value).tolist()

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any
    ) -> NDArray[Any]:
        shape, leaves = self._flatten(value)
        self._check_leaves(leaves, shape)
        exact = self._exact(leaves).reshape(shape)
        cast = self._cast(exact)
        self._check_bounds(exact)
        return cast

    def _flatten(self, value: Any) -> tuple[Shape, list[Any]]:
        """Return the shape and the flat list of the leaves; nothing is copied before its size is known."""
        shape: Shape = ()
        level = [value]
        for expected in self.shape:
            self._check_lists(level, shape)
            length = self._common_length(level, shape, expected)
            shape = (*shape, length)
            if prod(shape) > self.max_elements:
                raise self.make_error("max_elements", max_elements=self.max_elements)
            level = list(chain.from_iterable(level))
        return shape, level

    def _check_lists(self, level: list[Any], shape: Shape) -> None:
        if set(map(type, level)) != {list}:
            wrong = (place for place, item in enumerate(level) if type(item) is not list)
            raise _at(wrong, shape, self._says("list"))

    def _common_length(self, level: list[list[Any]], shape: Shape, expected: int | None) -> int:
        lengths = set(map(len, level))
        length = next(iter(lengths)) if len(lengths) == 1 else len(level[0])
        if expected is not None and lengths != {expected}:
            raise _at(_unlike(level, expected), shape, self._says("length", expected=expected))
        if len(lengths) > 1:
            raise _at(_unlike(level, length), shape, self._says("ragged"))
        if length == 0:
            raise _at(range(len(level)), shape, self._says("empty"))
        if not shape and self.max_items is not None and length > self.max_items:
            raise self.make_error("max_items", max_items=self.max_items)
        return length

    def _check_leaves(self, leaves: list[Any], shape: Shape) -> None:
        message, allowed = _LEAVES[self.dtype.kind]
        if not set(map(type, leaves)) <= allowed:
            wrong = (place for place, leaf in enumerate(leaves) if type(leaf) not in allowed)
            raise _at(wrong, shape, self._says(message))

    def _exact(self, leaves: list[Any]) -> NDArray[Any]:
        """Return the leaves as they were sent, before any cast; integers beyond 64 bits stay Python's own."""
        if self.dtype.kind == "b":
            return np.array(leaves, dtype=self.dtype)
        try:
            # Filling an array of the standard library takes half as long as numpy's own conversion.
            return np.asarray(array("d" if self.dtype.kind == "f" else "q", leaves))
        except OverflowError:
            if self.dtype.kind == "f":
                return np.array(list(map(_float, leaves)), dtype=np.float64)
            return np.array(leaves, dtype=object)

    def _cast(self, exact: NDArray[Any]) -> NDArray[Any]:
        if self.dtype.kind == "b":
            return exact
        if self.dtype.kind == "f":
            return self._cast_floats(exact)
        limits = np.iinfo(self.dtype)
        low, high = int(limits.min), int(limits.max)
        wrong = (exact < low) | (exact > high)
        if wrong.any():
            raise _at_each(wrong, self._says("dtype", low=low, high=high))
        return exact.astype(self.dtype)

    def _cast_floats(self, exact: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            cast = exact.astype(self.dtype)
        finite = np.isfinite(cast)
        if not finite.all():
            raise _at_each(~finite, self._says("finite", dtype=self.dtype.name))
        return cast

    def _check_bounds(self, exact: NDArray[Any]) -> None:
        if self.minimum is not None and (wrong := exact < self.minimum).any():
            raise _at_each(wrong, self._says_bound("minimum", self.minimum, exact.shape))
        if self.maximum is not None and (wrong := exact > self.maximum).any():
            raise _at_each(wrong, self._says_bound("maximum", self.maximum, exact.shape))

    def _says(self, key: str, **values: Any) -> Callable[[Shape], str]:
        message = str(self.error_messages[key]).format(**values)
        return lambda _place: message

    def _says_bound(self, key: str, bound: NDArray[np.float64], shape: Shape) -> Callable[[Shape], str]:
        bounds = np.broadcast_to(bound, shape)
        return lambda place: str(self.error_messages[key]).format(bound=_shown(bounds[place]))


def _at(places: Iterable[int], shape: Shape, message: Callable[[Shape], str]) -> ValidationError:
    """Return an error with a message at each of the first flat places of an array of this shape."""
    if not shape:
        return ValidationError(message(()))
    found: dict[int, Any] = {}
    for flat in islice(places, MAX_ERRORS):
        place = tuple(map(int, np.unravel_index(flat, shape)))
        inner = found
        for index in place[:-1]:
            inner = inner.setdefault(index, {})
        inner[place[-1]] = [message(place)]
    return ValidationError(found)


def _at_each(wrong: NDArray[np.bool_], message: Callable[[Shape], str]) -> ValidationError:
    return _at(np.flatnonzero(wrong), wrong.shape, message)


def _shown(bound: np.float64) -> str:
    return str(float(bound)).removesuffix(".0")


def _unlike(level: Collection[list[Any]], length: int) -> Iterable[int]:
    return (place for place, item in enumerate(level) if len(item) != length)


def _float(leaf: float) -> float:
    """Return the leaf as a float; an integer too large for one is infinite, and refused as such."""
    try:
        return float(leaf)
    except OverflowError:
        return float("inf")


def _checked_shape(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    if isinstance(shape, (str, int)) or not all(length is None or _is_count(length) for length in shape):
        raise TypeError("shape must be a tuple such as (None, 64): whole numbers from 1, or None for any length")
    if not 0 < len(shape) <= _MAX_DIMENSIONS:
        raise ValueError(f"shape must have 1 to {_MAX_DIMENSIONS} dimensions")
    return tuple(shape)


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    found = np.dtype(dtype)
    if found.kind not in _LEAVES or (found.kind == "f" and found.itemsize > _WIDEST_FLOAT):
        raise ValueError(f"dtype must be bool, an integer or a float of up to 64 bits, not {found.name}")
    return found


def _checked_count(name: str, value: int) -> int:
    if not _is_count(value):
        raise ValueError(f"{name} must be a whole number from 1")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
