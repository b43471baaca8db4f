"""Strict JSON (RFC 8259, RFC 7493): documents that two parsers could read differently are rejected.

The parser is orjson. It rejects NaN and Infinity, numbers too large for a double (``1e999``, or an integer of 5,000
digits), lone surrogates, a byte order mark, encodings other than UTF-8, an empty document, and anything after the
value. This module adds two rules:

* Arrays and objects are nested at most ``max_depth`` levels deep.
* The member names of an object are unique. Parsers disagree on which of two duplicate members to use, so one part of a
  system could check a value that another part does not use (RFC 7493 section 2.3).

Both rules are checked on the *outline* of a document, the few bytes that define its structure, with whole-array
operations. Their time is linear in the size of the document, whatever its structure.

Further limits bound the number and size of values. They are checked on the bytes before parsing, so a document over a
limit costs less than an accepted one, however much memory its values would need.

Integers beyond 64 bits become floats, with the precision of a double (RFC 7493 section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

# Below this size, counting bytes is faster than setting up array operations.
_SMALL = 4096
# A block and its intermediate results fit into the processor's cache.
_BLOCK = 65_536
_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE = b'":,{}'
# Sets the one bit in which "[" differs from "{", and "]" from "}".
_BRACKETS_TO_BRACES = np.uint8(0x20)


class StrictJSONError(ValueError):
    """The document is not strict JSON. The message has the reason and the position, but no content."""


class TooLargeError(StrictJSONError):
    """The document exceeds a limit."""


def loads(
    raw: bytes,
    *,
    max_depth: int = 32,
    max_members: int | None = None,
    max_string: int | None = None,
    max_elements: int | None = None,
) -> Any:
    """Parse strict JSON.

    :param raw: the document in UTF-8.
    :param max_depth: the maximum depth of arrays and objects; a number alone has depth 0. The parser itself has a
        limit of 1,024.
    :param max_members: the maximum number of members of one object.
    :param max_string: the maximum length of a string or name: the bytes between its quotation marks, with escapes.
    :param max_elements: the maximum number, in the whole document, of values that contain no other value (numbers,
        strings, literals, empty arrays and objects), and also of arrays and objects, empty or not.
    :raises StrictJSONError: the document breaks RFC 8259, is nested too deep, or has duplicate members.
    :raises TooLargeError: the document exceeds one of the other limits.
    """
    check_size(raw, max_members=max_members, max_string=max_string, max_elements=max_elements)
    value = _parse(raw)
    if len(raw) < _SMALL and _is_plainly_strict(raw, value, max_depth, max_members):
        return value
    outline = _outline(raw)
    if _depth(outline) > max_depth:
        raise StrictJSONError(f"arrays and objects are nested deeper than {max_depth}")
    colons = int(np.count_nonzero(outline == _COLON))
    if _members(value, colons, max_members) < colons:
        raise StrictJSONError("an object has duplicate members")
    return value


def check_size(
    raw: bytes, *, max_members: int | None = None, max_string: int | None = None, max_elements: int | None = None
) -> None:
    """Check the limits of :func:`loads` that need no parser.

    These are all limits, except that on members if there is more than one object. For a small document, its length is
    enough. The document need not be valid JSON.

    :raises TooLargeError: the document exceeds a limit.
    """
    # A member has at least a comma, a colon, two quotation marks and one byte of value.
    if max_members is not None and len(raw) > 5 * max_members and _has_members_over(max_members, raw):
        raise TooLargeError(f"an object has more than {max_members} members")
    # Each value but the last is followed by a comma, and an array or object takes two brackets.
    if max_elements is not None and len(raw) >= 2 * max_elements and _has_more_than(max_elements, raw):
        raise TooLargeError(f"there are more than {max_elements} values, or arrays and objects")
    if max_string is not None and len(raw) > max_string and _has_string_over(max_string, raw):
        raise TooLargeError(f"a string or name has more than {max_string} bytes")


def _has_more_than(most: int, raw: bytes) -> bool:
    content = np.frombuffer(raw, np.uint8)
    counted = [_commas_and_openings(content[start : start + _BLOCK]) for start in range(0, len(content), _BLOCK)]
    if not _are_more_than(most, *map(sum, zip(*counted, strict=True))):
        return False
    # Some of these may be inside strings.
    return _are_more_than(most, *_outside_strings(raw))


def _has_members_over(most: int, raw: bytes) -> bool:
    """Return True if some object must have too many members.

    This compares the totals of members and objects. The number for each object is known only after parsing.
    """
    content = np.frombuffer(raw, np.uint8)
    blocks = (content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK))
    colons = sum(int(np.count_nonzero(block == _COLON)) for block in blocks)
    if colons <= most * max(1, raw.count(b"{") if colons > most else 1):
        return False
    # Some of these may be inside strings.
    outline = _outline(raw)
    return int(np.count_nonzero(outline == _COLON)) > most * max(1, int(np.count_nonzero(outline == _OPEN)))


def _outside_strings(raw: bytes) -> tuple[int, int]:
    """Count commas, and opening brackets and braces, outside strings."""
    content = np.frombuffer(_unescaped(raw), np.uint8)
    commas, openings, inside = 0, 0, np.bool_(False)
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        quotes = block == _QUOTE
        if quotes.any():
            within = np.bitwise_xor.accumulate(quotes) ^ inside
            inside = within[-1]
            block = block[~within]
        elif inside:
            continue
        counted = _commas_and_openings(block)
        commas, openings = commas + counted[0], openings + counted[1]
    return commas, openings


def _are_more_than(most: int, commas: int, openings: int) -> bool:
    return commas + 1 > most or openings > most


def _commas_and_openings(content: NDArray[np.uint8]) -> tuple[int, int]:
    openings = np.count_nonzero(content | _BRACKETS_TO_BRACES == _OPEN)
    return int(np.count_nonzero(content == _COMMA)), int(openings)


def _has_string_over(most: int, raw: bytes) -> bool:
    """Return True if a string is longer than ``most`` bytes.

    The search moves in steps of that length, so that no longer string fits between two of them.
    """
    content = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in raw else raw
    in_string, start, position = False, 0, most
    while position < len(content):
        before = content.rfind(b'"', start, position)
        if before >= 0:
            in_string ^= bool(content.count(b'"', start, before + 1) % 2)
            start = before + 1
        end = content.find(b'"', position)
        if in_string and (len(content) if end < 0 else end) - start > most:
            return True
        if end < 0:
            return False
        in_string, start, position = not in_string, end + 1, end + 1 + most
    return False


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # Not chained: the parser's error contains the whole document.
        raise StrictJSONError(f"{error.msg} at character {error.pos}") from None


def _is_plainly_strict(raw: bytes, value: Any, max_depth: int, max_members: int | None) -> bool:
    """Return True if counting proves that a small document follows both rules; False means that it is not proven."""
    structure = b"".join(_unescaped(raw).split(b'"')[::2])
    colons = structure.count(b":")
    return structure.count(b"[") + structure.count(b"{") <= max_depth and _members(value, colons, max_members) == colons


def _unescaped(raw: bytes) -> bytes:
    """Return the document without escaped quotation marks; each that remains begins or ends a string."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _outline(raw: bytes) -> NDArray[np.uint8]:
    """Return the brackets, braces and colons that are outside strings."""
    content = np.frombuffer(_unescaped(raw), np.uint8)
    blocks = (content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK))
    marks = np.concatenate([_marks(block) for block in blocks])
    quotes = marks == _QUOTE
    outside: NDArray[np.uint8] = marks[~(np.bitwise_xor.accumulate(quotes) | quotes)]
    return outside


def _marks(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    braces = content | _BRACKETS_TO_BRACES
    wanted = (braces == _OPEN) | (braces == _CLOSE) | (content == _QUOTE) | (content == _COLON)
    marks: NDArray[np.uint8] = content[wanted]
    return marks


def _depth(outline: NDArray[np.uint8]) -> int:
    braces = outline[outline != _COLON] | _BRACKETS_TO_BRACES
    if not braces.size:
        return 0
    steps = np.where(braces == _OPEN, np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max())


def _members(value: Any, expected: int, most: int | None) -> int:
    """Return the number of members of all objects.

    It counts level by level and stops at the expected number, which avoids visiting each number of
    ``{"instances": [[...]]}``.

    :raises TooLargeError: an object has too many members.
    """
    found = 0
    level = [value]
    while level:
        objects = [item for item in level if type(item) is dict]
        if most is not None and max(map(len, objects), default=0) > most:
            raise TooLargeError(f"an object has more than {most} members")
        found += sum(map(len, objects))
        if found == expected:
            break
        arrays = [item for item in level if type(item) is list]
        level = _containers(chain(arrays, map(dict.values, objects)))
    return found


def _containers(parents: Iterable[Iterable[Any]]) -> list[Any]:
    return [item for item in chain.from_iterable(parents) if (type(item) is list or type(item) is dict) and item]
