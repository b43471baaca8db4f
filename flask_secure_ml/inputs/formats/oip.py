"""Inference requests of the Open Inference Protocol, version 2, as KServe, Triton and MLServer accept them.

Each input fills the field of its name. The binary extension is supported: the bytes of inputs follow the JSON, whose
length is in the header ``Inference-Header-Content-Length``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flask import Request
from marshmallow import Schema, ValidationError, fields

from ...errors import MalformedRequest, PayloadTooLarge
from ..body_stream import Caps, whole_number
from ..fields.arrays import ArrayField
from ..loading import Loader
from ..problems import validation_failed
from . import Decoded, check_charset, field_of
from .json import JSON, check_structure, parse_json
from .oip_data import Binary, InferenceRequest, tensor_of

LENGTH_HEADER = "Inference-Header-Content-Length"
OCTETS = "application/octet-stream"
# The object of a requested output, its name, and some parameters.
_PER_OUTPUT = 4


class OipFormat:
    """Inference requests in JSON, or in JSON and binary.

    :param plain_json: accept JSON that is not an inference request as the format ``json``.

    JSON is an inference request when the first of its ``inputs`` is an object, and either has a ``datatype``, or the
    schema has no field ``inputs``. Without ``plain_json`` it must be one.
    """

    name = "oip"
    media_types: tuple[str, ...] = (JSON, OCTETS)

    def __init__(self, caps: Caps, *, plain_json: bool = False) -> None:
        self._caps = caps
        self._plain_json = plain_json
        self._form = Loader(InferenceRequest())

    def fits(self, schema: Schema) -> bool:
        """Return True if the schema is of one object."""
        return self._plain_json or not schema.many

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the inputs by name: arrays for fields that accept one, otherwise lists, or the single value in them.

        The options are ``id`` and ``outputs``, the names of the requested outputs, where the request has them.

        :raises MalformedRequest: 400, the JSON is not strict, or does not fit the header or the binary data.
        :raises PayloadTooLarge: 413, more of something than the limits allow, or the schema accepts.
        :raises ValidationFailed: 422, the request does not follow the protocol.
        """
        check_charset(request, JSON)
        length = _json_length(request, len(body))
        raw = body if length is None else body[:length]
        check_structure(raw, schema, _PER_OUTPUT * self._caps.max_members)
        document = parse_json(raw, self._caps)
        if length is None and self._plain_json and not _is_inference(document, schema):
            return Decoded(document, "json")
        self._check_counts(document)
        inference = self._form.load(document)
        binary = None if length is None else Binary(body, length)
        value = dict(self._inputs(inference["inputs"], schema, binary))
        if binary is not None and not binary.is_used_up:
            raise MalformedRequest("the binary data is longer than all inputs")
        return Decoded(value, self.name, _options(inference))

    def _check_counts(self, document: Any) -> None:
        """Limit inputs and outputs by the number of members: each costs more than a number."""
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
        """Return a tensor as its field accepts it: its single value where neither an array nor a list is expected."""
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
    """Return how many bytes of the body are JSON; None without the header, when all of them are."""
    value = request.headers.get(LENGTH_HEADER)
    if value is None:
        if request.mimetype == OCTETS:
            raise MalformedRequest(f"{LENGTH_HEADER} is missing")
        return None
    length = whole_number(value)
    if length is None or length > size:
        raise MalformedRequest(f"{LENGTH_HEADER} is not a number, or more than the body has")
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
