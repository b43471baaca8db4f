"""Reading numbers, addresses and strings in HDF5 files, and the messages in object headers.

Source: HDF5 File Format Specification 4.0, section IV.A (object headers of version 1 and 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .streams import Opaque

HDF5 = b"\x89HDF\r\n\x1a\n"

_FIRST_USER_BLOCK = 512
_CHUNK = 1 << 20

Span = tuple[int, int]
"""The start and the end of a range of bytes in the file."""


class Damaged(Exception):
    """The file is corrupt: a library would stop here, or its behaviour is unknown."""


def hdf5_begins(stream: BinaryIO) -> int | None:
    """Return the position of the HDF5 signature: 0, 512, 1024, 2048 or any further doubling, after a user block.

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
    """The bytes of a file, with the encoding of its addresses and lengths.

    :param base: the position of the signature, which is the base of addresses.
    :param offsets: the size of an address in bytes.
    :param lengths: the size of a length in bytes.
    """

    def __init__(self, data: bytes, base: int, offsets: int, lengths: int) -> None:
        self.base = base
        self.offsets = offsets
        self.lengths = lengths
        self._data = data

    def bytes(self, start: int, size: int) -> bytes:
        """Return a range of bytes.

        :raises Damaged: it is not within the file.
        """
        self.check(start, start + size)
        return self._data[start : start + size]

    def check(self, start: int, end: int) -> None:
        """Check that a range is within the file.

        :raises Damaged: it is not.
        """
        if not 0 <= start <= end <= len(self._data):
            raise Damaged

    def uint(self, start: int, size: int) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.bytes(start, size), "little")

    def cursor(self, position: int) -> Cursor:
        """Return a cursor that reads consecutive values from a position."""
        return Cursor(self, position)

    def string(self, position: int) -> Span:
        """Return the range of the string of a variable-length element, up to its first null byte."""
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
    """A position in a file that advances as values are read."""

    def __init__(self, reader: Reader, position: int) -> None:
        self.position: int = position
        self._reader = reader

    def uint(self, size: int) -> int:
        """Return an unsigned number."""
        self.position += size
        return self._reader.uint(self.position - size, size)

    def skip(self, size: int) -> None:
        """Advance without reading."""
        self.position += size

    def length(self) -> int:
        """Return a length."""
        return self.uint(self._reader.lengths)

    def offset(self) -> int:
        """Return an address as stored, relative to the base."""
        return self.uint(self._reader.offsets)

    def address(self) -> int | None:
        """Return an address as a position in the file; None for the undefined address."""
        value = self.offset()
        return None if value == (1 << 8 * self._reader.offsets) - 1 else self._reader.base + value


CONTINUATION = 0x10
MAX_MESSAGES = 1 << 22

_SHARED = 2


@dataclass(frozen=True)
class Message:
    """A message in the header of an object.

    :param shared: the content is a reference to a message elsewhere.
    """

    kind: int
    shared: bool
    span: Span


class Headers:
    """Reads the object headers of a file, with a limit on the number of messages and objects."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader
        self._left = MAX_MESSAGES

    def count(self) -> None:
        """Count a message or an object.

        :raises Opaque: there are too many.
        """
        self._left -= 1
        if self._left < 0:
            raise Opaque("it has too many objects to examine")

    def messages(self, position: int) -> Iterator[Message]:
        """Return the messages of the object header at a position, including those in continuations."""
        if self._read.bytes(position, 4) == b"OHDR":
            return self._version_2(position)
        return self._version_1(position)

    def _version_1(self, position: int) -> Iterator[Message]:
        if self._read.uint(position, 1) != 1:
            raise Damaged
        chunks = [(position + 16, position + 16 + self._read.uint(position + 8, 4))]
        for start, end in self._chunks(chunks):
            at = start
            while at + 8 <= end:
                kind, size = self._read.uint(at, 2), self._read.uint(at + 2, 2)
                message = Message(kind, bool(self._read.uint(at + 4, 1) & _SHARED), (at + 8, at + 8 + size))
                at += 8 + size
                yield self._checked(message, end, chunks, continued=0)

    def _version_2(self, position: int) -> Iterator[Message]:
        read = self._read
        version, flags = read.uint(position + 4, 1), read.uint(position + 5, 1)
        if version != 2:  # noqa: PLR2004
            raise Damaged
        at = position + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        chunks = [(at + width, at + width + read.uint(at, width))]
        header = 6 if flags & 4 else 4
        for start, end in self._chunks(chunks):
            at = start
            while at + header <= end:
                kind, size = read.uint(at, 1), read.uint(at + 1, 2)
                message = Message(kind, bool(read.uint(at + 3, 1) & _SHARED), (at + header, at + header + size))
                at += header + size
                yield self._checked(message, end, chunks, continued=4)

    def _chunks(self, chunks: list[Span]) -> Iterator[Span]:
        seen = set()
        while chunks:
            chunk = chunks.pop()
            if chunk in seen:
                raise Damaged
            seen.add(chunk)
            self._read.check(*chunk)
            yield chunk

    def _checked(self, message: Message, end: int, chunks: list[Span], continued: int) -> Message:
        """Check that a message is complete, register a continuation, and return the message."""
        self.count()
        if message.span[1] > end:
            raise Damaged
        if message.kind == CONTINUATION:
            cursor = self._read.cursor(message.span[0])
            start, size = cursor.address(), cursor.length()
            if start is None or (continued and self._read.bytes(start, 4) != b"OCHK"):
                raise Damaged
            # In version 2, a signature precedes the messages and a checksum follows them.
            chunks.append((start + continued, start + size - continued))
        return message


COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)

_NULL = 2


def items(read: Reader, start: int, end: int) -> int:
    """Return the number of values that a dataspace declares."""
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
    """Return the class of a layout, and the declared size of one chunk."""
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
    """Return the product of the dimensions; the last one is the size of a value."""
    width = 4
    if version > 3:  # noqa: PLR2004
        cursor.skip(1)
        rank, width = cursor.uint(1), cursor.uint(1)
    else:
        rank = cursor.uint(1) if version == 3 else rank  # noqa: PLR2004
        cursor.offset()
    return math.prod(cursor.uint(width) for _ in range(rank))
