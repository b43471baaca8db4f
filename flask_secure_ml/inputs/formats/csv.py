"""Tables of numbers as ``text/csv`` (RFC 4180), for a schema's one tensor field.

Numbers have the syntax of JSON. Replacing line breaks by commas makes the table a JSON array, which the JSON parser
reads without a Python call per number. Only characters of numbers are accepted, which excludes NaN, Infinity,
hexadecimal digits, underscores, white space and quotation marks.
"""

from __future__ import annotations

import csv
from array import array
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from flask import Request
from marshmallow import Schema, ValidationError
from numpy.typing import NDArray

from ...errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from ..body_stream import Caps
from ..feature_names import order_of
from ..problems import MAX_ERRORS, validation_failed
from . import Decoded, check_charset, single_tensor

CSV = "text/csv"
_CHARSETS = frozenset({"utf-8", "us-ascii"})
_OF_NUMBERS = b"0123456789+-.eE"
_NEWLINE = ord("\n")
_ITEM_BYTES = 8


class CsvFormat:
    """A table of numbers with one row per line, ended by CR LF or LF; all rows have the same length.

    The parameter ``header`` of the media type declares whether the first line has names (``present``) or numbers
    (``absent``, the default); this is never guessed from the line. There must be as many names as columns. If the
    tensor has feature names, columns are matched by name. Otherwise names must differ, and columns keep their order.

    A table without fractions and exponents contains integers, any other table floats. For a one-dimensional tensor, the
    table must have one column.
    """

    name = "csv"
    media_types: tuple[str, ...] = (CSV,)

    def __init__(self, caps: Caps) -> None:
        self._caps = caps

    def fits(self, schema: Schema) -> bool:
        """Return True if the schema has exactly one tensor field."""
        return single_tensor(schema) is not None

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the table under the name of the tensor field.

        :raises MalformedRequest: 400, a number, name or line is malformed.
        :raises PayloadTooLarge: 413, there are more numbers than the limits allow.
        :raises UnsupportedMediaType: 415, the charset or the value of ``header`` is not supported.
        :raises ValidationFailed: 422, lines have different lengths, or names do not match the features.
        """
        check_charset(request, CSV, _CHARSETS)
        key, tensor = single_tensor(schema) or ("", None)
        line, rows = _split(body, request)
        widths = self._widths(rows)
        try:
            order = None if line is None else self._order(line, widths[0], () if tensor is None else tensor.features)
            _check_widths(widths)
        except ValidationError as error:
            raise validation_failed(ValidationError({key: error.messages})) from None
        table = _numbers(rows).reshape(len(widths), -1)
        if order is not None:
            table = table.take(order, axis=1)
        is_flat = tensor is not None and len(tensor.shape) == 1 and table.shape[1] == 1
        return Decoded({key: table.ravel() if is_flat else table}, self.name)

    def _order(self, line: bytes, width: int, features: Sequence[str]) -> list[int] | None:
        """Return the position of the column of each feature; None if columns keep their order."""
        names = self._names(line)
        if len(names) != width:
            raise MalformedRequest("the header and the first row of the table have different numbers of columns")
        if features:
            return order_of(names, features)
        if len(set(names)) != len(names):
            raise MalformedRequest("the header of the table has a duplicate name")
        return None

    def _widths(self, rows: bytes) -> NDArray[np.intp]:
        """Return the number of fields in each line, by counting the separators."""
        separators = rows.translate(None, _OF_NUMBERS)
        size = len(separators) + 1
        if size > self._caps.max_elements:
            raise PayloadTooLarge(f"the table has more than {self._caps.max_elements} numbers")
        self._caps.check_declared((size,), _ITEM_BYTES)
        if foreign := separators.strip(b",\n")[:1]:
            raise _not_a_number(rows, rows.find(foreign))
        ends = np.flatnonzero(np.frombuffer(separators, np.uint8) == _NEWLINE)
        return np.diff(ends, prepend=-1, append=len(separators))

    def _names(self, line: bytes) -> list[str]:
        if len(line) > self._caps.max_string:
            raise PayloadTooLarge(f"the header of the table has more than {self._caps.max_string} bytes")
        try:
            (names,) = csv.reader([line.decode()], strict=True)
        except (ValueError, csv.Error):
            raise MalformedRequest("the header of the table is not one line of CSV in UTF-8") from None
        return names


def _split(body: bytes, request: Request) -> tuple[bytes | None, bytes]:
    """Return the header line, if any, and the rows: lines that end in LF, except for the last."""
    header = request.mimetype_params.get("header", "absent").lower()
    if header not in ("absent", "present"):
        raise UnsupportedMediaType(
            'the parameter header of text/csv must be "present" or "absent"', headers=[("Accept", CSV)]
        )
    lines = (body.replace(b"\r\n", b"\n") if b"\r" in body else body).removesuffix(b"\n")
    if header == "absent":
        return None, lines
    line, _, rest = lines.partition(b"\n")
    if line.startswith(BOM_UTF8):
        raise MalformedRequest("the table begins with a byte order mark")
    return line, rest


def _check_widths(widths: NDArray[np.intp]) -> None:
    rows = np.flatnonzero(widths != widths[0])[:MAX_ERRORS].tolist()
    if rows:
        raise ValidationError({row: ["Must have as many fields as the first row."] for row in rows})


def _not_a_number(rows: bytes, position: int) -> MalformedRequest:
    row = rows.count(b"\n", 0, max(position, 0)) + 1
    return MalformedRequest(f"row {row} of the table contains a value that is not a number")


def _numbers(rows: bytes) -> NDArray[Any]:
    try:
        numbers = orjson.loads(b"[" + rows.replace(b"\n", b",") + b"]")
    except orjson.JSONDecodeError as error:
        # The position includes the bracket before the rows.
        raise _not_a_number(rows, error.pos - 1) from None
    if not numbers:
        raise MalformedRequest("the table has no numbers")
    # Integers may exceed the first type; beyond the second, the parser returns floats.
    for code in () if any(mark in rows for mark in (b".", b"e", b"E")) else ("q", "Q"):
        with suppress(OverflowError, TypeError):
            return np.asarray(array(code, numbers))
    return np.asarray(array("d", numbers))
