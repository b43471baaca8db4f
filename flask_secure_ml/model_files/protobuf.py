"""Reading the fields of a serialized protocol buffer without its schema.

The reader is at least as lenient as any implementation: tags and varints may be longer than necessary, and fields may
be unknown, of another wire type or in groups. Input that every implementation rejects is :class:`Malformed`.
Source: Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)

_VARINT_BYTES = 10
_SIZES = {FIXED64: 8, FIXED32: 4}
# An unpacked list of numbers has one field per number. Fields 3 and 14, which matter in ONNX, are not matched.
_NUMBERS = re.compile(
    rb"(?>[\x08\x10\x20\x28\x30\x38\x40\x48\x50\x58\x60\x68\x78][\x80-\xff]{0,9}[\x00-\x7f]"
    rb"|[\x0d\x15\x1d\x25\x2d\x35\x3d\x45\x4d\x55\x5d\x65\x6d\x75\x7d].{4}"
    rb"|[\x09\x11\x19\x21\x29\x31\x39\x41\x49\x51\x59\x61\x69\x71\x79].{8})++",
    re.DOTALL,
)


class Malformed(Exception):
    """The bytes are not a message."""


class Cut(Malformed):
    """The bytes could be the beginning of a message."""


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type and two positions for length-delimited fields and for fields 3 and 14.

    The positions are the start and the end of the content; for a varint, both are its value. Fields in groups are
    skipped, because ONNX does not use groups.

    :raises Malformed: no implementation accepts the message.
    """
    groups: list[int] = []
    while start < end:
        if run := _NUMBERS.match(data, start, end):
            start = run.end()
            continue
        tag, start = _varint(data, start, end)
        number, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7
        if not number:
            raise Malformed
        if wire in (GROUP, END_GROUP):
            _enter_or_leave(groups, number, wire)
            continue
        value, start = _content(data, start, end, wire)
        if start > end:
            raise Cut
        if wire in (VARINT, LENGTH) and not groups:
            yield number, wire, value, start if wire == LENGTH else value
    if groups:
        raise Cut


def could_begin(head: bytes) -> bool:
    """Return True if a message could begin with these bytes."""
    try:
        for _ in fields(head, 0, len(head)):
            pass
    except Cut:
        return True
    except Malformed:
        return False
    return bool(head)


def _enter_or_leave(groups: list[int], number: int, wire: int) -> None:
    if wire == GROUP:
        groups.append(number)
    elif not groups or groups.pop() != number:
        raise Malformed


def _content(data: bytes, start: int, end: int, wire: int) -> tuple[int, int]:
    """Return the value of a varint or the start of the content, and the end of the field."""
    if wire == VARINT:
        return _varint(data, start, end)
    if wire == LENGTH:
        size, start = _varint(data, start, end)
        return start, start + size
    if wire not in _SIZES:
        raise Malformed
    return start, start + _SIZES[wire]


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    value = 0
    for position in range(start, min(start + _VARINT_BYTES, end)):
        byte = data[position]
        value |= (byte & 0x7F) << 7 * (position - start)
        if byte < 0x80:  # noqa: PLR2004  the continuation bit
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
    raise Malformed if end - start >= _VARINT_BYTES else Cut
