"""The filter of answers: what was not shaped when it was written is shaped here, or does not leave."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from flask import Request, Response
from werkzeug.exceptions import HTTPException

from ..errors import PROBLEM_JSON, InternalError, NotAcceptable, SecureMLError
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.options import ScoreOptions
from ..policy.policy import Policy
from .formats import NPY, read_npy
from .masking import NotPlainError
from .responses import JSON, NOT_FINITE, Answers, npy_body, sole_chunk
from .scores import ShapingError, has_non_finite, names_null

log: logging.Logger = logging.getLogger(__name__)

_KEPT = frozenset({"vary", "allow", "retry-after", "www-authenticate"})
_KEPT_PREFIX = "access-control-"
_ERRORS = 400
_REDIRECTS = 300


class OutputFilter:
    """Holds every answer to the terms of its route, whoever wrote it.

    On a route with terms, an answer that cannot be shaped is withheld: the client gets 500, and the log the reason.
    An error (a status of 400 and above) becomes the problem document of its status instead, and so does every
    error of a route that declares what it returns. A redirect loses its body.

    On any other route only JSON with NaN or Infinity is withheld.

    :param answers: what applies the terms.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Shape the body in place, or replace it. What was shaped before is left alone, as the same bytes."""
        policy = exchange.policy
        if policy is None:
            return
        body = sole_chunk(response)
        if policy.response is not None and response.status_code >= _ERRORS and response.mimetype != PROBLEM_JSON:
            _replace(response, exchange, _error_of(response, exchange))
        elif body is None or (body is not exchange.shaped and body is not exchange.problem_body):
            self._hold(response, exchange, policy)
        elif exchange.unacceptable and response.status_code < _ERRORS:
            _replace(response, exchange, NotAcceptable("Accept allows none of the formats of this answer"))

    def _hold(self, response: Response, exchange: Exchange, policy: Policy) -> None:
        try:
            terms = self._answers.terms(exchange, policy)
            if terms.shapes or policy.response is not None or (terms.allows_nan and _names_nan(response)):
                _drop_body_of_redirect(response)
                rewrite(response, lambda value: self._answers.shape(value, policy, terms), terms)
            elif _names_nan(response):
                read_json(response.get_data(), allow_nan=False)
        except Exception as error:  # noqa: BLE001 - whatever fails, the answer does not leave
            _withhold(response, exchange, error)


def _names_nan(response: Response) -> bool:
    """Say whether JSON that nobody asked to shape could have NaN: two searches, so that it need not be parsed."""
    body = sole_chunk(response)
    if body is None:
        body = b"" if response.is_streamed or response.direct_passthrough else response.get_data()
    # One letter is found at many times the speed of a word.
    named = (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body)
    return named and is_json(response)


def _drop_body_of_redirect(response: Response) -> None:
    if _REDIRECTS <= response.status_code < _ERRORS:
        _close(response)
        response.direct_passthrough = False
        response.set_data(b"")


def _withhold(response: Response, exchange: Exchange, error: Exception) -> None:
    # The text of any other error may quote the answer.
    known = isinstance(error, (ShapingError, NotPlainError))
    reason = error.reason if isinstance(error, SecureMLError) else str(error) if known else type(error).__name__
    log.error("the answer of request %s was withheld: %s", exchange.request_id, reason)
    if response.status_code >= _ERRORS:
        _replace(response, exchange, _error_of(response, exchange))
    else:
        _replace(response, exchange, InternalError(f"the answer was withheld: {reason}"))


def _error_of(response: Response, exchange: Exchange) -> HTTPException:
    """Return the error that an answer with this status stands for."""
    if exchange.rejection is not None and exchange.rejection.code == response.status_code:
        return exchange.rejection
    error = HTTPException()
    error.code = response.status_code
    return error


def _replace(response: Response, exchange: Exchange, error: HTTPException) -> None:
    """Turn a response into a problem document. Of its headers only those stay that say nothing of the body."""
    problem = exchange.problem(error)
    kept = [(name, value) for name, value in response.headers if _is_kept(name)]
    _close(response)
    response.direct_passthrough = False
    response.status_code = problem.status_code
    response.response = problem.response
    response.headers.clear()
    for name, value in [*problem.headers, *(each for each in kept if each[0] not in problem.headers)]:
        response.headers.add(name, value)
    exchange.unacceptable = False


def _is_kept(name: str) -> bool:
    return name.lower() in _KEPT or name.lower().startswith(_KEPT_PREFIX)


def _close(response: Response) -> None:
    body: Any = response.response
    if hasattr(body, "close"):
        body.close()


_ZERO, _POINT = b"0."
_NOT_MODIFIED = 304
# What a client could take for the unshaped body, or try guesses of it against.
_OF_THE_BODY = ("ETag", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Last-Modified")


def rewrite(response: Response, shape: Callable[[Any], Any], terms: ScoreOptions) -> None:
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


_METHODS = frozenset({"GET", "HEAD"})
# Preconditions (RFC 9110 section 13.1) and ranges (section 14.2).
_CONDITIONS = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_RANGE",
    "HTTP_RANGE",
)


class ConditionGuard:
    """Takes the conditions from a request to read from a route with terms, before the view compares its answer.

    A view compares what was not shaped, so whatever the outcome becomes, that it differs tells whether a guess was
    right. Without conditions the client gets the whole answer, shaped. Other methods keep theirs: they protect what is
    stored against lost updates.

    :param answers: what knows the terms.
    """

    name = "conditions"
    stage = Stage.INPUT

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def check(self, request: Request, exchange: Exchange) -> None:
        """Remove the headers; nothing is refused."""
        policy, environ = exchange.policy, request.environ
        if policy is None or request.method not in _METHODS or not any(name in environ for name in _CONDITIONS):
            return
        if policy.response is not None or self._answers.terms(exchange, policy).shapes:
            for name in _CONDITIONS:
                environ.pop(name, None)
