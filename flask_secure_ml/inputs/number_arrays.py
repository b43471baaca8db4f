"""Parsing arrays of numbers in JSON without a Python object per number (pysimdjson).

The parser rejects the same documents as orjson, with three exceptions that are checked here: it skips a byte order
mark, it uses the first of duplicate members, and it flattens nested arrays whatever their lengths. Numbers are the
same: doubles are rounded correctly, and integers are exact up to 64 bits. For a document with larger integers, and
whenever the result is not certain, the caller gets None.

The structure of an array is proven by counting. Converting it to a buffer fails for anything but numbers and arrays of
numbers. All arrays of one level have the same length, so the number of arrays at each level is known. If the document
has exactly that many opening brackets, plus one for the object, no array is nested deeper and no string contains one.
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
# A block and its intermediate results fit into the processor's cache.
_BLOCK = 262_144
# A parser retains a copy of the document and, for each number, the positions of two tokens and two words. A parser that
# retains more bytes than this is not reused.
_KEPT = 6_291_456
_PER_NUMBER = 24
_DTYPES: Mapping[str, type[np.generic]] = {"d": np.float64, "i": np.int64, "u": np.uint64}


class Kind(NamedTuple):
    """The expected type of a member.

    :param dimensions: the number of dimensions of an array; 0 for a string, a number, a boolean or null.
    :param numbers: ``d`` for doubles, ``i`` for signed and ``u`` for unsigned integers of 64 bits.
    """

    dimensions: int
    numbers: str = "d"


SCALAR = Kind(0)


class Wanted(NamedTuple):
    """The members that an object may have.

    :param kinds: the expected type of each member.
    :param scalars: the number of scalar members.
    :param most_arrays: returns the maximum number of JSON arrays in a valid document of a size in bytes.
    """

    kinds: Mapping[str, Kind]
    scalars: int
    most_arrays: Callable[[int], int]


class NumberArrays:
    """Parses an object with arrays of numbers. It is thread-safe."""

    def __init__(self, simdjson: Any) -> None:
        self._new_parser = simdjson.Parser
        self._types = (simdjson.Object, simdjson.Array)
        # A parser is used by one thread at a time. Objects of its last document must not exist when it is reused.
        self._idle: list[Any] = []

    def read(self, body: bytes, wanted: Wanted, max_elements: int, max_string: int) -> dict[str, Any] | None:
        """Return the members of an object; None if the document is not an object with only these members.

        Arrays are C-contiguous, writeable and not empty. They have the exact numbers as float64, int64 or uint64.

        :param body: the document in UTF-8.
        :param max_elements: as for :func:`flask_secure_ml.strictjson.loads`.
        :param max_string: as for :func:`flask_secure_ml.strictjson.loads`.
        """
        # Counting is cheap compared with parsing, and excludes most other documents without parsing them.
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
        # The brackets of one object and of the arrays of each level: there are no others, and none in strings.
        return values if 1 + _levels(arrays) == openings else None

    def _members(self, document: Any, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
        of_object, of_array = self._types
        if type(document) is not of_object:
            return None
        names = [name for name in kinds if name in document]
        # Otherwise there are other members, or duplicates.
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
    """Return an array with some dimensions; the caller proves that its innermost lists contain only numbers.

    :raises TypeError: there are values other than numbers and arrays of numbers, or too few levels.
    :raises ValueError: the arrays of a level differ in length or are empty, or an integer is out of range.
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
    """Return an iterator over the items of the arrays at some depth."""
    level: Iterable[Any] = value
    for _ in range(depth):
        level = chain.from_iterable(level)
    return level


def _levels(arrays: Iterable[NDArray[Any]]) -> int:
    """Return the number of JSON arrays in all levels of these arrays."""
    return sum(sum(accumulate(array.shape[:-1], mul, initial=1)) for array in arrays)


def _count(character: int, body: bytes, with_bits: np.uint8 = _NO_BITS) -> int:
    """Return how many bytes are equal to a character after setting some bits in each."""
    codes = np.frombuffer(body, np.uint8)
    blocks = (codes[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK))
    return sum(int(np.count_nonzero((block | with_bits if with_bits else block) == character)) for block in blocks)


def _has_over(most: int, body: bytes) -> bool:
    """Return True if there are more than ``most`` quotation marks."""
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
    """Return a parser; None if pysimdjson is not installed."""
    try:
        return NumberArrays(import_module("simdjson"))
    except ImportError:
        return None
