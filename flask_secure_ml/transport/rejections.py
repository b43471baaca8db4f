"""Keeps rejections what they are, whatever error handlers and hooks of the app made of them.

``app.errorhandler(401)`` and its like may write the body of a rejection. Its status, its code and its protocol headers
are the contract with the client, so a handler that responds to it with 200 or a redirect changes none of these.
"""

from __future__ import annotations

from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException

from ..errors import CODE_HEADER, PROBLEM_JSON, SecureMLError, problem_headers
from ..exchange import Exchange

_ERRORS = 400
_INTERNAL_SERVER_ERROR = 500


class RejectionFilter:
    """Restores the status, the code and the headers of an error that the app's own handlers responded to.

    The status of a rejected request never changes. An error of Flask itself (an unknown URL, a wrong method, an
    exception that nothing handled) has its code and its headers, if the app left it its status.
    """

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Restore them in place."""
        rejection = exchange.rejected
        if rejection is not None:
            _restore(response, exchange, rejection)
        elif response.status_code >= _ERRORS and CODE_HEADER not in response.headers:
            error = _error_of_flask(exchange)
            if error is not None and error.code == response.status_code:
                _complete(response, error)


def _restore(response: Response, exchange: Exchange, rejection: SecureMLError) -> None:
    if response.status_code != rejection.code:
        if response.mimetype == PROBLEM_JSON:
            # The document of another error, such as the one that a handler of the app raised.
            response.set_data(exchange.problem(rejection).get_data())
        else:
            exchange.reject(rejection)
        response.status_code = rejection.code or _INTERNAL_SERVER_ERROR
        response.headers.pop("Location", None)
    _complete(response, rejection)


def _complete(response: Response, error: HTTPException) -> None:
    headers = problem_headers(error)
    for name in {name for name, _ in headers}:
        response.headers.remove(name)
    for name, value in headers:
        response.headers.add(name, value)


def _error_of_flask(exchange: Exchange) -> HTTPException | None:
    # The request that Flask guarded last; nothing is there if it was rejected before.
    request: Any = exchange.guarded
    found = getattr(request, "routing_exception", None)
    if found is None and exchange.fault is not None:
        found = HTTPException()
        found.code = _INTERNAL_SERVER_ERROR
    return found if isinstance(found, HTTPException) else None
