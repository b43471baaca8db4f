"""Serializes the state of signals as JSON, for the store and for other processes.

Anyone with write access to the store can write any record, so records are bounded and checked when they are read.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from array import array
from base64 import b64decode, b64encode
from typing import Any

VERSION = 2
"""Version of the stored state; other versions are ignored."""

MOST_INTEGER = 2**62
"""The largest integer in a record. Sums are limited to it, and every array can store it."""

_LARGEST = 16 * 1024 * 1024
_MOST_VALUES = 1_000_000


def packed(value: Any) -> bytes:
    """Serialize JSON values to bytes."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def unpacked(raw: bytes) -> Any:
    """Deserialize JSON values from bytes.

    :raises ValueError: they were not written by :func:`packed`, or are larger than 16 MB or a million values.
    """
    try:
        inflating = zlib.decompressobj()
        plain = inflating.decompress(raw, _LARGEST)
        if inflating.unconsumed_tail or not inflating.eof:
            raise ValueError("the record is too large or truncated")
        # An empty list takes three bytes in JSON, and 64 in memory.
        if sum(map(plain.count, (b",", b"[", b"{"))) > _MOST_VALUES:
            raise ValueError("the record has too many values")
        return json.loads(plain)
    except (zlib.error, RecursionError) as error:
        raise ValueError(f"the record cannot be read: {type(error).__name__}") from None


def slots_of(part: object) -> list[str]:
    """Return the names of the slots of an object and its bases, without its constants."""
    constants = getattr(part, "constants", ())
    slots = (name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ()))
    return sorted(name for name in slots if name not in constants)


def dumped(value: Any) -> Any:
    """Return JSON values for numbers, strings, arrays, and objects with such slots."""
    if isinstance(value, array):
        # Much faster than a list of numbers, and half its size.
        return b64encode(_little_endian(value).tobytes()).decode()
    if isinstance(value, (int, float, str)):
        return value
    return {name: dumped(getattr(value, name)) for name in slots_of(value)}


def restore(part: object, state: Any) -> None:
    """Set the slots of a new object to a state that :func:`dumped` returned.

    :raises ValueError: the state belongs to another class.
    """
    if not isinstance(state, dict) or state.keys() != set(slots_of(part)):
        raise ValueError("the state belongs to another class")
    for name, value in state.items():
        known = getattr(part, name)
        if isinstance(known, array):
            setattr(part, name, _array(known.typecode, value))
        elif isinstance(known, (int, float, str)):
            setattr(part, name, _plain(known, value))
        else:
            restore(known, value)


def _array(typecode: str, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("an array is missing")
    found: array[Any] = array(typecode)
    # Invalid base64 and a length that is not a multiple of the item size also raise ValueError.
    found.frombytes(b64decode(value, validate=True))
    return _little_endian(found)


def _little_endian(value: array[Any]) -> array[Any]:
    if sys.byteorder == "little":
        return value
    swapped = value[:]
    swapped.byteswap()
    return swapped


def _plain(known: float | str, value: Any) -> Any:
    if isinstance(known, str):
        if isinstance(value, str):
            return value
    elif isinstance(known, int):
        return integer(value, -1)
    elif isinstance(value, float) and not math.isnan(value):
        return value
    elif isinstance(value, int):
        return float(integer(value, -1))
    raise ValueError("a value has the wrong type")


def integer(value: Any, least: int, most: int = MOST_INTEGER) -> int:
    """Return a value that must be an integer within bounds.

    :raises ValueError: it is not an integer, or is out of bounds.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError("a number is missing or out of range")
    return value
