"""The body of a request, which records whether it was read to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from werkzeug.exceptions import ClientDisconnected

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

SMALL_BODY = 64 * 1024
"""The maximum number of bytes that :meth:`RequestBody.has_arrived` reads."""

_SMALL_CHUNKED = 1024
# More digits than any length of a body needs; int() has a limit for long strings.
_LENGTH_DIGITS = 18
_ENDLESS = 10**_LENGTH_DIGITS


class Timeout(Protocol):
    """A socket with a timeout."""

    def gettimeout(self) -> float | None:
        """Return the timeout."""

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout."""


class BrokenBody(ClientDisconnected, OSError):
    """The client closed the connection, stopped sending, or sent malformed chunks.

    The status is 400, even in a view. Servers raise different errors for each of these, which are set as the cause.
    """


class RequestBody:
    """A ``wsgi.input`` that counts what is read.

    :param remaining: the declared length; None for a chunked body.
    """

    def __init__(self, stream: Any, remaining: int | None) -> None:
        self._stream = self._of_server = stream
        self.remaining = remaining
        self.ended: bool = False
        self._failed = False

    @classmethod
    def declared(cls, environ: WSGIEnvironment) -> RequestBody | None:
        """Return the body that the headers of a request declare, or None."""
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return cls(environ["wsgi.input"], None)
        value = environ.get("CONTENT_LENGTH") or "0"
        is_length = value.isascii() and value.isdigit() and len(value) <= _LENGTH_DIGITS
        length = int(value) if is_length else _ENDLESS
        return cls(environ["wsgi.input"], length) if length else None

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes."""
        data = self._attempt(self._stream.read, size)
        return self._counted(data, everything=size is None or size < 0, asked=size != 0)

    def readline(self, size: int | None = -1) -> bytes:
        """Read one line."""
        return self._counted(self._attempt(self._stream.readline, size), asked=size != 0)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Read all lines."""
        lines: list[bytes] = self._attempt(self._stream.readlines, hint)
        self._counted(b"".join(lines), everything=hint is None)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _attempt(self, read: Callable[[int | None], Any], size: int | None) -> Any:
        # After an error, the next read of a chunked body returns b"", as if the body had ended.
        try:
            return read(size)
        except Exception as error:
            self._failed = True
            raise BrokenBody from error
        except BaseException:
            self._failed = True
            raise

    def _counted(self, data: bytes, *, everything: bool = False, asked: bool = True) -> bytes:
        if self.remaining is not None:
            self.remaining -= len(data)
            self.ended = self.remaining <= 0 and not self._failed
        elif everything or (asked and not data):
            self.ended = not self._failed
        return data

    def abandon(self) -> None:
        """Mark the body as failed for gunicorn, so that it does not serve other requests of this connection."""
        with suppress(AttributeError):
            self._of_server.failed = True

    def has_arrived(self, connection: Timeout) -> bool:
        """Return True if the rest is small and has arrived; it is read without waiting."""
        if self.ended or self._failed:
            return self.ended
        rest = _SMALL_CHUNKED if self.remaining is None else self.remaining
        if rest > SMALL_BODY:
            return False
        timeout = connection.gettimeout()
        try:
            connection.settimeout(0.0)
            data: bytes = self._stream.read(rest)
        except Exception:  # noqa: BLE001 - servers raise their own errors for incomplete or malformed bodies
            return False
        finally:
            with suppress(OSError):
                connection.settimeout(timeout)
        self.ended = len(data) < rest if self.remaining is None else len(data) == rest
        # For code that reads the body of a rejected request, such as a teardown function.
        self._stream = BytesIO(data)
        return self.ended
