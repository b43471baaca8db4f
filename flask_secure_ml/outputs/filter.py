"""The filter of answers: what was not shaped when it was written is shaped here, or does not leave."""

from __future__ import annotations

import logging
from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException

from ..errors import (
    PROBLEM_JSON,
    REQUEST_ID_KEY,
    InternalError,
    NotAcceptable,
    SecureMLError,
    problem_response,
    slug_and_detail,
)
from ..exchange import Exchange
from ..policy import Policy
from .answers import Answers, sole_chunk
from .scores import ShapingError
from .shaping import NotPlainError
from .written import is_json, read_json, rewrite

log = logging.getLogger(__name__)

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
        if policy.returns is not None and response.status_code >= _ERRORS and response.mimetype != PROBLEM_JSON:
            _replace(response, exchange, _error_of(response, exchange))
        elif body is None or body is not exchange.shaped:
            self._hold(response, exchange, policy)
        elif exchange.unacceptable and response.status_code < _ERRORS:
            _refuse(response, exchange, NotAcceptable("Accept allows none of the formats of this answer"))

    def _hold(self, response: Response, exchange: Exchange, policy: Policy) -> None:
        try:
            terms = self._answers.terms(exchange, policy)
            if terms.shapes or policy.returns is not None or (terms.allows_nan and _names_nan(response)):
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
        _refuse(response, exchange, InternalError(f"the answer was withheld: {reason}"))


def _refuse(response: Response, exchange: Exchange, error: SecureMLError) -> None:
    exchange.refusal = error
    _replace(response, exchange, error)


def _error_of(response: Response, exchange: Exchange) -> HTTPException:
    """Return the error that an answer with this status stands for."""
    if exchange.refusal is not None and exchange.refusal.code == response.status_code:
        return exchange.refusal
    error = HTTPException()
    error.code = response.status_code
    return error


def _replace(response: Response, exchange: Exchange, error: HTTPException) -> None:
    """Turn a response into a problem document. Of its headers only those stay that say nothing of the body."""
    exchange.code = slug_and_detail(error)[0]
    problem = problem_response(error, {REQUEST_ID_KEY: exchange.request_id})
    kept = [(name, value) for name, value in response.headers if _is_kept(name)]
    _close(response)
    response.direct_passthrough = False
    response.status_code = problem.status_code
    response.response = problem.response
    response.headers.clear()
    for name, value in [*problem.headers, *(each for each in kept if each[0] not in problem.headers)]:
        response.headers.add(name, value)
    exchange.shaped, exchange.unacceptable = sole_chunk(response), False


def _is_kept(name: str) -> bool:
    return name.lower() in _KEPT or name.lower().startswith(_KEPT_PREFIX)


def _close(response: Response) -> None:
    body: Any = response.response
    if hasattr(body, "close"):
        body.close()
