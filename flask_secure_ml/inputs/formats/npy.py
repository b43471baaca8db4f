"""Arrays as ``application/x-npy``, the format of :func:`numpy.save` (NEP 1).

The header of a file is the text of a Python dict. Here it is matched against the one form that such a dict has, and
never evaluated; dtypes are looked up by name in a table. So nothing is unpickled, and there are no records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from flask import Request
from marshmallow import Schema, ValidationError
from numpy.typing import NDArray

from ...errors import MalformedRequest
from ..body_stream import Caps
from ..problems import validation_failed
from . import Decoded, single_tensor

NPY = "application/x-npy"
_MAGIC = b"\x93NUMPY"
# The bytes of the header's length, by version. 3.0 is 2.0 with UTF-8, for the names of records.
_LENGTH_SIZES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
# numpy writes less than 400 bytes for 32 dimensions, which is as many as every release has.
_MAX_HEADER = 2_048
_MAX_DIMENSIONS = 32
_ENTRY = rb" *+(?:%s) *+" % b"|".join(
    rb"'%s' *+: *+%s" % entry
    for entry in (
        (b"descr", rb"'([^'\\]{0,16}+)'"),
        (b"fortran_order", rb"(True|False)"),
        (b"shape", rb"\(([0-9, ]*+)\)"),
    )
)
# Entries may come in any order, as NEP 1 says.
_HEADER = re.compile(rb"\{" + rb",".join([_ENTRY] * 3) + rb"(?:, *+)?\} *+\n")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
_DTYPES = {
    f"{order}{kind}{size}".encode(): np.dtype(f"{order}{kind}{size}")
    for kind, sizes in _SIZES.items()
    for size in sizes
    for order in ("<>|" if size == 1 else "<>")
}


@dataclass(frozen=True)
class Header:
    """What the header of a file says of its array.

    :param dtype: None for one that is not taken: text, objects, records, complex numbers, long doubles.
    :param shape: the lengths as they are claimed.
    :param is_fortran: the first index varies fastest.
    :param start: where the bytes of the array begin.
    """

    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    is_fortran: bool
    start: int


class NpyFormat:
    """One array of booleans, integers or floats of up to 64 bits, in any byte order, for a schema's one tensor."""

    name = "npy"
    media_types: tuple[str, ...] = (NPY,)

    def __init__(self, caps: Caps) -> None:
        self._caps = caps

    def fits(self, schema: Schema) -> bool:
        """Tell whether the schema has exactly one tensor field."""
        return single_tensor(schema) is not None

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the array under the name of the tensor field; it is a view of the body.

        :raises MalformedRequest: 400, it is no such file, or has more or fewer bytes than its header says.
        :raises PayloadTooLarge: 413, the array that the header claims is over the cap.
        :raises ValidationFailed: 422, its dtype is not taken.
        """
        key, _ = single_tensor(schema) or ("", None)
        header = read_header(body)
        if header.dtype is None:
            raise validation_failed(ValidationError({key: ["Not an array of booleans, integers or floats."]}))
        self._caps.check_declared(header.shape, header.dtype.itemsize)
        return Decoded({key: _array(body, header, header.dtype)}, self.name)


def read_header(body: bytes) -> Header:
    """Return what the header says.

    :raises MalformedRequest: it is not the header of a file of version 1.0, 2.0 or 3.0.
    """
    size = _LENGTH_SIZES.get(body[6:8])
    if not body.startswith(_MAGIC) or size is None:
        raise MalformedRequest("the body is no npy file of version 1.0, 2.0 or 3.0")
    length = int.from_bytes(body[8 : 8 + size], "little")
    start = 8 + size + length
    if length > _MAX_HEADER or start > len(body):
        raise MalformedRequest(f"the header of the npy file has {length} bytes, or is cut off")
    descr, order, shape = _entries(body[8 + size : start])
    return Header(_DTYPES.get(descr), _shape(shape), order == b"True", start)


def _entries(header: bytes) -> list[bytes]:
    """Return the values of ``descr``, ``fortran_order`` and ``shape``, each of which is there once."""
    match = _HEADER.fullmatch(header)
    groups = match.groups() if match else ()
    by_name = [[value for value in groups[name::3] if value is not None] for name in range(3)]
    if not all(len(values) == 1 for values in by_name):
        raise MalformedRequest("the header of the npy file is not as numpy writes it")
    return [values[0] for values in by_name]


def _shape(text: bytes) -> tuple[int, ...]:
    """Return the lengths that stand in the parentheses of a tuple: nothing, ``5,`` or ``5, 3``."""
    lengths = [each.strip(b" ") for each in text.split(b",")]
    if lengths[-1] == b"":
        lengths.pop()
    elif len(lengths) == 1:
        raise MalformedRequest("the shape of the npy file is no tuple")
    if len(lengths) > _MAX_DIMENSIONS or not all(map(_LENGTH.fullmatch, lengths)):
        raise MalformedRequest("the shape of the npy file is no tuple of at most 32 lengths")
    return tuple(map(int, lengths))


def _array(body: bytes, header: Header, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(body) - header.start != prod(header.shape) * dtype.itemsize:
        raise MalformedRequest("the npy file has not exactly the bytes that its header claims")
    flat = np.frombuffer(body, dtype, offset=header.start)
    return flat.reshape(header.shape[::-1]).T if header.is_fortran else flat.reshape(header.shape)
