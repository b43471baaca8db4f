"""The response filter: masks or replaces every response that was not checked when it was written."""

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
    """Enforces the response rules of a route on every response, whatever code wrote it.

    On a route with a response schema or score options, a response that cannot be masked is replaced by an error
    response: the client gets 500, and the reason is logged. An error (a status of 400 or above) that cannot be masked
    becomes the problem document of its status, as does every error of a route with a response schema. The body of a
    redirect is removed. On other routes, only JSON with NaN or Infinity is replaced.

    :param rules: the rules of the app.
    """

    def __init__(self, rules: ResponseRules) -> None:
        self._rules = rules

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Mask or replace the body, unless it was already checked for these rules."""
        policy = exchange.policy
        if policy is None:
            return
        if policy.response is not None and response.status_code >= _ERRORS and response.mimetype != PROBLEM_JSON:
            _replace(response, exchange, _error_of(response, exchange))
            return
        try:
            self._enforce(response, exchange, policy)
        except Exception as error:  # noqa: BLE001 - on any error, the response must not be sent
            _replace_unsafe(response, exchange, error)

    def _enforce(self, response: Response, exchange: Exchange, policy: Policy) -> None:
        body = response.response
        if isinstance(body, CheckedBody) and body.meets(policy, lambda: self._rules.options(exchange, policy)):
            if not body.acceptable and response.status_code < _ERRORS:
                _replace(response, exchange, NotAcceptable("Accept allows none of the formats of this response"))
            return
        options = self._rules.options(exchange, policy)
        if options.masks and response.status_code >= _ERRORS and response.mimetype == PROBLEM_JSON:
            # A problem document of the app has free text, in which scores cannot be masked.
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
    # Messages of other errors may quote the response.
    is_ours = isinstance(error, (MaskingError, NotPlainError))
    reason = error.reason if isinstance(error, SecureMLError) else str(error) if is_ours else type(error).__name__
    log.error("the response of request %s was replaced by an error response: %s", exchange.request_id, reason)
    if response.status_code >= _ERRORS:
        _replace(response, exchange, _error_of(response, exchange))
    else:
        _replace(response, exchange, InternalError(f"the response was replaced by an error response: {reason}"))


def _error_of(response: Response, exchange: Exchange) -> HTTPException:
    """Return the error for the status of a response."""
    if exchange.rejection is not None and exchange.rejection.code == response.status_code:
        return exchange.rejection
    error = HTTPException()
    error.code = response.status_code
    return error


def _replace(response: Response, exchange: Exchange, error: HTTPException) -> None:
    """Turn a response into a problem document, keeping only headers that do not describe the body."""
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
    """Removes conditional headers from GET and HEAD requests to routes with response rules.

    A view evaluates conditions on the unmasked response, so the result could confirm a client's guess. Without
    conditions, the client gets the whole masked response. Other methods keep their conditions, which protect stored
    data against lost updates.

    :param rules: the rules of the app.
    """

    name = "conditions"
    stage = Stage.INPUT

    def __init__(self, rules: ResponseRules) -> None:
        self._rules = rules

    def check(self, request: Request, exchange: Exchange) -> None:
        """Remove the headers; no request is rejected."""
        policy, environ = exchange.policy, request.environ
        if policy is None or request.method not in _METHODS or not any(name in environ for name in _CONDITIONS):
            return
        if policy.response is not None or self._rules.options(exchange, policy).masks:
            for name in _CONDITIONS:
                environ.pop(name, None)
