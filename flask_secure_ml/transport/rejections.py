"""Preserves rejections, regardless of how error handlers and hooks of the app change them.

``app.errorhandler(401)`` and similar handlers may write the body of a rejection. But its status, code and protocol
headers are the contract with the client, so a handler cannot change these by responding with 200 or a redirect. Extra
members of a rejection, such as the ``errors`` of a 422, are added to the body if that is a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException

from ..errors import CODE_HEADER, PROBLEM_JSON, SecureMLError, problem_headers
from ..exchange import Exchange

_ERRORS = 400
_INTERNAL_SERVER_ERROR = 500


class RejectionFilter:
    """Restores the status, the code and the headers of an error to which the app's own handlers responded.

    The status of a rejected request is always restored. For an error of Flask itself (an unknown URL, a wrong method,
    an unhandled exception) and one that the app raised, the code and the headers are restored if the app has kept the
    status.

    :param replace: replace the body that the app wrote for a rejection or an error of Flask with the problem document.
    """

    def __init__(self, *, replace: bool = False) -> None:
        self._replace = replace

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Restore the response in place."""
        rejection = exchange.rejected
        if rejection is not None:
            _restore(response, exchange, rejection)
            if self._replace:
                _rewrite(response, exchange, rejection)
            elif rejection.members:
                _add_members(response, rejection.members)
        elif response.status_code >= _ERRORS and CODE_HEADER not in response.headers:
            self._complete(response, exchange)

    def _complete(self, response: Response, exchange: Exchange) -> None:
        status = response.status_code
        error = _error_of_flask(exchange)
        if error is not None and error.code == status:
            exchange.reject(error)
            if self._replace:
                _rewrite(response, exchange, error)
        else:
            error = _error_of_app(exchange, status)
            if error is None or error.code != status:
                return
            exchange.reject(error)
        missing = [(name, value) for name, value in problem_headers(error) if name not in response.headers]
        response.headers.extend(missing)


def _restore(response: Response, exchange: Exchange, rejection: SecureMLError) -> None:
    if response.status_code != rejection.code:
        if response.mimetype == PROBLEM_JSON:
            # The document is that of another error, such as one that a handler of the app raised.
            response.set_data(exchange.problem(rejection).get_data())
        else:
            exchange.reject(rejection)
        response.status_code = rejection.code or _INTERNAL_SERVER_ERROR
        response.headers.pop("Location", None)
    headers = problem_headers(rejection)
    for name in {name for name, _ in headers}:
        response.headers.remove(name)
    for name, value in headers:
        response.headers.add(name, value)


def _rewrite(response: Response, exchange: Exchange, error: HTTPException) -> None:
    if response.mimetype != PROBLEM_JSON:
        response.direct_passthrough = False
        response.set_data(exchange.problem(error).get_data())
        response.content_type = PROBLEM_JSON
        response.headers.pop("Content-Encoding", None)


def _add_members(response: Response, members: Mapping[str, Any]) -> None:
    """Add missing members to a JSON object; leave any other body unchanged."""
    if not response.is_json or response.is_streamed or response.direct_passthrough:
        return
    try:
        document = json.loads(response.get_data())
    except ValueError:
        return
    if isinstance(document, dict) and not members.keys() <= document.keys():
        response.set_data(json.dumps({**members, **document}))


def _error_of_flask(exchange: Exchange) -> HTTPException | None:
    # The request that was last guarded in Flask; None if it was rejected before.
    request: Any = exchange.guarded
    found = getattr(request, "routing_exception", None)
    if found is None and exchange.fault is not None and not isinstance(exchange.fault, HTTPException):
        found = HTTPException()
        found.code = _INTERNAL_SERVER_ERROR
    return found if isinstance(found, HTTPException) else None


def _error_of_app(exchange: Exchange, status: int) -> HTTPException | None:
    """Return the HTTP error to which a handler of the app responded; for any other exception, one with that status."""
    # A framework that overrides our error handling still reports the exceptions that it handles.
    found = exchange.handled or exchange.fault
    if found is None or isinstance(found, HTTPException):
        return found
    error = HTTPException()
    error.code = status
    return error
