"""Arrays of numbers from the bytes of a JSON document, without a Python object for each number (pysimdjson).

The parser rejects what orjson rejects, with these exceptions, which are checked here: it skips a byte order mark, it
takes the first of duplicate members, and it flattens nested arrays whatever their lengths are. Its numbers are the
same: doubles are rounded correctly, integers are exact up to 64 bits, and a document with a larger integer is left to
the caller, who gets None for everything that is not known to be right.

The structure of an array is proven by counting. Its conversion to a buffer fails for anything but numbers and arrays of
them. All arrays of one level have the same length; so it is known how many arrays the levels need. Where the document
has exactly as many opening brackets, and one more of the object, nothing is nested deeper, and no string has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from itertools import accumulate, chain
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..strictjson import TooLargeError, check_size

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OPEN, _COMMA = b"{,"
# Sets the one bit in which "[" differs from "{".
_BRACKETS_TO_BRACES, _NO_BITS = np.uint8(0x20), np.uint8(0)
# A block and its intermediate results stay in the processor's cache.
_BLOCK = 262_144
# What a parser holds: a copy of the document, and of each number the positions of two tokens and two words. One that
# holds more bytes is not kept for the next document.
_KEPT = 6_291_456
_PER_NUMBER = 24
_DTYPES: Mapping[str, type[np.generic]] = {"d": np.float64, "i": np.int64, "u": np.uint64}


class Kind(NamedTuple):
    """What is read for a member.

    :param dimensions: of the array; 0 for a string, a number, a boolean or null.
    :param numbers: ``d`` for doubles, ``i`` for integers of 64 bits, ``u`` for those without a sign.
    """

    dimensions: int
    numbers: str = "d"


SCALAR = Kind(0)


class Wanted(NamedTuple):
    """The members that an object may have.

    :param kinds: what is read for each.
    :param scalars: how many of them are scalars.
    :param most_arrays: returns how many JSON arrays there can be in a valid document of some bytes.
    """

    kinds: Mapping[str, Kind]
    scalars: int
    most_arrays: Callable[[int], int]


class NumberArrays:
    """Reads the members of an object. One object serves all threads of an app."""

    def __init__(self, simdjson: Any) -> None:
        self._new_parser = simdjson.Parser
        self._types = (simdjson.Object, simdjson.Array)
        # A parser serves one thread at a time, and no object of its last document may be alive when it is used again.
        self._idle: list[Any] = []

    def read(self, body: bytes, wanted: Wanted, max_elements: int, max_string: int) -> dict[str, Any] | None:
        """Return the members of an object that has no others; None if the document is anything else.

        An array is C-contiguous, writeable and not empty. Its numbers are those that were sent: float64, int64 or
        uint64.

        :param body: the document in UTF-8.
        :param max_elements: as of :func:`flask_secure_ml.strictjson.loads`, and so is ``max_string``.
        """
        # Counting costs little beside parsing, and leaves most of what is not wanted unparsed.
        quotes = 2 * (len(wanted.kinds) + wanted.scalars)
        if body.startswith(_BYTE_ORDER_MARK) or _has_over(quotes, body) or not _is_within(max_string, body):
            return None
        # Each value but the last is followed by a comma.
        if len(body) >= 2 * max_elements and _count(_COMMA, body) >= max_elements:
            return None
        openings = _count(_OPEN, body, _BRACKETS_TO_BRACES)
        if openings > min(max_elements, 1 + wanted.most_arrays(len(body))):
            return None
        try:
            parser = self._idle.pop()
        except IndexError:
            parser = self._new_parser()
        try:
            values = self._members(parser.parse(body), wanted.kinds)
        except (ValueError, TypeError, RuntimeError):
            # Not JSON, not of this structure, or with an integer beyond 64 bits. The parser is dropped: the traceback
            # keeps objects of the document alive.
            return None
        if values is None:
            return None
        arrays = [value for value in values.values() if type(value) is np.ndarray]
        if len(body) + _PER_NUMBER * sum(array.size for array in arrays) <= _KEPT and not self._idle:
            self._idle.append(parser)
        # One object, and the arrays that the levels need: there are no others, and no brackets in strings.
        return values if 1 + _levels(arrays) == openings else None

    def _members(self, document: Any, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
        of_object, of_array = self._types
        if type(document) is not of_object:
            return None
        names = [name for name in kinds if name in document]
        # Otherwise there are others, or one of them twice.
        if len(names) != len(document):
            return None
        values: dict[str, Any] = {}
        for name in names:
            value, (dimensions, numbers) = document[name], kinds[name]
            if (type(value) is of_array) != bool(dimensions):
                return None
            values[name] = _array(value, dimensions, numbers) if dimensions else value
        return values


def _array(value: Any, dimensions: int, numbers: str) -> NDArray[Any]:
    """Return an array of some dimensions; the caller proves that its innermost lists have nothing but numbers.

    :raises TypeError: there is something else than numbers and arrays of them, or too few levels.
    :raises ValueError: the arrays of a level have different lengths, or none; or an integer is out of range.
    """
    flat = np.frombuffer(value.as_buffer(of_type=numbers), _DTYPES[numbers])
    shape = [len(value)]
    for depth in range(dimensions - 1):
        (length,) = set(map(len, _level(value, depth)))
        shape.append(length)
    if not all(shape):
        raise ValueError("an array is empty")
    return flat.reshape(shape)


def _level(value: Any, depth: int) -> Iterable[Any]:
    """Return the items of an array's arrays at some depth, made one at a time."""
    level: Iterable[Any] = value
    for _ in range(depth):
        level = chain.from_iterable(level)
    return level


def _levels(arrays: Iterable[NDArray[Any]]) -> int:
    """Return how many JSON arrays the levels of these arrays are."""
    return sum(sum(accumulate(array.shape[:-1], mul, initial=1)) for array in arrays)


def _count(character: int, body: bytes, with_bits: np.uint8 = _NO_BITS) -> int:
    """Return how many bytes are a character, with some bits set in each."""
    codes = np.frombuffer(body, np.uint8)
    blocks = (codes[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK))
    return sum(int(np.count_nonzero((block | with_bits if with_bits else block) == character)) for block in blocks)


def _has_over(most: int, body: bytes) -> bool:
    """Return True if there are more quotation marks."""
    found = -1
    for _ in range(most + 1):
        found = body.find(b'"', found + 1)
        if found < 0:
            return False
    return True


def _is_within(max_string: int, body: bytes) -> bool:
    try:
        check_size(body, max_string=max_string)
    except TooLargeError:
        return False
    return True


def number_arrays() -> NumberArrays | None:
    """Return a reader; None where pysimdjson is not installed."""
    try:
        return NumberArrays(import_module("simdjson"))
    except ImportError:
        return None
