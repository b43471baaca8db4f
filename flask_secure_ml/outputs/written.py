"""Bodies that a view wrote itself: read again, so that what is said of answers holds for them too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from flask import Response

from ..output_terms import OutputTerms
from .answers import npy_body
from .finite import has_non_finite, names_null
from .npy import NPY, read_npy
from .provider import JSON, NOT_FINITE
from .scores import ShapingError

_ZERO, _POINT = b"0."
_NOT_MODIFIED = 304
# What a client could take for the unshaped body, or try guesses of it against.
_OF_THE_BODY = ("ETag", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Last-Modified")


def rewrite(response: Response, shape: Callable[[Any], Any], terms: OutputTerms) -> None:
    """Shape the body of a response in place. An empty body stays, but for what its headers say of another one.

    :raises ShapingError: the body is a stream, a file, encoded, of a media type that cannot be read, or not what its
        media type says; or it was compared with what the client has before it was shaped.
    """
    if response.status_code == _NOT_MODIFIED:
        raise ShapingError("the view compared an answer that was not shaped with a guess of the client")
    for name in _OF_THE_BODY:
        response.headers.pop(name, None)
    if response.is_streamed or response.direct_passthrough or "Content-Encoding" in response.headers:
        raise ShapingError("a stream, a file or an encoded body cannot be shaped")
    body = response.get_data()
    if not body:
        return
    if is_json(response):
        found = write_json(shape(read_json(body, allow_nan=terms.allows_nan)), allow_nan=terms.allows_nan)
    elif response.mimetype == NPY:
        found = npy_body(np.asarray(shape(read_npy(body))), allow_nan=terms.allows_nan)
    else:
        raise ShapingError("the media type of the answer cannot be shaped")
    response.set_data(found)


def is_json(response: Response) -> bool:
    """Say whether the media type is JSON, or one that is written as JSON (RFC 6839 section 3.1)."""
    mimetype = response.mimetype or ""
    return mimetype == JSON or mimetype.endswith("+json")


def read_json(body: bytes, *, allow_nan: bool) -> Any:
    """Parse an answer; integers of any size keep their digits.

    :raises ShapingError: it is not JSON, or has NaN or Infinity, and they are not allowed.
    """
    try:
        if not allow_nan and not _has_long_integer(body):
            return orjson.loads(body)
        return json.loads(body, parse_constant=None if allow_nan else _refused)
    except (ValueError, RecursionError) as error:
        raise ShapingError(f"the answer is not JSON, or has NaN or Infinity: {type(error).__name__}") from None


def write_json(value: Any, *, allow_nan: bool) -> bytes:
    """Write what was read, and arrays in it.

    :raises ShapingError: it has NaN or Infinity, and they are not allowed.
    """
    try:
        body = orjson.dumps(value, default=_listed, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits.
        return _write_long(value)
    if not allow_nan and names_null(body) and has_non_finite(value, _listed):
        raise ShapingError(NOT_FINITE)
    return body


def _write_long(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_listed, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise ShapingError(NOT_FINITE) from None


def _has_long_integer(body: bytes) -> bool:
    """Say whether 20 digits in a row, which 64 bits may not hold, stand elsewhere than behind a point."""
    text = np.frombuffer(body, np.uint8)
    digits = run = (text - np.uint8(_ZERO)) < 10  # noqa: PLR2004 - what is below the digits wraps around
    for step in (1, 2, 4, 8, 4):
        run = run[step:] & run[:-step]
    starts = np.flatnonzero(run)
    before = starts - 1
    return bool(((starts == 0) | ~(digits[before] | (text[before] == _POINT))).any())


def _refused(name: str) -> Any:
    raise ValueError(name)


def _listed(array: Any) -> Any:
    return array.tolist()
