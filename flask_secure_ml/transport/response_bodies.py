"""Iterables for the bodies of responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..exchange import Exchange


class Resumed:
    """A body whose first part has been read."""

    def __init__(self, first: bytes, rest: Iterator[bytes], source: Iterable[bytes]) -> None:
        self._first = first
        self._rest = rest
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._rest

    def close(self) -> None:
        """Close the body."""
        close_body(self._source)


class Stream:
    """The body of a stream.

    Its end is recorded, with the reason if it ended too early. When a body ends, it is closed and recorded before the
    server and the client notice the end, so that the lease is released before the next request of a sequential client.

    :param record_end: runs the recorders for the end of the body.
    """

    def __init__(self, body: Iterable[bytes], exchange: Exchange, record_end: Callable[[Exchange], None]) -> None:
        self._body = body
        self._iterator = iter(body)
        self._exchange = exchange
        self._record_end = record_end
        self._closed = False
        self._failure: Exception | None = None
        exchange.stream_error = "closed by the client or the server before its end"

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            self._exchange.stream_error = None
            self._close_early()
            raise
        except BaseException as error:
            self._exchange.stream_error = unhandled(error)
            raise

    def close(self) -> None:
        """Close the body and record how it ended, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._closed:
            return
        self._closed = True
        try:
            close_body(self._body)
        finally:
            self._record_end(self._exchange)

    def _close_early(self) -> None:
        try:
            self.close()
        except Exception as error:  # noqa: BLE001 - the response is complete; the server gets it from close()
            self._failure = error


class Closing:
    """The iterable of a response; ``close()`` closes it and then calls a function."""

    def __init__(self, iterable: Iterable[bytes], after: Callable[[], None]) -> None:
        self._iterable = iterable
        self._own: Callable[[], None] | None = getattr(iterable, "close", None)
        self._after = after

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._iterable)

    def close(self) -> None:
        """Close the iterable, then call the function."""
        try:
            if self._own is not None:
                self._own()
        finally:
            self._after()


def call_each(functions: Iterable[Callable[[], None]]) -> None:
    """Call each function."""
    for function in functions:
        function()


def record_broken(exchange: Exchange, error: BaseException, record_end: Callable[[Exchange], None]) -> None:
    """Record the end of a response that failed after it had started."""
    exchange.stream_error = unhandled(error)
    record_end(exchange)


def unhandled(error: BaseException) -> str:
    """Return the reason to log for an exception: its type, because its message may quote the payload."""
    return f"unhandled {type(error).__name__}"


def close_body(body: Any) -> None:
    """Close the iterable that an app returned, if it can be closed."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
