"""The schema of an inference request of the Open Inference Protocol, version 2, and the data of its tensors."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from marshmallow import Schema, ValidationError, fields, validate
from numpy.typing import NDArray

from ...errors import PayloadTooLarge
from ..body_stream import Caps
from ..fields.base import AnyField

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{
        f"{prefix}INT{bits}": np.dtype(f"{prefix}int{bits}".lower()) for prefix in ("", "U") for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
"""The dtype of each datatype with numbers; they are little-endian where they are sent as bytes."""

BYTES = "BYTES"
_MAX_DIMENSIONS = 32


class _Lengths(AnyField):
    """A shape. Not a List of Integers, which would load each of a million lengths."""

    default_error_messages = {"invalid": "Not a list of at most 32 lengths."}  # noqa: RUF012 - as in marshmallow

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> tuple[int, ...]:
        if type(value) is not list or len(value) > _MAX_DIMENSIONS or not {int}.issuperset(map(type, value)):
            raise self.make_error("invalid")
        if min(value, default=0) < 0:
            raise self.make_error("invalid")
        return tuple(value)


class _Input(Schema):
    name = fields.String(required=True)
    shape = _Lengths(required=True)
    datatype = fields.String(required=True, validate=validate.OneOf([*DATATYPES, BYTES]))
    parameters: fields.Field[Any] = fields.Dict(keys=fields.String(), allow_none=True)
    data = fields.Raw()


class _Output(Schema):
    name = fields.String(required=True)
    parameters: fields.Field[Any] = fields.Dict(keys=fields.String(), allow_none=True)


class InferenceRequest(Schema):
    """An inference request; optional members may be null, as clients that write every member send them."""

    model_name: fields.Field[Any] = fields.String(allow_none=True)
    model_version: fields.Field[Any] = fields.String(allow_none=True)
    id: fields.Field[Any] = fields.String(allow_none=True)
    parameters: fields.Field[Any] = fields.Dict(keys=fields.String(), allow_none=True)
    inputs: fields.Field[Any] = fields.List(fields.Nested(_Input), required=True, validate=validate.Length(min=1))
    outputs: fields.Field[Any] = fields.List(fields.Nested(_Output), allow_none=True)


_LENGTH_BYTES = 4
_TYPES: Mapping[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float}),
}


class Binary:
    """The bytes after the JSON of a request: those of the inputs that are sent in binary, one after the other."""

    def __init__(self, body: bytes, start: int) -> None:
        self.body = body
        self._next = start

    @property
    def is_used_up(self) -> bool:
        """Whether every byte belonged to an input."""
        return self._next == len(self.body)

    def take(self, size: int) -> int:
        """Return the position of the next bytes.

        :raises ValidationError: there are fewer.
        """
        if size > len(self.body) - self._next:
            raise _wrong("parameters", "There is less binary data.")
        start, self._next = self._next, self._next + size
        return start


def tensor_of(tensor: Mapping[str, Any], caps: Caps, binary: Binary | None) -> Any:
    """Return the data of an input: an array, or nested lists of strings.

    :param tensor: an input of :class:`InferenceRequest`.
    :raises ValidationError: the data is missing, there twice, or not as shape and datatype say.
    :raises PayloadTooLarge: the shape claims more than the limits allow.
    """
    dtype = DATATYPES.get(tensor["datatype"])
    caps.check_declared(tensor["shape"], _LENGTH_BYTES if dtype is None else dtype.itemsize)
    if dtype is None:
        caps.check_lists(tensor["shape"])
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise _wrong("data", "Missing, or there twice.")
    if size is None:
        return _of_json(tensor["data"], tensor["shape"], dtype)
    if type(size) is not int or size < 0 or binary is None:
        raise _wrong("parameters", "binary_data_size is not a length, or nothing follows the JSON.")
    start = binary.take(size)
    if dtype is None:
        return _nested(_strings(binary.body, start, size, prod(tensor["shape"]), caps), tensor["shape"])
    if size != prod(tensor["shape"]) * dtype.itemsize:
        raise _wrong("parameters", "binary_data_size is not what shape and datatype need.")
    return np.frombuffer(binary.body, dtype.newbyteorder("<"), prod(tensor["shape"]), start).reshape(tensor["shape"])


def _wrong(member: str, message: str) -> ValidationError:
    return ValidationError({member: [message]})


def _of_json(data: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> Any:
    flat = _flat(data, shape)
    if len(flat) != prod(shape):
        raise _wrong("data", "Must have as many items as shape says.")
    if not (frozenset({str}) if dtype is None else _TYPES[dtype.kind]).issuperset(map(type, flat)):
        raise _wrong("data", "Must have items of its datatype only.")
    return _nested(flat, shape) if dtype is None else _numbers(flat, dtype).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the items of a flat list, or of lists that are nested exactly as shape says."""
    if type(data) is not list:
        raise _wrong("data", "Not a list.")
    if not data or type(data[0]) is not list:
        return data
    level = [data]
    for length in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {length}:
            raise _wrong("data", "Must be flat, or nested as shape says.")
        level = list(chain.from_iterable(level))
    return level


def _numbers(flat: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return np.array(flat, dtype)
    try:
        found = np.asarray(array({"f": "d", "i": "q", "u": "Q"}[dtype.kind], flat))
    except OverflowError:
        raise _wrong("data", "Must be within the range of its datatype.") from None
    if dtype.kind != "f" and found.size and (found.min() < np.iinfo(dtype).min or found.max() > np.iinfo(dtype).max):
        raise _wrong("data", "Must be within the range of its datatype.")
    # The field rejects what is infinite after this.
    with np.errstate(over="ignore"):
        return found.astype(dtype, copy=False)


def _strings(body: bytes, start: int, size: int, count: int, caps: Caps) -> list[str]:
    """Return strings, each after its length in four bytes.

    :raises ValidationError: they do not fill their bytes exactly, or are not UTF-8.
    :raises PayloadTooLarge: one is too long.
    """
    end = start + size
    found: list[str] = []
    while len(found) < count and start + _LENGTH_BYTES <= end:
        length = int.from_bytes(body[start : start + _LENGTH_BYTES], "little")
        start += _LENGTH_BYTES + length
        if length > caps.max_string:
            raise PayloadTooLarge(f"a string has more than {caps.max_string} bytes")
        found.append(_string(body[start - length : min(start, end)]))
    if len(found) != count or start != end:
        raise _wrong("parameters", "The binary data does not have as many strings as shape says.")
    return found


def _string(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _wrong("parameters", f"The binary data of {BYTES} must be UTF-8.") from None


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """Return the items in lists that are nested as shape says; the one item itself for no dimensions."""
    level = flat
    for length in reversed(shape):
        level = [level[start : start + length] for start in range(0, len(level), length)] if length else []
    return level[0] if level else []
