"""JSON bodies, usually ``{"instances": [...]}`` as in TensorFlow Serving and KServe v1."""

from __future__ import annotations

from typing import Any

import numpy as np
from flask import Request
from marshmallow import RAISE, Schema

from ... import strictjson
from ...errors import MalformedRequest, PayloadTooLarge
from ..body_stream import Caps
from ..fields.tensor import Tensor
from ..marshmallow_internals import has_hook, has_pre_load
from . import Decoded, check_charset

JSON = "application/json"


def parse_json(body: bytes, caps: Caps) -> Any:
    """Return the value of a body of strict JSON.

    :raises MalformedRequest: 400, it is not strict JSON, or nests too deep.
    :raises PayloadTooLarge: 413, it has too many values or members, or a string that is too long.
    """
    try:
        return strictjson.loads(
            body,
            max_depth=caps.max_depth,
            max_members=caps.max_members,
            max_string=caps.max_string,
            max_elements=caps.max_elements,
        )
    except strictjson.TooLargeError as error:
        raise PayloadTooLarge(f"the JSON of the body is too large: {error}") from None
    except strictjson.StrictJSONError as error:
        raise MalformedRequest(f"the body is not strict JSON: {error}") from None


class JsonFormat:
    """Strict JSON (RFC 8259 and RFC 7493), for every schema."""

    name = "json"
    media_types: tuple[str, ...] = (JSON,)
    plain_json = True

    def __init__(self, caps: Caps) -> None:
        self._caps = caps

    def fits(self, schema: Schema) -> bool:
        """Return True: every schema can be loaded from JSON."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body; see :func:`parse_json` and :func:`check_structure` for errors."""
        check_charset(request, JSON)
        check_structure(body, schema)
        return Decoded(parse_json(body, self._caps), self.name)


# Smaller bodies are not checked, because their cost is limited by their size.
_SMALL = 65_536
# A block and its intermediate results fit into the processor's cache.
_BLOCK = 65_536
# This many extra lists and objects are loaded, so that the client gets errors with positions. Names of fields may also
# contain brackets.
_FREE = 1_000
_OPEN = ord("{")
# Sets the one bit in which "[" differs from "{".
_BRACKETS_TO_BRACES = np.uint8(0x20)


def check_structure(body: bytes, schema: Schema, spare: int = _FREE) -> None:
    """Reject a body with more lists and objects than any valid body for the schema has.

    Small bodies are not checked. Neither are schemas that have fields other than tensors, accept unknown members, or
    have a hook that may change the input.

    :param spare: the number of lists and objects that are allowed in addition to those of the tensors.
    :raises PayloadTooLarge: 413, there are too many lists and objects.
    """
    if len(body) < _SMALL or not _is_plain(schema):
        return
    # One is the object with the fields.
    lists = 1 + spare + sum(most_lists(field, len(body)) for field in schema.load_fields.values())
    codes = np.frombuffer(body, np.uint8)
    blocks = (codes[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK))
    # Brackets in strings also count: such a schema accepts no strings.
    if sum(int(np.count_nonzero(block | _BRACKETS_TO_BRACES == _OPEN)) for block in blocks) > lists:
        raise PayloadTooLarge("the JSON has more lists and objects than tensors in as many bytes can have")


def _is_plain(schema: Schema) -> bool:
    return (
        not schema.many
        and schema.unknown == RAISE
        and not has_hook(schema, "pre_load")
        and all(type(each) is Tensor and not has_pre_load(each) for each in schema.load_fields.values())
    )


def most_lists(field: Any, size: int) -> int:
    """Return the maximum number of lists that a tensor can have in a body of this size."""
    *outer, length = field.shape
    width = length or 1
    # Two brackets, and a comma after each number but the last.
    rows: int = min(size // (2 * width + 1), field.max_elements // width)
    return 1 + len(outer) * rows
