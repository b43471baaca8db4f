"""Arithmetic on scores: finding NaN and Infinity, rounding, keeping the largest.

All functions work on whole lists or arrays; none is called per number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InternalError

# The maximum depth that the JSON writer supports.
_DEEPEST = 1_024
_WITHOUT_NUMBERS = (str, int, type(None), np.generic)


def names_null(body: bytes) -> bool:
    """Return True if JSON may contain null."""
    # Searching for one letter is many times faster than for a word.
    return b"u" in body and b"null" in body


def has_non_finite(value: Any, default: Callable[[Any], Any]) -> bool:
    """Return True if a value contains NaN or Infinity, which JSON cannot represent (RFC 8259 section 6).

    :param default: converts a value of a type that the writer does not support.
    """
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        if not all(map(isfinite, (each for each in level if type(each) is float))):
            return True
        level = list(chain.from_iterable(_inside(each, default) for each in level if type(each) is not float))
        if not level:
            return False
    return True


def _inside(value: Any, default: Callable[[Any], Any]) -> Iterator[Any]:
    if isinstance(value, Enum):
        yield value.value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, (float, np.floating)):
        yield float(value)
    elif isinstance(value, np.ndarray):
        yield from _inside_array(value)
    elif not isinstance(value, _WITHOUT_NUMBERS):
        yield default(value)


def _inside_array(array: Any) -> Iterator[Any]:
    if type(array) is not np.ndarray or array.dtype.kind in "OV":
        yield array.tolist()
    elif array.dtype.kind in "fc" and not np.isfinite(array).all():
        yield float("nan")


Array = NDArray[Any]

_LISTS = frozenset({list, tuple})
_FLOATS = (float, np.floating, Decimal)
_INTEGERS = (int, np.integer)
_NO_NUMBERS = (bool, Enum)
# A double represents every integer up to this one.
_EXACT = 2**53


class MaskingError(ValueError):
    """The score options cannot be applied to this response. The message does not quote it."""


def rounded(array: Array, decimals: int) -> Array:
    """Round half to even like :func:`numpy.round`, keeping the dtype of the array.

    Floats below 64 bits are rounded as doubles, so that the result is the nearest float with these decimals. A number
    so large that scaling it overflows has no decimals and is returned unchanged.
    """
    wide = array if array.dtype.itemsize >= np.dtype(np.float64).itemsize else array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.round(wide, decimals)
    if not np.isfinite(found).all():
        found = np.where(np.isfinite(found), found, wide)
    # Adding zero turns -0.0 into 0.0: the sign would reveal something about the unrounded number.
    return (found + 0.0).astype(array.dtype, copy=False)


def top_k(array: Array, k: int) -> Array:
    """Keep the k largest numbers along the last dimension, and replace all others.

    The shape is unchanged. The others become 0. If 0 would not be lower than all kept numbers, as with logits and log
    probabilities, they become a lower number that is computed from the kept ones only. So the order of the kept numbers
    and the index of the largest remain correct. Among equal numbers, it is undefined which are kept.

    :raises MaskingError: there is NaN or Infinity, which cannot be ranked.
    """
    if not np.isfinite(array).all():
        raise MaskingError("top_k cannot rank NaN or Infinity")
    if array.ndim == 0 or array.shape[-1] <= k:
        return array
    kept = np.argpartition(array, -k, axis=-1)[..., -k:]
    values = np.take_along_axis(array, kept, axis=-1)
    least = values.min(axis=-1, keepdims=True)
    with_zero = (least > 0) | (array.min(axis=-1, keepdims=True) >= 0)
    cut = np.where(with_zero, 0, _below(least)).astype(array.dtype)
    found: Array = np.broadcast_to(cut, array.shape).copy()
    np.put_along_axis(found, kept, values, axis=-1)
    return found


def _below(least: Array) -> Array:
    with np.errstate(over="ignore"):
        further: Array = np.maximum(least - np.maximum(np.abs(least), 1), np.finfo(least.dtype).min)
    return further


def array_of(value: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return nested lists of numbers, at least one of them a float, as an array; otherwise None.

    Lists of different lengths also give None.

    :raises MaskingError: there are also integers beyond 53 bits, which would lose precision.
    """
    shape: tuple[int, ...] = ()
    level: Sequence[Any] = [value]
    while (types := set(map(type, level))) and types <= _LISTS:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            return None
        shape = (*shape, lengths.pop())
        level = list(chain.from_iterable(level))
    others = {each for each in types if not issubclass(each, _FLOATS)}
    if others == types or any(not issubclass(each, _INTEGERS) or issubclass(each, _NO_NUMBERS) for each in others):
        return None
    return as_floats(level, mixed=bool(others)).reshape(shape)


def as_floats(numbers: Sequence[float], *, mixed: bool = True) -> NDArray[np.float64]:
    """Return numbers as a flat array of doubles.

    :param mixed: some of the numbers may be integers.
    :raises MaskingError: an integer is beyond 53 bits.
    """
    try:
        array = np.array(numbers, np.float64)
    except OverflowError:
        raise MaskingError("integers beyond 53 bits are among the scores") from None
    large = mixed and (np.abs(array) >= _EXACT).any()
    if large and any(isinstance(each, _INTEGERS) and abs(each) > _EXACT for each in numbers):
        raise MaskingError("integers beyond 53 bits are among the scores")
    return array


class NumberString(str):
    """A score as a string; orjson and :mod:`json` serialize it like any other string."""

    __slots__ = ()

    def rounded(self, decimals: int) -> NumberString:
        """Return the number rounded half to even, as a string.

        :raises MaskingError: the string is not a number.
        """
        try:
            # Adding zero turns -0 into 0, as in :func:`rounded`.
            return NumberString(round(Decimal(self), decimals) + 0)
        except InvalidOperation:
            raise MaskingError("a numeric string is not a valid number or cannot be rounded") from None


def with_floats(value: Any) -> Any:
    """Return a value with each Decimal replaced by a float.

    Flask writes a Decimal as a string, which would count as a label. Dataclasses become dicts; other types that are not
    JSON are left to the writer.

    :raises InternalError: a key is a float, which would also be written as a string.
    """
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        if any(isinstance(name, float) for name in value):
            raise InternalError("scores that are keys cannot be masked")
        return {name: with_floats(each) for name, each in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OV":
        value = value.tolist()
    return [with_floats(each) for each in value] if isinstance(value, (list, tuple)) else value
