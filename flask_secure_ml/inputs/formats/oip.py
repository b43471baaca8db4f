"""Inference requests of the Open Inference Protocol, version 2, as KServe, Triton and MLServer accept them.

Each input is loaded by the field of its name. The binary extension is supported: the bytes of inputs follow the JSON,
whose length is in the header ``Inference-Header-Content-Length``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from flask import Request
from marshmallow import Schema, ValidationError, fields, validate
from numpy.typing import NDArray

from ...errors import MalformedRequest, PayloadTooLarge
from ..body_stream import Caps, whole_number
from ..fields import AnyField
from ..fields.arrays import ArrayField
from ..loading import Loader
from ..problems import validation_failed
from . import Decoded, check_charset, field_of
from .json import JSON, check_structure, parse_json

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{
        f"{prefix}INT{bits}": np.dtype(f"{prefix}int{bits}".lower()) for prefix in ("", "U") for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
"""The dtype of each numeric datatype; binary data is little-endian."""

BYTES = "BYTES"
_MAX_DIMENSIONS = 32


class _Lengths(AnyField):
    """A shape. A List of Integers would load every item, even of a list with a million lengths."""

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
    """An inference request; optional members may be null, because some clients send every member."""

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
    """The bytes after the JSON of a request: the concatenated data of the binary inputs."""

    def __init__(self, body: bytes, start: int) -> None:
        self.body = body
        self._next = start

    @property
    def is_used_up(self) -> bool:
        """True if all bytes were assigned to an input."""
        return self._next == len(self.body)

    def take(self, size: int) -> int:
        """Return the position of the next bytes, and advance by their number.

        :raises ValidationError: there are not enough bytes.
        """
        if size > len(self.body) - self._next:
            raise _wrong("parameters", "There is less binary data.")
        start, self._next = self._next, self._next + size
        return start


def tensor_of(tensor: Mapping[str, Any], caps: Caps, binary: Binary | None) -> Any:
    """Return the data of an input: an array, or nested lists of strings.

    :param tensor: an input of :class:`InferenceRequest`.
    :raises ValidationError: the data is missing, present twice, or does not match shape and datatype.
    :raises PayloadTooLarge: the declared shape is over a limit.
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
    """Return the items of a flat list, or of lists that are nested exactly as in shape."""
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
    # The field rejects numbers that become infinite here.
    with np.errstate(over="ignore"):
        return found.astype(dtype, copy=False)


def _strings(body: bytes, start: int, size: int, count: int, caps: Caps) -> list[str]:
    """Return the strings of binary data, in which each is preceded by its length in four bytes.

    :raises ValidationError: the strings do not fill the data exactly, or are not UTF-8.
    :raises PayloadTooLarge: a string is too long.
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
    """Return the items as lists nested as in shape; the single item itself if shape has no dimensions."""
    level = flat
    for length in reversed(shape):
        level = [level[start : start + length] for start in range(0, len(level), length)] if length else []
    return level[0] if level else []


LENGTH_HEADER = "Inference-Header-Content-Length"
OCTETS = "application/octet-stream"
# The cost of a requested output: the object, its name, and some parameters.
_PER_OUTPUT = 4


class OipFormat:
    """Inference requests in JSON, or in JSON with binary data.

    :param plain_json: treat JSON that is not an inference request as the format ``json``.

    JSON is an inference request if the first of its ``inputs`` is an object, and this object has a ``datatype`` or the
    schema has no field ``inputs``. Without ``plain_json``, the body must be an inference request.
    """

    name = "oip"
    media_types: tuple[str, ...] = (JSON, OCTETS)

    def __init__(self, caps: Caps, *, plain_json: bool = False) -> None:
        self._caps = caps
        self.plain_json = plain_json
        self._form = Loader(InferenceRequest())

    def fits(self, schema: Schema) -> bool:
        """Return True if the schema is for a single object."""
        return self.plain_json or not schema.many

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the inputs by name: arrays for fields that accept them, otherwise lists or single values.

        The options are ``id`` and ``outputs``, the names of the requested outputs, if the request has them.

        :raises MalformedRequest: 400, the JSON is not strict, or does not match the header or the binary data.
        :raises PayloadTooLarge: 413, it exceeds a limit, or has more values than the schema accepts.
        :raises ValidationFailed: 422, the request does not follow the protocol.
        """
        check_charset(request, JSON)
        length = _json_length(request, len(body))
        raw = body if length is None else body[:length]
        check_structure(raw, schema, _PER_OUTPUT * self._caps.max_members)
        document = parse_json(raw, self._caps)
        if length is None and self.plain_json and not _is_inference(document, schema):
            return Decoded(document, "json")
        self._check_counts(document)
        inference = self._form.load(document)
        binary = None if length is None else Binary(body, length)
        value = dict(self._inputs(inference["inputs"], schema, binary))
        if binary is not None and not binary.is_used_up:
            raise MalformedRequest("the binary data is longer than the inputs declare")
        return Decoded(value, self.name, _options(inference))

    def _check_counts(self, document: Any) -> None:
        """Limit the number of inputs and outputs by ``max_members``, because each costs more than a number."""
        lists = [document.get(name) for name in ("inputs", "outputs")] if type(document) is dict else []
        if any(type(each) is list and len(each) > self._caps.max_members for each in lists):
            raise PayloadTooLarge(f"there are more than {self._caps.max_members} inputs or outputs")

    def _inputs(self, inputs: list[Any], schema: Schema, binary: Binary | None) -> Iterator[tuple[str, Any]]:
        names: set[str] = set()
        for number, each in enumerate(inputs):
            name = each["name"]
            if name in names:
                raise _at(number, {"name": ["There is another input of this name."]})
            names.add(name)
            try:
                value = tensor_of(each, self._caps, binary)
            except ValidationError as error:
                raise _at(number, error.messages) from None
            yield name, self._fitting(value, field_of(schema, name))

    def _fitting(self, value: Any, field: Any) -> Any:
        """Return a tensor in the form that its field accepts: array, lists, or its single value."""
        if field is None or (isinstance(field, ArrayField) and field.shape):
            return value
        if isinstance(value, np.ndarray):
            self._caps.check_lists(value.shape)
            value = value.tolist()
        while type(value) is list and len(value) == 1 and not isinstance(field, fields.List):
            (value,) = value
        return value


def _at(number: int, messages: Any) -> Exception:
    return validation_failed(ValidationError({"inputs": {number: messages}}))


def _json_length(request: Request, size: int) -> int | None:
    """Return the length of the JSON in bytes; None without the header, when the whole body is JSON."""
    value = request.headers.get(LENGTH_HEADER)
    if value is None:
        if request.mimetype == OCTETS:
            raise MalformedRequest(f"{LENGTH_HEADER} is missing")
        return None
    length = whole_number(value)
    if length is None or length > size:
        raise MalformedRequest(f"{LENGTH_HEADER} is not a number, or is larger than the body")
    return length


def _is_inference(document: Any, schema: Schema) -> bool:
    inputs = document.get("inputs") if type(document) is dict else None
    if type(inputs) is not list or not inputs or type(inputs[0]) is not dict:
        return False
    return not schema.many and ("datatype" in inputs[0] or field_of(schema, "inputs") is None)


def _options(inference: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if inference.get("id") is not None:
        options["id"] = inference["id"]
    if inference.get("outputs"):
        options["outputs"] = tuple(each["name"] for each in inference["outputs"])
    return options
