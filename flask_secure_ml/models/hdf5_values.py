"""How much an HDF5 dataset or attribute declares, and where its values are.

Source: HDF5 File Format Specification 4.0, sections IV.A.2.b (dataspace) and IV.A.2.i (data layout).
"""

from __future__ import annotations

import math

from .hdf5_bytes import Cursor, Damaged, Reader

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)

_NULL = 2


def items(read: Reader, start: int, end: int) -> int:
    """Return how many values a dataspace declares."""
    cursor = read.cursor(start)
    version, rank, _, kind = (cursor.uint(1) for _ in range(4))
    if version not in (1, 2):
        raise Damaged
    if version == 1:
        cursor.skip(4)
    elif kind == _NULL:
        return 0
    dimensions = [cursor.length() for _ in range(rank)]
    if cursor.position > end:
        raise Damaged
    return math.prod(dimensions)


def layout(read: Reader, position: int) -> tuple[int, int]:
    """Return the kind of a layout, and the bytes that one chunk declares."""
    cursor = read.cursor(position)
    version = cursor.uint(1)
    if version in (1, 2):
        rank, kind = cursor.uint(1), cursor.uint(1)
        cursor.skip(5)
    elif version in (3, 4, 5):
        rank, kind = 0, cursor.uint(1)
    else:
        raise Damaged
    if kind not in (COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL):
        raise Damaged
    if kind == CHUNKED:
        return kind, _chunk(cursor, version, rank)
    if kind == CONTIGUOUS and version > 2:  # noqa: PLR2004
        values, size = cursor.address(), cursor.length()
        if values is not None:
            read.check(values, values + size)
    return kind, 0


def _chunk(cursor: Cursor, version: int, rank: int) -> int:
    """Return the product of the dimensions, of which the last is the size of a value."""
    width = 4
    if version > 3:  # noqa: PLR2004
        cursor.skip(1)
        rank, width = cursor.uint(1), cursor.uint(1)
    else:
        rank = cursor.uint(1) if version == 3 else rank  # noqa: PLR2004
        cursor.offset()
    return math.prod(cursor.uint(width) for _ in range(rank))
