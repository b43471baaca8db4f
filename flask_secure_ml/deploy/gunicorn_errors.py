"""Problem documents for requests that gunicorn rejects, without its name, limits and parts of the request."""

from __future__ import annotations

import json
import secrets
import ssl
from contextlib import suppress
from email.utils import formatdate
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

from gunicorn.http import errors as faults
from werkzeug import exceptions as http

from ..errors import PROBLEM_JSON, InternalError, problem_document, problem_headers, slug_and_detail
from ..observe.request_log.lines import MEMBERS
from ..principal import SystemClock
from ..transport.drain import read_within_bounds, share_of
from .gunicorn_tls import TlsError

# The first match is used. Other errors of gunicorn are malformed requests.
_KINDS: tuple[tuple[type[Exception], type[http.HTTPException]], ...] = (
    (faults.LimitRequestLine, http.RequestURITooLarge),
    (faults.LimitRequestHeaders, http.RequestHeaderFieldsTooLarge),
    (faults.UnsupportedTransferCoding, http.NotImplemented),
    (faults.ExpectationFailed, http.ExpectationFailed),
    (faults.ForbiddenProxyRequest, http.Forbidden),
    (faults.ParseException, http.BadRequest),
)
_OURS = (faults.InvalidResponseHeader, faults.InvalidResponseHeaderName, faults.ConfigurationProblem)
_SECONDS = 1.0
_DISCARDED = 65_536


class ErrorResponses:
    """Replaces ``handle_error`` of a worker.

    Each rejection is logged as one line with the request id and the kind of error.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __call__(self, request: Any, client: Any, address: Any, error: BaseException) -> None:
        """Write the response to a request that could not be parsed, or whose response could not be written."""
        log, peer = self._worker.log, address[0] if address else ""
        if isinstance(error, ssl.SSLError):
            # There is no request yet: a client that does not use TLS gets no response.
            log.debug("TLS failed for ip=%s: %s", peer, error.reason or type(error).__name__)
            return
        if isinstance(error, TlsError):
            # The connection is still in clear text.
            log.error("a connection was closed: %s", error)
            return
        problem = _problem(error)
        request_id = secrets.token_hex(16)
        code = slug_and_detail(problem)[0]
        members = {"request_id": request_id, "client": peer, "status": problem.code, "code": code}
        if isinstance(problem, InternalError):
            log.error(
                "Error handling request %s %s; request_id=%s",
                getattr(request, "method", "-"),
                getattr(request, "path", "-"),
                request_id,
                exc_info=error,
                extra={MEMBERS: members},
            )
        else:
            # The message of gunicorn contains parts of the request.
            log.warning(
                "Invalid request from ip=%s: %s; request_id=%s",
                peer,
                type(error).__name__,
                request_id,
                extra={MEMBERS: members},
            )
        with suppress(OSError, ValueError):
            client.settimeout(_SECONDS)
            client.sendall(_response(problem, request_id))
            self._close(client)

    def _close(self, client: Any) -> None:
        """Discard the rest of the request within limits, so that the client can read the response."""
        share = share_of(self._worker.cfg, self._capacity())
        if share.take():
            try:
                client.shutdown(SHUT_WR)
                read_within_bounds(client, _DISCARDED, 0.0, SystemClock(), share)
            finally:
                share.give_back()
        client.shutdown(SHUT_RDWR)

    def _capacity(self) -> int:
        cooperative = "gevent" in type(self._worker).__module__
        return int(self._worker.cfg.worker_connections if cooperative else self._worker.cfg.threads)


def _problem(error: BaseException) -> http.HTTPException:
    if not isinstance(error, _OURS):
        for kind, problem in _KINDS:
            if isinstance(error, kind):
                return problem()
    return InternalError(type(error).__name__)


def _response(problem: http.HTTPException, request_id: str) -> bytes:
    body = json.dumps(problem_document(problem, request_id)).encode()
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
        ("Content-Type", PROBLEM_JSON),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Request-ID", request_id),
        *problem_headers(problem),
    ]
    lines = [f"HTTP/1.1 {problem.code} {problem.name}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
