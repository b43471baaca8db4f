"""JSON bodies; for models usually ``{"instances": [...]}``, as TensorFlow Serving and KServe v1 write them."""

from __future__ import annotations

from typing import Any

from flask import Request
from marshmallow import Schema

from .. import strictjson
from ..errors import MalformedRequest, PayloadTooLarge
from .caps import Caps
from .formats import Decoded, check_charset
from .json_structure import check_structure

JSON = "application/json"


def parse_json(body: bytes, caps: Caps) -> Any:
    """Return the value of a body of strict JSON.

    :raises MalformedRequest: 400, it is not strict, or nests too deep.
    :raises PayloadTooLarge: 413, it has too many values or members, or too long a text.
    """
    try:
        return strictjson.loads(
            body,
            max_depth=caps.max_depth,
            max_members=caps.max_members,
            max_text=caps.max_text,
            max_elements=caps.max_elements,
        )
    except strictjson.TooLargeError as error:
        raise PayloadTooLarge(f"the JSON of the body is too large: {error}") from None
    except strictjson.StrictJSONError as error:
        raise MalformedRequest(f"the body is not strict JSON: {error}") from None


class JsonFormat:
    """Strict JSON (RFC 8259 and RFC 7493), for every schema."""

    name = "json"
    media_types = (JSON,)

    def __init__(self, caps: Caps) -> None:
        self._caps = caps

    def fits(self, schema: Schema) -> bool:
        """Tell that JSON has whatever a schema needs."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body; see :func:`parse_json` and :func:`check_structure` for what is refused."""
        check_charset(request, JSON)
        check_structure(body, schema)
        return Decoded(parse_json(body, self._caps), self.name)
