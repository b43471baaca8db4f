"""The filter of responses: what was not checked when it was written is checked here, or does not leave."""

from __future__ import annotations

import logging
from typing import Any

from flask import Request, Response
from werkzeug.exceptions import HTTPException

from ..errors import PROBLEM_JSON, InternalError, NotAcceptable, SecureMLError
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.policy import Policy
from .bodies import CheckedBody, could_name_nan, mark_checked, read_json, rewrite
from .masking import NotPlainError
from .responses import ResponseRules
from .scores import MaskingError

log: logging.Logger = logging.getLogger(__name__)

_KEPT = frozenset({"vary", "allow", "retry-after", "www-authenticate"})
_KEPT_PREFIX = "access-control-"
_ERRORS = 400
_REDIRECTS = 300


class OutputFilter:
    """Enforces the rules of a route on every response, whoever wrote it.

    On a route with a response schema or score options, a response that cannot be masked is replaced by an error
    response: the client gets 500, and the log the reason. An error (a status of 400 and above) becomes the problem
    document of its status instead, and so does every error of a route with a response schema. A redirect loses its
    body. On any other route only JSON with NaN or Infinity is replaced.

    :param rules: the rules of the app.
    """

    def __init__(self, rules: ResponseRules) -> None:
        self._rules = rules

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Mask the body in place, or replace it; a body that was checked for these rules stays as it is."""
        policy = exchange.policy
        if policy is None:
            return
        if policy.response is not None and response.status_code >= _ERRORS and response.mimetype != PROBLEM_JSON:
            _replace(response, exchange, _error_of(response, exchange))
            return
        try:
            self._enforce(response, exchange, policy)
        except Exception as error:  # noqa: BLE001 - whatever fails, the response does not leave
            _replace_unsafe(response, exchange, error)

    def _enforce(self, response: Response, exchange: Exchange, policy: Policy) -> None:
        body = response.response
        if isinstance(body, CheckedBody) and body.meets(policy, lambda: self._rules.options(exchange, policy)):
            if not body.acceptable and response.status_code < _ERRORS:
                _replace(response, exchange, NotAcceptable("Accept allows none of the formats of this response"))
            return
        options = self._rules.options(exchange, policy)
        if options.masks and response.status_code >= _ERRORS and response.mimetype == PROBLEM_JSON:
            # It has a text of the app, which no mask can read.
            _replace(response, exchange, _error_of(response, exchange))
            return
        if options.masks or policy.response is not None or (options.allows_nan and could_name_nan(response)):
            _drop_body_of_redirect(response)
            rewrite(response, lambda value: self._rules.mask(value, policy, options), options)
            mark_checked(response, policy, options)
        elif could_name_nan(response):
            read_json(response.get_data(), allow_nan=False)


def _drop_body_of_redirect(response: Response) -> None:
    if _REDIRECTS <= response.status_code < _ERRORS:
        _close(response)
        response.direct_passthrough = False
        response.set_data(b"")


def _replace_unsafe(response: Response, exchange: Exchange, error: Exception) -> None:
    # The message of any other error may quote the response.
    is_ours = isinstance(error, (MaskingError, NotPlainError))
    reason = error.reason if isinstance(error, SecureMLError) else str(error) if is_ours else type(error).__name__
    log.error("the response of request %s was replaced by an error response: %s", exchange.request_id, reason)
    if response.status_code >= _ERRORS:
        _replace(response, exchange, _error_of(response, exchange))
    else:
        _replace(response, exchange, InternalError(f"the response was replaced by an error response: {reason}"))


def _error_of(response: Response, exchange: Exchange) -> HTTPException:
    """Return the error that a response of this status stands for."""
    if exchange.rejection is not None and exchange.rejection.code == response.status_code:
        return exchange.rejection
    error = HTTPException()
    error.code = response.status_code
    return error


def _replace(response: Response, exchange: Exchange, error: HTTPException) -> None:
    """Turn a response into a problem document. Only headers that say nothing about the body stay."""
    problem = exchange.problem(error)
    kept = [(name, value) for name, value in response.headers if _is_kept(name)]
    _close(response)
    response.direct_passthrough = False
    response.status_code = problem.status_code
    response.response = problem.response
    response.headers.clear()
    for name, value in [*problem.headers, *(each for each in kept if each[0] not in problem.headers)]:
        response.headers.add(name, value)
    mark_checked(response)


def _is_kept(name: str) -> bool:
    return name.lower() in _KEPT or name.lower().startswith(_KEPT_PREFIX)


def _close(response: Response) -> None:
    body: Any = response.response
    if hasattr(body, "close"):
        body.close()


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
    """Removes the conditions of a GET or HEAD request to a route with rules, before the view evaluates them.

    A view compares what is not masked yet, so a different outcome would confirm a guess. Without conditions the client
    gets the whole response, masked. Other methods keep theirs: they protect stored data against lost updates.

    :param rules: the rules of the app.
    """

    name = "conditions"
    stage = Stage.INPUT

    def __init__(self, rules: ResponseRules) -> None:
        self._rules = rules

    def check(self, request: Request, exchange: Exchange) -> None:
        """Remove the headers; nothing is rejected."""
        policy, environ = exchange.policy, request.environ
        if policy is None or request.method not in _METHODS or not any(name in environ for name in _CONDITIONS):
            return
        if policy.response is not None or self._rules.options(exchange, policy).masks:
            for name in _CONDITIONS:
                environ.pop(name, None)
