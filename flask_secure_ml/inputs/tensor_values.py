"""From numbers as they were sent to an array as the field declares it, without a Python call per number."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Return the leaf as a float; an integer too large for one is infinite, and refused as such."""
    try:
        return float(leaf)
    except OverflowError:
        return float("inf")


def is_taken(sent: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Tell whether an array of one dtype may fill a field of another: no text, object, record or long double."""
    return sent.kind in _TAKES[dtype.kind] and not (sent.kind == "f" and sent.itemsize > _WIDEST_FLOAT)


def has_odd_booleans(sent: Array) -> bool:
    """Tell whether an array of booleans, made of bytes, has others than 0 and 1."""
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
