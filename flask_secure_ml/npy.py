"""Reader for npy files, the format of :func:`numpy.save` (NEP 1, format versions 1 to 3).

The header of a file is a Python dict literal. It is matched against the forms that numpy writes and never evaluated, so
reading it runs no code and takes linear time. All npy files are read through this module.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"
MAGIC = b"\x93NUMPY"

# The size of the header length field in bytes, and the encoding of the header. 3.0 is 2.0 with UTF-8, for field names.
_VERSIONS = {b"\x01\x00": (2, "latin-1"), b"\x02\x00": (4, "latin-1"), b"\x03\x00": (4, "utf-8")}
_VERSION_AT = len(MAGIC)
_LENGTH_AT = _VERSION_AT + 2
# The limit of numpy.
_MAX_HEADER = 10_000
# Without structured dtypes, numpy writes fewer than 400 bytes.
_MAX_PLAIN_HEADER = 2_048
MAX_PREFIX = _LENGTH_AT + 4 + _MAX_HEADER
"""The maximum number of bytes before the array: enough for :func:`read_header`."""

_MAX_DIMENSIONS = 32
_SHAPE = r"\(([0-9, ]*+)\)"
_ENTRY = rf" *+(?:'descr' *+: *+'([^'\\]{{0,32}}+)'|'fortran_order' *+: *+(True|False)|'shape' *+: *+{_SHAPE}) *+"
_END = r"(?:, *+)?\} *+\n"
# Entries may come in any order, as NEP 1 says.
_HEADER = re.compile(rf"\{{{_ENTRY},{_ENTRY},{_ENTRY}{_END}")
# The descr of a structured dtype is a list, whose field names may have any character. Entries are in numpy's order.
_RECORDS = re.compile(rf"\{{'descr': (\[.*\]), 'fortran_order': (True|False), 'shape': {_SHAPE}{_END}", re.DOTALL)
_LENGTH = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIMPLE = re.compile(r"[<>|=][?A-Za-z][0-9]{0,9}(?:\[[0-9]{0,9}[A-Za-z]{1,2}\])?", re.ASCII)


class NpyError(ValueError):
    """The bytes are not an npy file. The message does not quote them."""


@dataclass(frozen=True)
class Header:
    """The declared dtype, shape and order of the array in a file.

    :param descr: the dtype as written: a name such as ``<f4``, or the list of fields of a structured dtype.
    :param shape: the length of each dimension.
    :param is_fortran: the array is in Fortran order: the first index varies fastest.
    :param start: the position of the first byte of the array.
    """

    descr: str
    shape: tuple[int, ...]
    is_fortran: bool
    start: int

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype; None for structured, object and unknown dtypes."""
        if not _SIMPLE.fullmatch(self.descr):
            return None
        try:
            found = np.dtype(self.descr)
        except (TypeError, ValueError):
            return None
        return None if found.hasobject else found

    @property
    def has_objects(self) -> bool:
        """True if numpy would unpickle the array, or if the dtype cannot be parsed."""
        if not self.descr.startswith("["):
            return self.dtype is None
        try:
            return np.lib.format.descr_to_dtype(ast.literal_eval(self.descr)).hasobject
        except (IndexError, KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            return True


def read_header(data: bytes, *, records: bool = True) -> Header:
    """Return the header of a file.

    :param data: the file, or its first bytes with the whole header.
    :param records: allow structured dtypes, whose headers are long.
    :raises NpyError: it is not the header of a file of version 1.0, 2.0 or 3.0 in a form that numpy writes.
    """
    size, encoding = _VERSIONS.get(data[_VERSION_AT:_LENGTH_AT], (0, ""))
    if not data.startswith(MAGIC) or not size:
        raise NpyError("it is not a file of version 1.0, 2.0 or 3.0")
    begin = _LENGTH_AT + size
    length = int.from_bytes(data[_LENGTH_AT:begin], "little")
    start = begin + length
    if length > (_MAX_HEADER if records else _MAX_PLAIN_HEADER) or start > len(data):
        raise NpyError(f"its header has {length} bytes, or is cut off")
    try:
        descr, order, shape = _entries(data[begin:start].decode(encoding), records=records)
    except UnicodeDecodeError:
        raise NpyError("its header is not text") from None
    return Header(descr, _lengths(shape), order == "True", start)


def read_array(data: bytes, header: Header, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array as a read-only view of the file.

    :param dtype: the dtype of the header.
    :raises NpyError: the file has more or fewer bytes than its header declares.
    """
    if not dtype.itemsize or len(data) - header.start != prod(header.shape) * dtype.itemsize:
        raise NpyError("it does not have exactly the bytes that its header claims")
    flat = np.frombuffer(data, dtype, offset=header.start)
    return flat.reshape(header.shape[::-1]).T if header.is_fortran else flat.reshape(header.shape)


def _entries(header: str, *, records: bool) -> tuple[str, str, str]:
    """Return the values of ``descr``, ``fortran_order`` and ``shape``; each must be present once."""
    if records and (found := _RECORDS.fullmatch(header)):
        return found[1], found[2], found[3]
    match = _HEADER.fullmatch(header)
    groups = match.groups() if match else ()
    values = [[value for value in groups[name::3] if value is not None] for name in range(3)]
    if not all(len(each) == 1 for each in values):
        raise NpyError("its header is not in canonical form")
    return values[0][0], values[1][0], values[2][0]


def _lengths(shape: str) -> tuple[int, ...]:
    """Return the lengths between the parentheses of a tuple: an empty string, ``5,`` or ``5, 3``."""
    lengths = [each.strip(" ") for each in shape.split(",")]
    if lengths[-1] == "":
        lengths.pop()
    elif len(lengths) == 1:
        raise NpyError("its shape is not a tuple")
    if len(lengths) > _MAX_DIMENSIONS or not all(map(_LENGTH.fullmatch, lengths)):
        raise NpyError(f"its shape is not a tuple of at most {_MAX_DIMENSIONS} lengths")
    return tuple(map(int, lengths))
