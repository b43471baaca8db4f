"""Reading numbers, addresses and strings of an HDF5 file."""

from __future__ import annotations

from typing import BinaryIO

HDF5 = b"\x89HDF\r\n\x1a\n"

_FIRST_USER_BLOCK = 512
_CHUNK = 1 << 20

Span = tuple[int, int]
"""Where something begins and ends in the file."""


class Damaged(Exception):
    """A library would stop here, or nobody knows what it would do."""


def hdf5_begins(stream: BinaryIO) -> int | None:
    """Return where HDF5 begins: at 0, 512, 1024, 2048 or any further doubling, behind a block of the user's own.

    Source: HDF5 File Format Specification 3.0, section II.A.
    """
    position = offset = 0
    while _skip(stream, offset - position):
        signature = stream.read(len(HDF5))
        if signature == HDF5:
            return offset
        if len(signature) < len(HDF5):
            return None
        position, offset = offset + len(HDF5), max(offset * 2, _FIRST_USER_BLOCK)
    return None


def _skip(stream: BinaryIO, size: int) -> bool:
    while size:
        skipped = len(stream.read(min(size, _CHUNK)))
        if not skipped:
            return False
        size -= skipped
    return True


class Reader:
    """The bytes of a file, and how it writes addresses.

    :param base: where its signature is; addresses count from there.
    :param offsets: the bytes of an address.
    :param lengths: the bytes of a length.
    """

    def __init__(self, data: bytes, base: int, offsets: int, lengths: int) -> None:
        self.base = base
        self.offsets = offsets
        self.lengths = lengths
        self._data = data

    def bytes(self, start: int, size: int) -> bytes:
        """Return bytes that must be there."""
        self.check(start, start + size)
        return self._data[start : start + size]

    def check(self, start: int, end: int) -> None:
        """Raise :class:`Damaged` unless this is a part of the file."""
        if not 0 <= start <= end <= len(self._data):
            raise Damaged

    def uint(self, start: int, size: int) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.bytes(start, size), "little")

    def cursor(self, position: int) -> Cursor:
        """Return a reader of one value after the other."""
        return Cursor(self, position)

    def string(self, position: int) -> Span:
        """Return where the string is that an element of variable length stands for, up to its first null."""
        cursor = self.cursor(position)
        size, heap, index = cursor.uint(4), cursor.address(), cursor.uint(4)
        start, end = self._global_object(heap, index)
        if start + size > end:
            raise Damaged
        zero = self._data.find(b"\0", start, start + size)
        return start, start + size if zero < 0 else zero

    def _global_object(self, heap: int | None, index: int) -> Span:
        if heap is None or self.bytes(heap, 4) != b"GCOL":
            raise Damaged
        cursor = self.cursor(heap + 8)
        end = heap + cursor.length()
        while cursor.position < end:
            found, _, _, size = cursor.uint(2), cursor.uint(2), cursor.uint(4), cursor.length()
            if found == index:
                self.check(cursor.position, cursor.position + size)
                return cursor.position, cursor.position + size
            if not found:
                break
            cursor.skip(size + -size % 8)
        raise Damaged


class Cursor:
    """A position in a file that moves on as values are read."""

    def __init__(self, reader: Reader, position: int) -> None:
        self.position: int = position
        self._reader = reader

    def uint(self, size: int) -> int:
        """Return an unsigned number."""
        self.position += size
        return self._reader.uint(self.position - size, size)

    def skip(self, size: int) -> None:
        """Move on without reading."""
        self.position += size

    def length(self) -> int:
        """Return a length."""
        return self.uint(self._reader.lengths)

    def offset(self) -> int:
        """Return an address as it is written, from the base of the file."""
        return self.uint(self._reader.offsets)

    def address(self) -> int | None:
        """Return a position in the file, or None for an address that is not defined."""
        value = self.offset()
        return None if value == (1 << 8 * self._reader.offsets) - 1 else self._reader.base + value
