"""HDF5 storage of large numbers of links and attributes: symbol tables, fractal heaps and their indexes.

Source: HDF5 File Format Specification 4.0, sections III.A (B-trees), III.B (symbol tables) and III.G (fractal heaps).
"""

from __future__ import annotations

from collections.abc import Iterator

from .hdf5_bytes import Damaged, Reader, Span
from .streams import Opaque

_MAX_NODES = 1 << 20
_ENTRY_REST = 24
# The position and length of the heap ID in an index record, by the type of the index.
_HEAP_ID = {5: (4, 7), 6: (8, 7), 8: (0, 8), 9: (0, 8)}
_LINKS = (5, 6)
_SHARED = 2
_MANAGED, _HUGE, _TINY = range(3)
_NODE_OVERHEAD = 10


def old_group(read: Reader, tree: int) -> Iterator[int]:
    """Yield the positions of a group's symbol table entries, from all nodes of its B-tree and their siblings."""
    pending: list[int | None] = [tree]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if len(seen) > _MAX_NODES:
            raise Opaque("it has too many objects to examine")
        if read.bytes(node, 4) == b"SNOD":
            size = 2 * read.offsets + _ENTRY_REST
            yield from (node + 8 + size * index for index in range(read.uint(node + 6, 2)))
        else:
            pending.extend(_children(read, node))


def _children(read: Reader, node: int) -> list[int | None]:
    if read.bytes(node, 5) != b"TREE\0":
        raise Damaged
    cursor = read.cursor(node + 6)
    used, neighbours = cursor.uint(2), [cursor.address(), cursor.address()]
    children = []
    for _ in range(used):
        cursor.length()
        children.append(cursor.address())
    return children + neighbours


class Records:
    """The objects of a fractal heap.

    :param heap: the position of its header.
    """

    def __init__(self, read: Reader, heap: int) -> None:
        if read.bytes(heap, 5) != b"FRHP\0":
            raise Damaged
        self._read = read
        cursor = read.cursor(heap + 5)
        self._id_size, filters, _, max_managed = cursor.uint(2), cursor.uint(2), cursor.uint(1), cursor.uint(4)
        if filters:
            raise Opaque("it is HDF5 with compressed links or attributes")
        cursor.length()
        self._huge = cursor.address()
        cursor.length()
        cursor.address()
        cursor.skip(8 * read.lengths)
        self._width, self._first, max_direct = cursor.uint(2), cursor.length(), cursor.length()
        self._heap_bits, _ = cursor.uint(2), cursor.uint(2)
        self._root, self._rows = cursor.address(), cursor.uint(2)
        powers = (self._width, self._first, max_direct)
        if not all(each and each & (each - 1) == 0 for each in powers) or max_direct < self._first:
            raise Damaged
        self._direct_rows = (max_direct // self._first).bit_length() + 1
        self._offset_size = (self._heap_bits + 7) // 8
        self._length_size = min((max_direct.bit_length() + 6) // 8, _limit_size(max_managed))

    def spans(self, index: int, *, links: bool) -> Iterator[Span]:
        """Yield the ranges of the objects in an index.

        :param links: it is an index of links, not of attributes.
        """
        huge = False
        for kind, record in _records(self._read, index):
            offset, size = _HEAP_ID.get(kind, (0, 0))
            start = record + offset
            first = self._read.uint(start, 1)
            shared = not links and self._read.uint(start + size, 1) & _SHARED
            if (kind in _LINKS) != links or self._id_size != size or first >> 6 or shared:
                raise Damaged
            storage = first >> 4
            if storage == _MANAGED:
                yield self._managed(start)
            elif storage == _TINY:
                yield start + 1, start + 2 + (first & 0xF)
            elif storage != _HUGE:
                raise Damaged
            elif self._read.offsets + self._read.lengths < size:
                yield self._direct(start + 1)
            else:
                huge = True
        if huge:
            yield from self._huge_objects()

    def _direct(self, position: int) -> Span:
        cursor = self._read.cursor(position)
        start, size = cursor.address(), cursor.length()
        if start is None:
            raise Damaged
        self._read.check(start, start + size)
        return start, start + size

    def _managed(self, start: int) -> Span:
        offset = self._read.uint(start + 1, self._offset_size)
        size = self._read.uint(start + 1 + self._offset_size, self._length_size)
        position = self._position(offset)
        self._read.check(position, position + size)
        return position, position + size

    def _position(self, offset: int) -> int:
        """Return the position in the file of a byte of the heap, using its doubling table."""
        block, rows = self._root, self._rows
        while rows and block is not None:
            if self._read.bytes(block, 4) != b"FHIB":
                raise Damaged
            row, column, begin, size = self._cell(offset)
            if row >= rows:
                raise Damaged
            offset -= begin
            children = block + 5 + self._read.offsets + self._offset_size
            block = self._read.cursor(children + (row * self._width + column) * self._read.offsets).address()
            rows = 0 if row < self._direct_rows else (size // (self._first * self._width)).bit_length()
            if row >= self._direct_rows and not rows:
                raise Damaged
        if block is None or self._read.bytes(block, 4) != b"FHDB":
            raise Damaged
        return block + offset

    def _cell(self, offset: int) -> tuple[int, int, int, int]:
        """Return row, column, start and size of the block that contains a byte."""
        row = (offset // (self._first * self._width)).bit_length()
        size = self._first << max(row - 1, 0)
        begin = 0 if not row else size * self._width
        column = (offset - begin) // size
        return row, column, begin + column * size, size

    def _huge_objects(self) -> Iterator[Span]:
        if self._huge is None:
            raise Damaged
        for kind, record in _records(self._read, self._huge):
            if kind not in (1, 3):
                raise Damaged
            yield self._direct(record)


def _records(read: Reader, tree: int) -> Iterator[tuple[int, int]]:
    """Yield the type of a version 2 B-tree and the position of each of its records."""
    if read.bytes(tree, 5) != b"BTHD\0":
        raise Damaged
    cursor = read.cursor(tree + 5)
    kind, node_size, record_size, depth = cursor.uint(1), cursor.uint(4), cursor.uint(2), cursor.uint(2)
    cursor.skip(2)
    root, count = cursor.address(), cursor.uint(2)
    if not record_size or node_size <= _NODE_OVERHEAD:
        raise Damaged
    pointers = _pointer_sizes(read, node_size, record_size, depth)
    pending, nodes = [(root, count, depth)], 0
    while pending:
        node, count, depth = pending.pop()
        nodes += 1
        if nodes > _MAX_NODES:
            raise Opaque("it has too many objects to examine")
        if node is None:
            if count:
                raise Damaged
            continue
        if read.bytes(node, 4) != (b"BTIN" if depth else b"BTLF"):
            raise Damaged
        read.check(node, node + 6 + count * record_size)
        yield from ((kind, node + 6 + index * record_size) for index in range(count))
        if depth:
            counted, total = pointers[0], pointers[depth]
            cursor = read.cursor(node + 6 + count * record_size)
            for _ in range(count + 1):
                pending.append((cursor.address(), cursor.uint(counted), depth - 1))
                cursor.skip(total)


def _pointer_sizes(read: Reader, node_size: int, record_size: int, depth: int) -> list[int]:
    """Return the sizes of record counts: of a node, and at each depth of all records below a child."""
    if depth > 64:  # noqa: PLR2004  more records than there are bytes
        raise Damaged
    most = below = (node_size - _NODE_OVERHEAD) // record_size
    sizes = [_limit_size(most)]
    total = 0
    for _ in range(depth):
        sizes.append(total)
        pointer = read.offsets + sizes[0] + total
        most = (node_size - _NODE_OVERHEAD - pointer) // (record_size + pointer)
        if most < 1:
            raise Damaged
        below = (most + 1) * below + most
        total = _limit_size(below)
    return sizes


def _limit_size(limit: int) -> int:
    """Return the number of bytes that a number up to ``limit`` takes."""
    return max(limit.bit_length() - 1, 0) // 8 + 1
