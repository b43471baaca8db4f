"""JSON as RFC 8259 writes it and RFC 7493 narrows it: what two parsers could read differently is refused.

orjson parses. It refuses what is not JSON: NaN and Infinity, numbers too large for a double (``1e999``, or an
integer of 5,000 digits), lone surrogates, a byte order mark, encodings other than UTF-8, an empty text, and
anything after the value. Two rules are added here:

* arrays and objects nest at most ``max_depth`` deep;
* an object names each member once. Parsers differ over which of two values counts, so what one part of a
  system checks would not be what another part uses (RFC 7493 section 2.3).

Both look at the *outline*, the few bytes that give a text its structure, with whole-array operations. Their
time is linear in the size of the text for any shape of text.

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
_QUOTE, _COLON, _OPEN, _CLOSE = b'":{}'
# Sets the one bit in which "[" differs from "{", and "]" from "}".
_BRACKETS_TO_BRACES = np.uint8(0x20)


class StrictJSONError(ValueError):
    """The text is not strict JSON. The message says why and where, and repeats nothing of the text."""


def loads(raw: bytes, *, max_depth: int = 32) -> Any:
    """Parse strict JSON.

    :param raw: the text in UTF-8.
    :param max_depth: how deep arrays and objects may nest; a number alone has depth 0. The parser's own limit
        of 1,024 holds as well.
    :raises StrictJSONError: for anything that RFC 8259 does not allow, deeper nesting, and duplicate members.
    """
    value = _parse(raw)
    if len(raw) < _SMALL and _plainly_fine(raw, value, max_depth):
        return value
    outline = _outline(raw)
    if _depth(outline) > max_depth:
        raise StrictJSONError(f"arrays and objects nest deeper than {max_depth}")
    colons = int(np.count_nonzero(outline == _COLON))
    if _members(value, colons) < colons:
        raise StrictJSONError("an object has duplicate members")
    return value


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # Not chained: the parser's error carries the whole text.
        raise StrictJSONError(f"{error.msg} at character {error.pos}") from None


def _plainly_fine(raw: bytes, value: Any, max_depth: int) -> bool:
    """Say whether a small text holds both rules, by counting; False may also mean that counting cannot tell."""
    structure = b"".join(_unescaped(raw).split(b'"')[::2])
    colons = structure.count(b":")
    return structure.count(b"[") + structure.count(b"{") <= max_depth and _members(value, colons) == colons


def _unescaped(raw: bytes) -> bytes:
    """Return the text without what would hide the ends of its strings: every quotation mark left is one."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _outline(raw: bytes) -> NDArray[np.uint8]:
    """Return the brackets, braces and colons that are outside strings. The text must be valid JSON."""
    text = np.frombuffer(_unescaped(raw), np.uint8)
    marks = np.concatenate([_marks(text[start : start + _BLOCK]) for start in range(0, len(text), _BLOCK)])
    quotes = marks == _QUOTE
    outside: NDArray[np.uint8] = marks[~(np.bitwise_xor.accumulate(quotes) | quotes)]
    return outside


def _marks(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    braces = text | _BRACKETS_TO_BRACES
    marks: NDArray[np.uint8] = text[(braces == _OPEN) | (braces == _CLOSE) | (text == _QUOTE) | (text == _COLON)]
    return marks


def _depth(outline: NDArray[np.uint8]) -> int:
    braces = outline[outline != _COLON] | _BRACKETS_TO_BRACES
    if not braces.size:
        return 0
    steps = np.where(braces == _OPEN, np.int8(1), np.int8(-1))
    return int(np.cumsum(steps, dtype=np.int32).max())


def _members(value: Any, expected: int) -> int:
    """Count the members of all objects, level by level, until the expected number is found.

    Stopping early is what keeps ``{"instances": [[...]]}`` from being walked down to its numbers.
    """
    found = 0
    level = [value]
    while level:
        objects = [item for item in level if type(item) is dict]
        found += sum(map(len, objects))
        if found == expected:
            break
        arrays = [item for item in level if type(item) is list]
        level = _containers(chain(arrays, map(dict.values, objects)))
    return found


def _containers(parents: Iterable[Iterable[Any]]) -> list[Any]:
    return [item for item in chain.from_iterable(parents) if (type(item) is list or type(item) is dict) and item]
