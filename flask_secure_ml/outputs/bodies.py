"""Response bodies: the mark of those that may leave as they are, and how the others are read and written again.

The mark is on the list that holds the body, so it disappears with it: whoever sets, appends, compresses or streams
another body removes the mark. It says for which policy and options the body was made, so a response that was made for
another caller and cached does not pass either.
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
# What a client could take for the unmasked body, or check guesses of it against.
_OF_THE_BODY = ("ETag", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Last-Modified")


class CheckedBody(list[bytes]):
    """The body of a response that meets the rules of a policy.

    :param chunk: the whole body.
    :param policy: the policy that it was made for; None for a problem document of ours, which meets every policy.
    :param options: the score options that were applied.
    :param acceptable: whether ``Accept`` allows its format.
    """

    __slots__ = ("_chunk", "_options", "_policy", "acceptable")

    def __init__(self, chunk: bytes, policy: Policy | None, options: ScoreOptions, *, acceptable: bool) -> None:
        super().__init__([chunk])
        self.acceptable: bool = acceptable
        self._chunk = chunk
        self._policy = policy
        self._options = options

    def meets(self, policy: Policy, options: Callable[[], ScoreOptions]) -> bool:
        """Return True if the body is still what was checked, and was checked for this policy and these options."""
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
    """Mark the body of a response as checked; a stream, a file and a body in several pieces get no mark.

    Without a policy, the response is a problem document of ours.
    """
    chunk = sole_chunk(response)
    if chunk is not None:
        response.response = CheckedBody(chunk, policy, options, acceptable=acceptable)  # type: ignore[attr-defined]


def sole_chunk(response: AnyResponse) -> bytes | None:
    """Return the bytes that are the whole body; None for a stream, a file and a body in several pieces."""
    chunks: Any = getattr(response, "response", None)
    # Bytes only: they cannot change after they were checked.
    is_sole = type(chunks) in (list, CheckedBody) and len(chunks) == 1 and type(chunks[0]) is bytes
    return chunks[0] if is_sole else None


def rewrite(response: Response, mask: Callable[[Any], Any], options: ScoreOptions) -> None:
    """Mask the body of a response in place. An empty body stays; the headers that describe another one do not.

    :param mask: returns the masked value for the value of the body.
    :raises MaskingError: the body is a stream, a file, encoded, of a media type that cannot be read, or not what its
        media type says; or the view compared it with what the client has before it was masked.
    """
    if response.status_code == _NOT_MODIFIED:
        raise MaskingError("the view compared a response that was not masked with a validator of the client")
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
    """Return True for the media type of JSON, and for one with the suffix ``+json`` (RFC 6839 section 3.1)."""
    mimetype = response.mimetype or ""
    return mimetype == JSON or mimetype.endswith("+json")


def could_name_nan(response: Response) -> bool:
    """Return True if a JSON body could have NaN or Infinity, found without parsing it."""
    body = sole_chunk(response)
    if body is None:
        body = b"" if response.is_streamed or response.direct_passthrough else response.get_data()
    return names_constant(body) and is_json(response)


def names_constant(body: bytes) -> bool:
    """Return True if the names of NaN or Infinity are in a body, perhaps inside a string."""
    # One letter is found at many times the speed of a word.
    return (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body)


def has_constant(body: str | bytes) -> bool:
    """Return True if JSON as :mod:`json` writes it has NaN or Infinity as a number."""
    try:
        json.loads(body, parse_constant=_raise_constant)
    except _Constant:
        return True
    return False


def read_json(body: bytes, *, allow_nan: bool) -> Any:
    """Parse a response; integers of any size keep their digits.

    :raises MaskingError: it is not JSON, or has NaN or Infinity, and they are not allowed.
    """
    try:
        if not allow_nan and not _has_long_integer(body):
            return orjson.loads(body)
        return json.loads(body, parse_constant=None if allow_nan else _raise_constant)
    except (ValueError, RecursionError, _Constant) as error:
        raise MaskingError(f"the response is not JSON, or has NaN or Infinity: {type(error).__name__}") from None


def write_json(value: Any, *, allow_nan: bool) -> bytes:
    """Write what was read, and the arrays that masking made of lists.

    :raises MaskingError: it has NaN or Infinity, and they are not allowed.
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
    """Return True if 20 digits in a row, more than 64 bits may hold, are anywhere but behind a point."""
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
