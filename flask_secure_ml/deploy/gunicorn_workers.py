"""Preparation of gunicorn workers of all classes."""

from __future__ import annotations

import queue
import signal
import ssl
import sys
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def heed_early_signals(server: Any, worker: Any) -> None:
    """Exit if a worker gets a signal before its own handlers are set.

    Until then, it has the handlers of the arbiter, which would queue the signal for an arbiter that does not run in
    this process: the worker would start, and be killed after the graceful timeout. Under gevent, which patches the
    standard library first, this lasts a few hundred milliseconds.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        worker.alive = False
        sys.exit(0)

    for number in _ENDING:
        signal.signal(number, end)
    # The copy of the arbiter's queue, with signals since the fork.
    with suppress(queue.Empty):
        while True:
            if server.SIG_QUEUE.get_nowait() in _ENDING:
                sys.exit(0)


def omit_server_header() -> None:
    """Do not send the header ``Server`` (RFC 9110 section 10.2.4) from this process."""
    from gunicorn.http.wsgi import Response

    default = Response.default_headers

    def default_headers(response: Any) -> list[str]:
        return [line for line in default(response) if not line.startswith("Server:")]

    Response.default_headers = default_headers


def respond_with_problems(worker: Any) -> None:
    """Send problem documents for requests that gunicorn rejects."""
    from .gunicorn_errors import ErrorResponses

    worker.handle_error = ErrorResponses(worker)


def ignore_broken_connections(worker: Any) -> None:
    """Under gevent, do not log tracebacks for failed or timed-out TLS handshakes."""
    if "gevent" in type(worker).__module__:
        from gevent import get_hub

        hub = get_hub()
        hub.NOT_ERROR = (*hub.NOT_ERROR, ssl.SSLError, ConnectionError, TimeoutError)


class _Listener:
    """The address of a socket that may have been closed."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        """Return the address."""
        return self._name


def finish_handshakes(worker: Any) -> None:
    """Under gevent, serve connections whose TLS handshake is in progress when the worker stops accepting.

    gevent's server then removes its handler, which it looks up after the handshake, and closes its socket, whose
    address gunicorn reads. The client, which may already have sent its request, would get no response.
    """
    if "gevent" not in type(worker).__module__:
        return
    from gevent.server import StreamServer
    from gunicorn.workers import ggevent

    class Server(StreamServer):  # type: ignore[misc, unused-ignore]  # gevent has no types
        """A server that keeps both."""

        def __init__(self, listener: Any, **options: Any) -> None:
            self._kept = partial(worker.handle, _Listener(listener))
            super().__init__(listener, **(options | {"handle": self._kept}))

        def handle(self, client: Any, address: Any) -> None:
            """Handle a connection after the attribute of this name was removed."""
            self._kept(client, address)

    ggevent.StreamServer = Server


def load_certificate(worker: Any) -> None:
    """Load the certificate before the first connection, when it is less likely to be in the middle of a renewal.

    If the files cannot be used, the worker tries again for each connection.
    """
    if not worker.cfg.is_ssl:
        return
    from gunicorn.sock import ssl_context

    from .gunicorn_tls import TlsError

    try:
        ssl_context(worker.cfg)
    except TlsError as error:
        worker.log.error("%s; connections are closed until it can be used", error)


def load_app(app: Any) -> None:
    """Load dependencies of requests, such as API keys and revocations, if the app is a protected Flask app."""
    from flask import Flask

    from flask_secure_ml import SecureML
    from flask_secure_ml.state import EXTENSION

    # An app inside other middleware loads them with its first request.
    if isinstance(app, Flask) and EXTENSION in app.extensions:
        SecureML.load(app)
