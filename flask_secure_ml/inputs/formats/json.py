"""JSON bodies; for models usually ``{"instances": [...]}``, as TensorFlow Serving and KServe v1 write them."""

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

    :raises MalformedRequest: 400, it is not strict, or nests too deep.
    :raises PayloadTooLarge: 413, it has too many values or members, or too long a string.
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
        """Return True: JSON has whatever a schema needs."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body; see :func:`parse_json` and :func:`check_structure` for what is rejected."""
        check_charset(request, JSON)
        check_structure(body, schema)
        return Decoded(parse_json(body, self._caps), self.name)


# In fewer bytes there cannot be enough of anything to matter.
_SMALL = 65_536
# A block and its intermediate results stay in the processor's cache.
_BLOCK = 65_536
# So many lists and objects are loaded anyway, so that their errors have positions. Names of fields may have brackets
# too.
_FREE = 1_000
_OPEN = ord("{")
# Sets the one bit in which "[" differs from "{".
_BRACKETS_TO_BRACES = np.uint8(0x20)


def check_structure(body: bytes, schema: Schema, spare: int = _FREE) -> None:
    """Reject a body with more lists and objects than the schema accepts in any body.

    A small body is not counted, nor a body for a schema with any field but tensors, with unknown members, or with a
    hook that may change what was sent.

    :param spare: how many lists and objects there may be in addition to those of the tensors.
    :raises PayloadTooLarge: 413.
    """
    if len(body) < _SMALL or not _is_plain(schema):
        return
    # One is the object that has the fields.
    lists = 1 + spare + sum(most_lists(field, len(body)) for field in schema.load_fields.values())
    codes = np.frombuffer(body, np.uint8)
    blocks = (codes[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK))
    # A bracket in a string counts too: such a schema accepts no strings.
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
    """Return the most lists that an array for a tensor can have in as many bytes."""
    *outer, length = field.shape
    width = length or 1
    # Two brackets, and a comma behind each number but the last.
    rows: int = min(size // (2 * width + 1), field.max_elements // width)
    return 1 + len(outer) * rows
