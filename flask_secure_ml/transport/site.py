"""What the outgoing response needs of the app: error responses, headers, records, and the end of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from werkzeug.wrappers import Response

from ..errors import SecureMLError
from ..exchange import Exchange

Headers = list[tuple[str, str]]


class Site(Protocol):
    """What the app does with its responses."""

    @property
    def propagates(self) -> bool:
        """Whether exceptions are raised to the server, as in tests and under a debugger."""

    def error_response(self, exchange: Exchange, error: BaseException) -> Response:
        """Return the response that replaces one that must not leave.

        :param error: the exception of the app, or the reason why its response must not leave.
        """

    def finish_headers(self, exchange: Exchange, headers: Headers, *, of_flask: bool) -> Headers:
        """Return the headers of a response, completed.

        :param of_flask: whether it comes from Flask, or replaces one that must not leave.
        """

    def commit(self, exchange: Exchange) -> SecureMLError | None:
        """Write the audit record of a response that is about to start.

        :returns: the error that replaces the response, where it must not leave without its record.
        """

    def record(self, exchange: Exchange) -> None:
        """Run the recorders for a response that is about to start."""

    def record_stream_end(self, exchange: Exchange) -> None:
        """Run the recorders for the end of a stream."""

    def complete(self, exchange: Exchange) -> Sequence[Callable[[], None]]:
        """Settle what the request was charged: the response is complete, or the stream has ended.

        :returns: functions to be called when the response was sent.
        """
