"""JSON as RFC 8259 writes it and RFC 7493 narrows it: what two parsers could read differently is refused.

orjson parses. It refuses what is not JSON: NaN and Infinity, numbers too large for a double (``1e999``, or an
integer of 5,000 digits), lone surrogates, a byte order mark, encodings other than UTF-8, an empty text, and
anything after the value. Two rules are added here:

* arrays and objects nest at most ``max_depth`` deep;
* an object names each member once. Parsers differ over which of two values counts, so what one part of a
  system checks would not be what another part uses (RFC 7493 section 2.3).

Both look at the *outline*, the few bytes that give a text its structure, with whole-array operations. Their
time is linear in the size of the text for any shape of text.

What a text may have in all can be capped. That is counted in its bytes before it is parsed, so a text over a cap
costs less than any other one, whatever its values would take in memory.

Integers beyond 64 bits become floats, with the precision of a double (RFC 7493 section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

# Below this many bytes, counting bytes is faster than the set-up of array operations.
_SMALL = 4096
# A block and its intermediate results stay in the processor's cache.
_BLOCK = 65_536
_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE = b'":,{}'
# Sets the one bit in which "[" differs from "{", and "]" from "}".
_BRACKETS_TO_BRACES = np.uint8(0x20)


class StrictJSONError(ValueError):
    """The text is not strict JSON. The message says why and where, and repeats nothing of the text."""


class TooLargeError(StrictJSONError):
    """The text has more of something than a cap allows."""


def loads(
    raw: bytes,
    *,
    max_depth: int = 32,
    max_members: int | None = None,
    max_text: int | None = None,
    max_elements: int | None = None,
) -> Any:
    """Parse strict JSON.

    :param raw: the text in UTF-8.
    :param max_depth: how deep arrays and objects may nest; a number alone has depth 0. The parser's own limit
        of 1,024 holds as well.
    :param max_members: the most members of one object.
    :param max_text: the most bytes between the quotation marks of one text or name, escapes as they are written.
    :param max_elements: the most values that hold no other value (numbers, texts, literals, empty arrays and
        objects), and the most arrays and objects, empty or not; each in all.
    :raises StrictJSONError: for anything that RFC 8259 does not allow, deeper nesting, and duplicate members.
    :raises TooLargeError: for more than one of the last three.
    """
    _check_size(raw, max_members, max_text, max_elements)
    value = _parse(raw)
    if len(raw) < _SMALL and _plainly_fine(raw, value, max_depth, max_members):
        return value
    outline = _outline(raw)
    if _depth(outline) > max_depth:
        raise StrictJSONError(f"arrays and objects nest deeper than {max_depth}")
    colons = int(np.count_nonzero(outline == _COLON))
    if _members(value, colons, max_members) < colons:
        raise StrictJSONError("an object has duplicate members")
    return value


def _check_size(raw: bytes, max_members: int | None, max_text: int | None, max_elements: int | None) -> None:
    """Hold the text against the caps, by its length where that is enough; it need not be valid JSON."""
    # A member takes a comma, a colon, two quotation marks and a value.
    if max_members is not None and len(raw) > 5 * max_members and _has_members_over(max_members, raw):
        raise TooLargeError(f"an object has more than {max_members} members")
    # Each value but the last is followed by a comma, and an array or object takes two brackets.
    if max_elements is not None and len(raw) >= 2 * max_elements and _has_more_than(max_elements, raw):
        raise TooLargeError(f"there are more than {max_elements} values, or arrays and objects")
    if max_text is not None and len(raw) > max_text and _has_text_over(max_text, raw):
        raise TooLargeError(f"a text or name has more than {max_text} bytes")


def _has_more_than(most: int, raw: bytes) -> bool:
    text = np.frombuffer(raw, np.uint8)
    counted = [_commas_and_openings(text[start : start + _BLOCK]) for start in range(0, len(text), _BLOCK)]
    if not _are_more_than(most, *map(sum, zip(*counted, strict=True))):
        return False
    # Some of them are only characters in strings.
    return _are_more_than(most, *_outside_strings(raw))


def _has_members_over(most: int, raw: bytes) -> bool:
    """Say whether the objects are too few for as many members; how these are shared out is seen after parsing."""
    text = np.frombuffer(raw, np.uint8)
    blocks = (text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK))
    colons = sum(int(np.count_nonzero(block == _COLON)) for block in blocks)
    if colons <= most * max(1, raw.count(b"{") if colons > most else 1):
        return False
    # Some of them may be only characters in strings.
    outline = _outline(raw)
    return int(np.count_nonzero(outline == _COLON)) > most * max(1, int(np.count_nonzero(outline == _OPEN)))


def _outside_strings(raw: bytes) -> tuple[int, int]:
    """Count commas, and opening brackets and braces, outside strings."""
    text = np.frombuffer(_unescaped(raw), np.uint8)
    commas, openings, inside = 0, 0, np.bool_(False)
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK]
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


def _commas_and_openings(text: NDArray[np.uint8]) -> tuple[int, int]:
    openings = np.count_nonzero(text | _BRACKETS_TO_BRACES == _OPEN)
    return int(np.count_nonzero(text == _COMMA)), int(openings)


def _has_text_over(most: int, raw: bytes) -> bool:
    """Look for a stretch without quotation marks, in steps that no longer text can hide between, linear in all."""
    text = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in raw else raw
    is_text, start, place = False, 0, most
    while place < len(text):
        before = text.rfind(b'"', start, place)
        if before >= 0:
            is_text ^= bool(text.count(b'"', start, before + 1) % 2)
            start = before + 1
        end = text.find(b'"', place)
        if is_text and (len(text) if end < 0 else end) - start > most:
            return True
        if end < 0:
            return False
        is_text, start, place = not is_text, end + 1, end + 1 + most
    return False


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # Not chained: the parser's error carries the whole text.
        raise StrictJSONError(f"{error.msg} at character {error.pos}") from None


def _plainly_fine(raw: bytes, value: Any, max_depth: int, max_members: int | None) -> bool:
    """Say whether a small text holds both rules, by counting; False may also mean that counting cannot tell."""
    structure = b"".join(_unescaped(raw).split(b'"')[::2])
    colons = structure.count(b":")
    return structure.count(b"[") + structure.count(b"{") <= max_depth and _members(value, colons, max_members) == colons


def _unescaped(raw: bytes) -> bytes:
    """Return the text without what would hide the ends of its strings: every quotation mark left is one."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _outline(raw: bytes) -> NDArray[np.uint8]:
    """Return the brackets, braces and colons that are outside strings."""
    text = np.frombuffer(_unescaped(raw), np.uint8)
    blocks = (text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK))
    marks = np.concatenate([_marks(block) for block in blocks])
    quotes = marks == _QUOTE
    outside: NDArray[np.uint8] = marks[~(np.bitwise_xor.accumulate(quotes) | quotes)]
    return outside


def _marks(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    braces = text | _BRACKETS_TO_BRACES
    wanted = (braces == _OPEN) | (braces == _CLOSE) | (text == _QUOTE) | (text == _COLON)
    marks: NDArray[np.uint8] = text[wanted]
    return marks


def _depth(outline: NDArray[np.uint8]) -> int:
    braces = outline[outline != _COLON] | _BRACKETS_TO_BRACES
    if not braces.size:
        return 0
    steps = np.where(braces == _OPEN, np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max())


def _members(value: Any, expected: int, most: int | None) -> int:
    """Count the members of all objects, level by level, until the expected number is found.

    Stopping early is what keeps ``{"instances": [[...]]}`` from being walked down to its numbers.

    :raises TooLargeError: an object has more than the most members.
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
