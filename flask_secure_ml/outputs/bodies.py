"""Response bodies: the mark on checked bodies, and masking of all others.

The mark is on the list that holds the body, so code that sets, appends to, compresses or streams the body removes it.
The mark contains the policy and the score options of the body, so a cached response for another caller does not pass
either.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import orjson
from flask import Response
from werkzeug.sansio.response import Response as AnyResponse

from ..errors import InternalError
from ..npy import NPY
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from .formats import JSON, read_npy, write_npy
from .scores import Array, MaskingError, has_non_finite, names_null

NOT_FINITE = "the response has NaN or Infinity"

_ZERO, _POINT = b"0."
_NOT_MODIFIED = 304
# Headers of the unmasked body, against which a client could check guesses.
_OF_THE_BODY = ("ETag", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Last-Modified")


class CheckedBody(list[bytes]):
    """The body of a response that was checked against a policy.

    :param chunk: the whole body.
    :param policy: the policy; None for a problem document of this package, which passes every policy.
    :param options: the score options that were applied.
    :param acceptable: ``Accept`` allows the format of the body.
    """

    __slots__ = ("_chunk", "_options", "_policy", "acceptable")

    def __init__(self, chunk: bytes, policy: Policy | None, options: ScoreOptions, *, acceptable: bool) -> None:
        super().__init__([chunk])
        self.acceptable: bool = acceptable
        self._chunk = chunk
        self._policy = policy
        self._options = options

    def meets(self, policy: Policy, options: Callable[[], ScoreOptions]) -> bool:
        """Return True if the body is unchanged and was checked for this policy and these options."""
        if self != [self._chunk]:
            return False
        if self._policy is None:
            return True
        current = options()
        return self._policy is policy and (self._options is current or self._options == current)


def mark_checked(
    response: AnyResponse,
    policy: Policy | None = None,
    options: ScoreOptions = NO_SCORE_OPTIONS,
    *,
    acceptable: bool = True,
) -> None:
    """Mark the body of a response as checked, unless it is a stream, a file or in several pieces.

    Without a policy, the response is a problem document of this package.
    """
    chunk = sole_chunk(response)
    if chunk is not None:
        response.response = CheckedBody(chunk, policy, options, acceptable=acceptable)  # type: ignore[attr-defined]


def sole_chunk(response: AnyResponse) -> bytes | None:
    """Return the whole body; None for a stream, a file or a body in several pieces."""
    chunks: Any = getattr(response, "response", None)
    # Only bytes are immutable, so that the body cannot change after the check.
    is_sole = type(chunks) in (list, CheckedBody) and len(chunks) == 1 and type(chunks[0]) is bytes
    return chunks[0] if is_sole else None


def rewrite(response: Response, mask: Callable[[Any], Any], options: ScoreOptions) -> None:
    """Mask the body of a response in place, and remove headers that describe the unmasked body.

    An empty body is left as it is.

    :param mask: returns the masked form of the body's value.
    :raises MaskingError: the body is a stream, a file or encoded, its media type cannot be read, or it does not match
        its media type; or the view evaluated a condition of the client on the unmasked body (304).
    """
    if response.status_code == _NOT_MODIFIED:
        raise MaskingError("the view evaluated a condition of the client on the unmasked response")
    for name in _OF_THE_BODY:
        response.headers.pop(name, None)
    if response.is_streamed or response.direct_passthrough or "Content-Encoding" in response.headers:
        raise MaskingError("a stream, a file or an encoded body cannot be masked")
    body = response.get_data()
    if not body:
        return
    if is_json(response):
        found = write_json(mask(read_json(body, allow_nan=options.allows_nan)), allow_nan=options.allows_nan)
    elif response.mimetype == NPY:
        found = npy_body(np.asarray(mask(read_npy(body))), allow_nan=options.allows_nan)
    else:
        raise MaskingError("the media type of the response cannot be masked")
    response.set_data(found)


def npy_body(array: Array, *, allow_nan: bool) -> bytes:
    """Return an array as an npy file.

    :raises InternalError: it has NaN or Infinity, and they are not allowed.
    """
    if not allow_nan and array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise InternalError(NOT_FINITE)
    return write_npy(array)


def is_json(response: Response) -> bool:
    """Return True if the media type is JSON or has the suffix ``+json`` (RFC 6839 section 3.1)."""
    mimetype = response.mimetype or ""
    return mimetype == JSON or mimetype.endswith("+json")


def could_name_nan(response: Response) -> bool:
    """Return True if a JSON body may contain NaN or Infinity, without parsing it."""
    body = sole_chunk(response)
    if body is None:
        body = b"" if response.is_streamed or response.direct_passthrough else response.get_data()
    return names_constant(body) and is_json(response)


def names_constant(body: bytes) -> bool:
    """Return True if a body contains the name of NaN or Infinity, possibly inside a string."""
    # Searching for one letter is many times faster than for a word.
    return (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body)


def has_constant(body: str | bytes) -> bool:
    """Return True if JSON written by :mod:`json` has NaN or Infinity as a number."""
    try:
        json.loads(body, parse_constant=_raise_constant)
    except _Constant:
        return True
    return False


def read_json(body: bytes, *, allow_nan: bool) -> Any:
    """Parse a response; integers of any size are exact.

    :raises MaskingError: it is not JSON, or has NaN or Infinity while these are not allowed.
    """
    try:
        if not allow_nan and not _has_long_integer(body):
            return orjson.loads(body)
        return json.loads(body, parse_constant=None if allow_nan else _raise_constant)
    except (ValueError, RecursionError, _Constant) as error:
        raise MaskingError(f"the response is not JSON, or has NaN or Infinity: {type(error).__name__}") from None


def write_json(value: Any, *, allow_nan: bool) -> bytes:
    """Serialize a value from :func:`read_json`, in which masking may have replaced lists by arrays.

    :raises MaskingError: it has NaN or Infinity while these are not allowed.
    """
    try:
        body = orjson.dumps(value, default=_as_lists, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits.
        return _write_long(value)
    if not allow_nan and names_null(body) and has_non_finite(value, _as_lists):
        raise MaskingError(NOT_FINITE)
    return body


def _write_long(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_as_lists, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise MaskingError(NOT_FINITE) from None


def _has_long_integer(body: bytes) -> bool:
    """Return True if 20 digits in a row, which may exceed 64 bits, occur anywhere except in a fraction."""
    codes = np.frombuffer(body, np.uint8)
    digits = run = (codes - np.uint8(_ZERO)) < 10  # noqa: PLR2004 - what is below the digits wraps around
    for step in (1, 2, 4, 8, 4):
        run = run[step:] & run[:-step]
    starts = np.flatnonzero(run)
    before = starts - 1
    return bool(((starts == 0) | ~(digits[before] | (codes[before] == _POINT))).any())


class _Constant(Exception):
    """JSON has NaN or Infinity."""


def _raise_constant(_name: str) -> NoReturn:
    raise _Constant


def _as_lists(array: Any) -> Any:
    return array.tolist()
