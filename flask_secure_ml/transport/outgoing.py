"""The response of one request, between the app and the server (PEP 3333).

The status and headers of the app are held back until its body is available. A response can therefore be replaced before
anything has been sent, and the recorders run before the first byte.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from ..errors import InternalError, SecureMLError
from ..exchange import Exchange
from .response_bodies import Closing, Resumed, Stream, call_each, close_body, record_broken, unhandled
from .site import Headers, Site

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log: logging.Logger = logging.getLogger(__name__)

SWITCHING_PROTOCOLS = 101
_SWITCHING = "101 Switching Protocols"
_BYPASS = "the guards did not run, because other code responded first"
_UNFILTERED = "the filters did not run"
INTERNAL_SERVER_ERROR = 500

FLASK_MARK = "X-Secure-ML-Flask"
"""Marks responses of Flask, if only Flask may respond."""

# The exceptions with which WebSocket libraries end a request after taking its socket, by the socket's environ key.
_HANDED_OVER = (("gunicorn.socket", StopIteration), ("werkzeug.socket", ConnectionError))
# RFC 9110 section 5.5. Servers raise an error for these when a part of the response is already set.
NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class Outgoing:
    """Holds back one response until it may start.

    :param records: whether to run the recorders; an app beneath another protected app does not.
    """

    __slots__ = (
        "_afterwards",
        "_body",
        "_environ",
        "_exchange",
        "_head",
        "_records",
        "_replacement",
        "_site",
        "_start",
        "_started",
        "_write",
    )

    def __init__(
        self, environ: WSGIEnvironment, start: StartResponse, exchange: Exchange, site: Site, *, records: bool = True
    ) -> None:
        self._environ = environ
        self._start = start
        self._exchange = exchange
        self._site = site
        self._records = records
        self._started = False
        self._head: tuple[str, Headers] | None = None
        self._write: Callable[[bytes], object] | None = None
        self._replacement: Response | None = None
        self._body: Iterable[bytes] = ()
        self._afterwards: Sequence[Callable[[], None]] = ()
        exchange.completed = False

    def check_started(self) -> None:
        """Check that the app called ``start_response`` or switched protocols.

        :raises RuntimeError: it did neither.
        """
        if self._head is None and _switched(self._environ):
            mark = [(FLASK_MARK, self._exchange.request_id)] if self._exchange.flask_only else []
            self._head = (_SWITCHING, mark)
        if self._head is None:
            raise RuntimeError("the app returned a body without calling start_response")

    def start_response(self, status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        """Receive the status and the headers of the app's response (the ``start_response`` of PEP 3333).

        :raises RuntimeError: the app called it before, and did not pass an exception now.
        """
        if exc_info is not None and self._write is not None:
            # The server raises the error again if it has sent the headers.
            return self._start(status, headers, exc_info)
        if exc_info is None and self._head is not None:
            raise RuntimeError("the app called start_response twice")
        self._head = (status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body, for apps that do not return it; dropped if the response is replaced."""
        write = self._write
        if write is None:
            write = self._send_head()
            for part in self._replaced():
                write(part)
        if self._replacement is None:
            write(data)

    def respond(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body for the server: the app's own, a wrapped stream, or a replacement."""
        self._body = body
        if self._write is None and self._head is None:
            return _Late(self, body)
        # Otherwise the head was sent with the first write(), together with the complete replacement, if any.
        replaced: Iterable[bytes] = ()
        if self._write is None:
            self._send_head()
            replaced = self._replaced()
        if self._replacement is None:
            return self._with_afterwards(self._own_body())
        self._close_body()
        return self._with_afterwards(replaced)

    def fail(self, error: Exception) -> Iterable[bytes]:
        """Return the body for an app that raised an exception.

        :raises Exception: the same exception, if exceptions propagate, a part of the response was sent, or the
            connection is no longer HTTP.
        """
        self._close_body()
        if self._write is not None:
            self._abandoned(error)
            raise error
        if self._handed_over(error):
            self._exchange.status = SWITCHING_PROTOCOLS
            self._commit()
            self._record()
            raise error
        self._exchange.fail(error)
        if self._site.propagates:
            self._exchange.status = INTERNAL_SERVER_ERROR
            self._commit()
            self._record()
            raise error
        try:
            self._replacement = self._site.error_response(self._exchange, error)
            self._send_head(error)
        except BaseException as fatal:
            self.abandon(fatal)
            raise
        return self._with_afterwards(self._replaced())

    def abandon(self, error: BaseException) -> None:
        """Record a request that ends without a response, for example because the server stops its worker."""
        self._close_body()
        if self._write is not None:
            self._abandoned(error)
            return
        self._exchange.fail(error)
        self._exchange.status = INTERNAL_SERVER_ERROR
        self._commit()
        self._record()

    def _send_head(self, error: Exception | None = None) -> Callable[[bytes], object]:
        exchange = self._exchange
        if self._replacement is None and (forbidding := self._forbidden()) is not None:
            self._replacement = self._site.error_response(exchange, forbidding)
        status, headers = self._final_head()
        if (unrecorded := self._commit()) is not None:
            self._replacement = self._site.error_response(exchange, unrecorded)
            status, headers = self._final_head()
        write = self._server_start(status, headers, error)
        # A server sends no bytes before the first part of the body. If it raises, there is no response to record.
        self._record()
        self._write = write
        return write

    def _final_head(self) -> tuple[str, Headers]:
        """Return the status and headers for the server: those of the replacement, or the app's own."""
        exchange = self._exchange
        if self._replacement is not None:
            replacement = self._replacement
            status = replacement.status
            exchange.status = int(status[:3])
            headers = self._finished_replacement(replacement.get_wsgi_headers(self._environ).to_wsgi_list())
        else:
            status, headers = self._head or ("", [])
            if NOT_IN_HEADERS.search("".join((status, *chain.from_iterable(headers)))):
                raise ValueError("the status or a header has an invalid character")
            # The completion of the headers depends on it.
            exchange.status = int(status[:3])
            if exchange.flask_only:
                headers = [header for header in headers if header[0] != FLASK_MARK]
            if exchange.streamed is None:
                headers = self._site.finish_headers(exchange, headers, of_flask=False)
            elif exchange.completed is not exchange.guarded:
                # Otherwise a mounted app has completed the headers of its own Flask's response.
                exchange.completed = exchange.guarded
                headers = self._site.finish_headers(exchange, headers, of_flask=True)
        return status, headers

    def _finished_replacement(self, headers: Headers) -> Headers:
        self._exchange.completed = self._exchange.guarded
        try:
            return self._site.finish_headers(self._exchange, headers, of_flask=True)
        except Exception:
            log.exception("the headers of the error response of %s could not be completed", self._exchange.request_id)
            return headers

    def _forbidden(self) -> SecureMLError | None:
        """Return the error that replaces the response of the app, or None to send it."""
        exchange, (status, headers) = self._exchange, self._head or ("", [])
        # Middleware that tries several apps may respond after Flask has responded to a public route with 404.
        is_foreign = exchange.flask_only and self._head is not None and (FLASK_MARK, exchange.request_id) not in headers
        if is_foreign or not exchange.answerable:
            log.critical("request %s: %s", exchange.request_id, _BYPASS)
            return InternalError(_BYPASS)
        if exchange.guarded is None or exchange.streamed is not None or status.startswith(_SWITCHING):
            return None
        # An after_request function of the app failed, so the filters did not run. Flask has logged it.
        fault = exchange.fault
        if fault is None:
            return InternalError(_UNFILTERED)
        if isinstance(fault, Exception) and not self._site.propagates:
            return exchange.rejection or InternalError(unhandled(fault))
        return None

    def _server_start(self, status: str, headers: Headers, error: Exception | None) -> Callable[[bytes], object]:
        if self._started and error is not None:
            raised: Any = (type(error), error, error.__traceback__)
            return self._start(status, headers, raised)
        self._started = True
        return self._start(status, headers)

    def _handed_over(self, error: Exception) -> bool:
        return (
            self._exchange.answerable
            and _switched(self._environ)
            and any(name in self._environ and isinstance(error, kind) for name, kind in _HANDED_OVER)
        )

    def _replaced(self) -> list[bytes]:
        if self._replacement is None or self._environ.get("REQUEST_METHOD") == "HEAD":
            return []
        return [self._replacement.get_data()]

    def _own_body(self) -> Iterable[bytes]:
        if not self._records or not self._is_stream(self._body):
            return self._body
        return Stream(self._body, self._exchange, self._stream_ended)

    def _close_body(self) -> None:
        body, self._body = self._body, ()
        try:
            close_body(body)
        except Exception:
            log.exception("the body of request %s could not be closed", self._exchange.request_id)

    def _is_stream(self, body: Iterable[bytes]) -> bool:
        if self._environ.get("REQUEST_METHOD") == "HEAD":
            # The response has no body, even if Flask returned an iterator.
            return False
        if self._exchange.streamed is not None:
            # A server sends a file in its own wrapper faster than an iterator of ours.
            return self._exchange.streamed and not isinstance(body, self._environ.get("wsgi.file_wrapper") or ())
        return not isinstance(body, (list, tuple))

    def _commit(self) -> SecureMLError | None:
        return self._site.commit(self._exchange) if self._records else None

    def _record(self) -> None:
        if not self._records:
            return
        try:
            self._site.record(self._exchange)
        finally:
            if self._replacement is not None or not self._is_stream(self._body):
                self._afterwards = self._site.complete(self._exchange)

    def _stream_ended(self, exchange: Exchange) -> None:
        self._site.record_stream_end(exchange)
        call_each(self._site.complete(exchange))

    def _with_afterwards(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body; the functions to call afterwards run when the server closes it."""
        afterwards, self._afterwards = self._afterwards, ()
        if not afterwards:
            return body
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # A server sends a file in its own wrapper faster than an iterator of ours.
            call_each(afterwards)
            return body
        return Closing(body, lambda: call_each(afterwards))

    def _abandoned(self, error: BaseException) -> None:
        if self._records:
            record_broken(self._exchange, error, self._stream_ended)


class _Late:
    """The body of an app that calls ``start_response`` when its body is read."""

    def __init__(self, outgoing: Outgoing, body: Iterable[bytes]) -> None:
        self._outgoing = outgoing
        self._source = body
        self._body: Iterable[bytes] = body

    def __iter__(self) -> Iterator[bytes]:
        iterator = iter(self._source)
        try:
            first = next(iterator, b"")
            self._outgoing.check_started()
            self._body = self._outgoing.respond(Resumed(first, iterator, self._source))
        except Exception as error:  # noqa: BLE001 - the outgoing response decides what the server gets
            self._body = ()
            self._body = self._outgoing.fail(error)
        except BaseException as error:
            self._body = ()
            self._outgoing.abandon(error)
            raise
        yield from self._body

    def close(self) -> None:
        close_body(self._body)


def _switched(environ: WSGIEnvironment) -> bool:
    return "websocket" in environ.get("HTTP_UPGRADE", "").lower()
