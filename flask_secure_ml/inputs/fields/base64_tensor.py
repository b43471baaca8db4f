"""The :class:`Base64Tensor` field: the bytes of an array in base64."""

from __future__ import annotations

from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Mapping
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from ..problems import MAX_ERRORS, Shape
from .arrays import is_taken
from .tensor import Tensor

_NAMES = ("b64", "shape", "dtype")
# Only these names: numpy would read "O" as pointers, and "(1000000,)f4" as an array at each position.
_DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "envelope": "Not a base64 string, or an object with b64, shape and dtype.",
    "string": "Not a base64 string.",
    "shape_list": "Not a list of lengths.",
    "shape_needed": "Missing, and does not follow from the number of bytes.",
    "dtype_name": "Not a dtype that is accepted here.",
    "size": "Must have exactly the bytes that shape and dtype need.",
    "base64": "Not canonical base64.",
    "unknown": "Unknown field.",
}


class Base64Tensor(Tensor):
    """A :class:`Tensor` that is sent as the base64 encoding of its bytes: little-endian, in C order.

    The value is a string, or an object such as ``{"b64": "AACAPw==", "shape": [1], "dtype": "float32"}``. ``dtype``
    defaults to the dtype of the field, and accepts the same conversions as lists do (integers for floats, but not the
    reverse). ``shape`` may be omitted if the field has at most one variable length. The length of the string must match
    shape and dtype exactly; it is checked against the limits before decoding. Only canonical base64 with padding is
    accepted (RFC 4648 sections 3.5 and 4). A :class:`numpy.ndarray` is loaded as by :class:`Tensor`.

    It has the parameters of :class:`Tensor`.
    """

    default_error_messages = _MESSAGES

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> NDArray[Any]:  # fmt: skip
        array = value if type(value) is np.ndarray else self._decoded(value)
        return super()._deserialize(array, attr, data, **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        if value is None:
            return None
        array = np.ascontiguousarray(value, dtype=self.dtype.newbyteorder("<"))
        return {"b64": b64encode(array.data).decode(), "shape": list(array.shape), "dtype": self.dtype.name}

    def claimed_shape(self, value: Any) -> Shape | None:
        """Return the shape that the object declares or that follows from the number of bytes."""
        if type(value) is np.ndarray:
            return tuple(value.shape)
        try:
            return self._read(value)[1]
        except ValidationError:
            return None

    def _decoded(self, value: Any) -> NDArray[Any]:
        encoded, shape, dtype = self._read(value)
        try:
            found = decode(encoded)
        except ValueError:
            raise self._error("b64", "base64", value) from None
        return np.frombuffer(found, dtype).reshape(shape)

    def _read(self, value: Any) -> tuple[str, Shape, np.dtype[Any]]:
        """Return string, shape and dtype after checking that their sizes match and are within the limits."""
        envelope = self._envelope(value)
        encoded = envelope["b64"]
        if type(encoded) is not str:
            raise self._error("b64", "string", value)
        dtype = self._dtype(envelope, value)
        shape = self._shape(envelope, value, dtype)
        if decoded_size(encoded) != prod(shape) * dtype.itemsize:
            raise self._error("b64", "size", value)
        return encoded, shape, dtype

    def _envelope(self, value: Any) -> Mapping[str, Any]:
        if type(value) is str:
            return {"b64": value}
        if type(value) is not dict:
            raise self.make_error("envelope")
        if unknown := list(islice((name for name in value if name not in _NAMES), MAX_ERRORS)):
            raise ValidationError({str(name): [self.error_messages["unknown"]] for name in unknown})
        if "b64" not in value:
            raise self._error("b64", "required", value)
        return value

    def _dtype(self, envelope: Mapping[str, Any], value: Any) -> np.dtype[Any]:
        name = envelope.get("dtype", self.dtype.name)
        dtype = _DTYPES.get(name) if type(name) is str else None
        if dtype is None or not is_taken(dtype, self.dtype):
            raise self._error("dtype", "dtype_name", value)
        return dtype

    def _shape(self, envelope: Mapping[str, Any], value: Any, dtype: np.dtype[Any]) -> Shape:
        sent = envelope.get("shape")
        if "shape" not in envelope:
            shape = self._shape_of_size(envelope["b64"], value, dtype.itemsize)
        elif type(sent) is list and {int}.issuperset(map(type, sent)) and all(length >= 0 for length in sent):
            shape = tuple(sent)
        else:
            raise self._error("shape", "shape_list", value)
        try:
            self._check_shape(shape)
        except ValidationError as error:
            raise (ValidationError({"shape": error.messages}) if "shape" in envelope else error) from None
        return shape

    def _shape_of_size(self, encoded: str, value: Any, itemsize: int) -> Shape:
        """Return the shape with its variable length computed from the number of bytes."""
        if self.shape.count(None) > 1:
            raise self._error("shape", "shape_needed", value)
        size = decoded_size(encoded)
        step = itemsize * prod(length or 1 for length in self.shape)
        if size is None or size % step:
            raise self._error("b64", "size", value)
        return tuple(length or size // step for length in self.shape)

    def _error(self, member: str, key: str, value: Any) -> ValidationError:
        """Return an error at a member of the object, or at the field if its value is a string."""
        error = self.make_error(key)
        return ValidationError({member: error.messages}) if type(value) is dict else error


def encoded_length(size: int) -> int:
    """Return the number of base64 characters for a number of bytes."""
    return (size + 2) // 3 * 4


def decoded_size(encoded: str) -> int | None:
    """Return the decoded size, from length and padding alone; None if the string is not base64."""
    padding = len(encoded[-2:]) - len(encoded[-2:].rstrip("="))
    return None if len(encoded) % 4 else len(encoded) // 4 * 3 - padding


def decode(encoded: str) -> bytes:
    """Return the decoded bytes.

    :raises ValueError: there are characters outside the alphabet (including white space), too little or too much
        padding, or nonzero padding bits. The message does not quote the value.
    """
    try:
        data = a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise ValueError("not base64") from None
    rest = len(data) % 3
    if len(encoded) != encoded_length(len(data)) or (rest and encoded[-4:] != b64encode(data[-rest:]).decode()):
        raise ValueError("not canonical base64")
    return data
