"""What the numbers of a tensor must be: within bounds, among a few values, with a sum or a norm within a span.

A rule holds for a number as it was sent, or as the dtype of the field rounds the rule: with ``maximum=0.1`` and
float32, 0.1 passes from JSON and so does the float32 nearest to it, which is a little more, from a binary format.
An integer that is sent for a float is first the float64 nearest to it: one beyond 2**53 may be rounded to a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tensor_terms import checked_bound

Array = NDArray[Any]
_LOW = 0xFFFF_FFFF
# More than the sum of as many integers as the memory has room for; its halves are integers of 64 bits.
_BEYOND_SUMS = 1 << 94


# What is outside of each bound, and which of two values is further inside and further outside.
_COMPARISONS = {
    "minimum": (np.less, np.maximum, np.minimum),
    "maximum": (np.greater, np.minimum, np.maximum),
}


class Bound:
    """The least (``minimum``) or the greatest (``maximum``) value.

    ``declared`` is what the author wrote; ``native`` is the same in the dtype of the field, for integers rounded to
    the inside.

    :raises ValueError: no value of the dtype is within the bound.
    """

    def __init__(self, name: str, bound: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> None:
        self.name = name
        self.declared = checked_bound(name, bound, shape)
        self._outside, self._inner, outer = _COMPARISONS[name]
        self._dtype = dtype.newbyteorder("=")
        if dtype.kind == "f":
            self.native, self._wide = _float_bounds(self.declared, self._dtype, outer)
        else:
            self.native = self._wide = _integer_bound(name, bound, self._dtype)

    def broken(self, sent: Array) -> NDArray[np.bool_]:
        """Return where numbers are outside."""
        wrong: NDArray[np.bool_] = self._outside(sent, self.native if sent.dtype == self._dtype else self._wide)
        return wrong

    def clipped(self, cast: Array) -> Array:
        """Return the numbers, those outside changed to the bound."""
        inside: Array = self._inner(cast, self.native)
        return inside


def _float_bounds(declared: NDArray[np.float64], dtype: np.dtype[Any], outer: Any) -> tuple[Array, Array]:
    with np.errstate(over="ignore"):
        native = declared.astype(dtype)
    return native, outer(declared, native.astype(np.float64))


def _integer_bound(name: str, bound: Any, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    # As objects, so that integers beyond 2**53 stay what they are.
    exact = np.asarray(bound, dtype=object)
    whole = [_whole(name, value, int(limits.min), int(limits.max)) for value in exact.ravel().tolist()]
    return np.array(whole, dtype=dtype).reshape(exact.shape)


def _whole(name: str, value: float, least: int, most: int) -> int:
    low = name == "minimum"
    found = value if math.isinf(value) else (math.ceil if low else math.floor)(value)
    if (low and found > most) or (not low and found < least):
        raise ValueError(f"{name} leaves no value that the dtype has")
    return int(max(least, min(most, found)))


def values_of(allowed: Sequence[float], dtype: np.dtype[Any]) -> Array:
    """Return what a number may be: the allowed values, and what the dtype makes of them."""
    native = np.array(allowed, dtype=dtype.newbyteorder("="))
    return np.union1d(native.astype(np.float64), np.array(allowed, dtype=np.float64)) if dtype.kind == "f" else native


def off_total(sent: Array, span: tuple[float, float]) -> NDArray[np.bool_]:
    """Return where the sum over the last dimension is not within a span; exactly so for integers."""
    if sent.dtype.kind == "f":
        return beyond(sums(sent), span)
    sum_high, sum_low = _exact_sums(sent)
    (least_high, least_low), (most_high, most_low) = _halves(math.ceil, span[0]), _halves(math.floor, span[1])
    below = (sum_high < least_high) | ((sum_high == least_high) & (sum_low < least_low))
    above = (sum_high > most_high) | ((sum_high == most_high) & (sum_low > most_low))
    return np.asarray(below | above)


def _exact_sums(sent: Array) -> tuple[Array, Array]:
    """Return the sums of integers over the last dimension, as multiples of 2**32 and what is left of them.

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
    """Return the Euclidean length over the last dimension."""
    with np.errstate(over="ignore"):
        found: NDArray[np.float64] = np.linalg.norm(sent.astype(np.float64), axis=-1)
    return found


def beyond(computed: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.bool_]:
    """Return where something computed is not within a span; a sum that overflows both ways (NaN) is not."""
    low, high = span
    return np.asarray(~((computed >= low) & (computed <= high)))


def crossed(bounds: Collection[Bound]) -> bool:
    """Tell whether the minimum is greater than the maximum."""
    if len(bounds) < 2:  # noqa: PLR2004  both
        return False
    minimum, maximum = bounds
    return bool((minimum.declared > maximum.declared).any() or (minimum.native > maximum.native).any())
