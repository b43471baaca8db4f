"""The interface that the outgoing response needs: error responses, headers, records, and the end of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from werkzeug.wrappers import Response

from ..errors import SecureMLError
from ..exchange import Exchange

Headers = list[tuple[str, str]]


class Site(Protocol):
    """Completes, replaces and records the responses of an app."""

    def begin(self, exchange: Exchange) -> None:
        """Count a request that begins."""

    @property
    def propagates(self) -> bool:
        """Whether exceptions are raised to the server, as in tests and under a debugger."""

    def error_response(self, exchange: Exchange, error: BaseException) -> Response:
        """Return the response that replaces one that must not be sent.

        :param error: the exception of the app, or the reason why its response must not be sent.
        """

    def finish_headers(self, exchange: Exchange, headers: Headers, *, of_flask: bool) -> Headers:
        """Return the completed headers of a response.

        :param of_flask: whether it comes from Flask, or replaces a response that must not be sent.
        """

    def commit(self, exchange: Exchange) -> SecureMLError | None:
        """Write the audit record of a response that is about to start.

        :returns: the error that replaces the response if it must not be sent without its record.
        """

    def record(self, exchange: Exchange) -> None:
        """Run the recorders for a response that is about to start."""

    def record_stream_end(self, exchange: Exchange) -> None:
        """Run the recorders for the end of a stream."""

    def complete(self, exchange: Exchange) -> Sequence[Callable[[], None]]:
        """Settle the charges of the request, after the response is complete or the stream has ended.

        :returns: functions to be called after the response was sent.
        """
