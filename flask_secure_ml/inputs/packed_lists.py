"""Lists of numbers to an array by way of :mod:`marshal`: a third of the time that the numbers one by one take.

``marshal`` writes a list as ``[``, its length in four bytes and its items; a float as ``g`` and eight bytes; an
integer of up to 32 bits as ``i`` and four. So when the mark of one type stands in every place where a number must
begin, in rows that are known to be lists of one length, then there is nothing but such numbers, and they are read
where they stand. Otherwise the caller goes the long way, which also finds what is wrong. Nothing is ever loaded from
this format; should it change, the marks are not found.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The last version that writes every item in full; later ones refer to items written before.
_VERSION = 2
_HEADER = 5
_NUMBERS: Mapping[type, tuple[int, np.dtype[Any]]] = {
    float: (ord("g"), np.dtype("<f8")),
    int: (ord("i"), np.dtype("<i4")),
}
# Of fewer numbers, the long way is shorter.
_WORTH_IT = 100


def packed(rows: list[list[Any]], types: frozenset[type]) -> tuple[NDArray[Any] | None, int]:
    """Return the numbers of lists of one length, not empty, as a new array of one dimension.

    :param types: the types that the numbers may have.
    :returns: float64 or int32 in native byte order; None when there are few, or when they are not all floats or
        all integers of up to 32 bits. And how many items, from the first on, are known to be of these types.
    """
    if len(rows) * len(rows[0]) < _WORTH_IT:
        return None, 0
    kinds = set(map(type, rows[0]))
    layout = _NUMBERS.get(kinds.pop())
    if layout is None or kinds or not types.issuperset(map(type, rows[0])):
        return None, 0
    try:
        written = marshal.dumps(rows, _VERSION)
    except ValueError:
        return None, 0
    return _numbers(written, (len(rows), len(rows[0])), *layout)


def _numbers(
    written: bytes, shape: tuple[int, int], mark: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any] | None, int]:
    size = 1 + dtype.itemsize
    row = _HEADER + shape[1] * size
    # Where an item is of another length, all that follow stand elsewhere; those before it have their marks.
    whole = min(shape[0], (len(written) - _HEADER) // row)
    start, steps = _HEADER + _HEADER, (row, size)
    others = np.ndarray((whole, shape[1]), np.uint8, written, start, steps) != mark
    if others.any():
        return None, int(others.argmax())
    if len(written) != _HEADER + shape[0] * row:
        return None, others.size
    numbers = np.ndarray(shape, dtype, written, start + 1, steps).astype(dtype.newbyteorder("="))
    return numbers.reshape(-1), others.size
