"""A separate port that serves only the metrics.

The socket is bound once, by the parent of the workers or by the only process, so a port in use is an error at start-up.
Each worker has a thread that accepts connections from it and responds for all workers. The parent owns the socket,
which stays open while workers end, start or are replaced. The thread responds even if all request threads are busy, and
clients do not block each other (:mod:`.connections`). It cannot call the app: it reads a request line and a few
headers, and serves one path.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...refresh import PerProcess, failure_reason
from .connections import Connections

if TYPE_CHECKING:
    from ...config.metrics import ListenAddress
    from ...secrets import SecretRing
    from .exposition import Text

log: logging.Logger = logging.getLogger(__name__)

SOCKET = "FSML_METRICS_SOCKET"
"""The environment variable with the descriptor of the socket that the parent has bound; empty if it has none, so that
workers do not bind their own. Its name does not have the prefix of settings, which some apps read from there."""

PATH = "/metrics"
_BACKLOG = 16
_MOST_DIGITS = 9
_WHAT_TO_DO = (
    "set FLASK_SECURE_ML_METRICS_LISTEN in its environment or use --preload, and import all hooks of "
    "flask_secure_ml.deploy.gunicorn in your own configuration"
)

Render = Callable[[str], "Text"]
"""Returns the metrics for a header ``Accept``."""

Respond = Callable[[str, Any], tuple[HTTPStatus, dict[str, str], bytes]]


def bind(address: ListenAddress) -> socket.socket:
    """Return a socket that listens at an address.

    :raises ConfigError: the port is in use, or the user may not bind it.
    """
    family = socket.AF_INET if address.host.version == 4 else socket.AF_INET6  # noqa: PLR2004
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Allows a port of the previous server, which just ended, but not one that another process listens on.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((str(address.host), address.port))
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise ConfigError([f"SECURE_ML_METRICS_LISTEN: {address} cannot be used: {failure_reason(error)}"]) from None
    return found


def inherited(address: ListenAddress) -> socket.socket | None:
    """Return a copy of the socket that the parent has bound to an address, or None."""
    number = os.environ.get(SOCKET, "")
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
        return None
    try:
        copy = os.dup(int(number))
    except OSError:
        return None
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    try:
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        # A program that started this one may have set the variable for its own socket.
        if listens and found.getsockname()[:2] == (str(address.host), address.port):
            return found
    except OSError:
        pass
    found.close()
    return None


class MetricsListener:
    """Serves the metrics at an address, in each worker that starts it.

    :param token: the bearer token that scrapers must send, or None.
    :param monotonic: returns monotonic time in seconds.
    """

    def __init__(
        self,
        address: ListenAddress,
        render: Render,
        token: SecretRing | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._render = render
        self._token = token
        self._monotonic = monotonic
        self._started = PerProcess(self._start)

    def start(self) -> None:
        """Start serving in this process, once.

        :raises ConfigError: the parent has not bound the port for this worker, or it is in use.
        """
        self._started.get()

    def _start(self) -> threading.Thread:
        found = inherited(self._address)
        if found is None and SOCKET in os.environ:
            raise ConfigError([f"SECURE_ML_METRICS_LISTEN: gunicorn does not listen on {self._address}; {_WHAT_TO_DO}"])
        # Looked up here, because gevent may have replaced it after this module was imported.
        connections = Connections(found or bind(self._address), self._response, self._monotonic)
        thread = threading.Thread(target=connections.serve, name="secure-ml-metrics", daemon=True)
        thread.start()
        return thread

    def _response(self, head: bytes) -> bytes:
        response = BytesIO()
        _Handler(head, response, self._respond)
        return response.getvalue()

    def _respond(self, path: str, headers: Any) -> tuple[HTTPStatus, dict[str, str], bytes]:
        if path.partition("?")[0] != PATH:
            return HTTPStatus.NOT_FOUND, {}, b""
        if not self._is_allowed(headers.get("Authorization", "")):
            return HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}, b""
        try:
            text = self._render(headers.get("Accept", ""))
        except Exception:
            log.exception("the metrics cannot be collected")
            return HTTPStatus.INTERNAL_SERVER_ERROR, {}, b""
        return HTTPStatus.OK, {"Content-Type": text.content_type}, text.body

    def _is_allowed(self, credentials: str) -> bool:
        if self._token is None:
            return True
        scheme, _, given = credentials.partition(" ")
        try:
            accepted = self._token.read()
        except ValueError:
            # The secret logs its own failure.
            return False
        sent = given.strip().encode("utf-8", "surrogateescape")
        # All are compared, so that the time does not reveal which one nearly matches.
        matches = [hmac.compare_digest(sent, each) for each in accepted]
        return scheme.lower() == "bearer" and any(matches)


class _Handler(BaseHTTPRequestHandler):
    """Parses the head of one request and writes the response.

    :param respond: returns status, headers and body for a path and request headers.
    """

    def __init__(self, head: bytes, output: BytesIO, respond: Respond) -> None:
        self.rfile = BytesIO(head)
        self.wfile = output
        self._answer = respond
        self.close_connection = True
        self.handle_one_request()

    def do_GET(self) -> None:
        status, headers, body = self._answer(self.path, self.headers)
        self._send(status, headers, body)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send a constant response, because the message would repeat parts of the request."""
        unknown = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if unknown else HTTPStatus(code)
        self._send(status, {"Allow": "GET, HEAD"} if unknown else {}, b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing, because the message would repeat parts of the request."""

    def _send(self, status: HTTPStatus, headers: Any, body: bytes) -> None:
        if self.request_version != "HTTP/0.9":
            # Without the header Server, which contains the version of Python.
            self.send_response_only(status)
            fixed = {"Cache-Control": "no-store", "Connection": "close", "Content-Length": str(len(body))}
            for name, value in (fixed | headers).items():
                self.send_header(name, value)
            self.end_headers()
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(body)
