"""Reading a body: exactly its declared length, never more than the limit, and restored for whoever reads it next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import accumulate
from math import prod
from operator import mul
from typing import TYPE_CHECKING, Any

from flask import Request

from ..errors import MalformedRequest, PayloadTooLarge
from ..policy.options import CapOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed.wsgi import WSGIEnvironment

    from ..config import Settings


# More digits than any limit has; fewer than int() accepts.
_LENGTH_DIGITS = 18
_BLOCK = 65_536
# So many bytes are asked for in one call, which saves a copy of the body where the server has it all.
_AT_ONCE = 4_194_304
# What Werkzeug caches of a body that was read, and of its length.
_CACHED = ("stream", "content_length", "_cached_data", "_cached_json")


def whole_number(digits: str) -> int | None:
    """Return the number of a header of digits; None for anything else, and for more than 18 digits."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LENGTH_DIGITS else None


def declared_length(environ: WSGIEnvironment) -> int | None:
    """Return the ``Content-Length``; None when there is none.

    :raises MalformedRequest: a length together with a transfer coding, or one that is not a number: two readers of
        such a request can disagree where it ends (RFC 9112 section 6.3).
    :raises PayloadTooLarge: a number with more digits than any limit has.
    """
    value = environ.get("CONTENT_LENGTH") or ""
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding and (coding := coding.strip().lower()):
        _check_coding(coding, environ)
    if not value:
        return None
    length = None if coding else whole_number(value)
    if length is None and (coding or not (value.isascii() and value.isdigit())):
        raise MalformedRequest("Content-Length is not a number, or there is a Transfer-Encoding too")
    if length is None:
        raise PayloadTooLarge(f"Content-Length has {len(value)} digits")
    return length


def is_handshake(environ: WSGIEnvironment) -> bool:
    """Return True for the handshake of a WebSocket (RFC 6455 section 4.1), which has no body.

    What a server passes as its input then are the first frames.
    """
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and environ.get("REQUEST_METHOD") == "GET"
        and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")
        and not environ.get("CONTENT_LENGTH")
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def settle_end(environ: WSGIEnvironment) -> None:
    """Remove the flag for a terminated input where reading would not end.

    For requests to upgrade, gevent's server passes the bare connection as the input, with the flag set to False, which
    Werkzeug reads as True.
    """
    if "wsgi.input_terminated" in environ and (not environ["wsgi.input_terminated"] or is_handshake(environ)):
        del environ["wsgi.input_terminated"]


def _check_coding(coding: str, environ: WSGIEnvironment) -> None:
    if coding != "chunked":
        raise MalformedRequest("the transfer coding is not chunked")
    if "wsgi.input_terminated" not in environ:
        raise MalformedRequest("the body is chunked, which this WSGI server does not decode")


def read(request: Request, length: int | None, limit: int) -> bytes:
    """Read the body: exactly the declared length, or what the server delivers up to the limit.

    :raises PayloadTooLarge: a body without a declared length is over the limit.
    :raises MalformedRequest: it ends early, or cannot be read.
    """
    if length is None and "wsgi.input_terminated" not in request.environ:
        return b""
    body = _received(request, limit + 1 if length is None else length)
    if length is None and len(body) > limit:
        raise PayloadTooLarge(f"a body without a declared length is over the limit of {limit} bytes")
    if length is not None and len(body) != length:
        raise MalformedRequest(f"the body ends after {len(body)} of {length} bytes")
    return body


def _received(request: Request, limit: int) -> bytes:
    try:
        if "stream" in request.__dict__:
            # A signal handler or URL preprocessor was first; Werkzeug cached what it read.
            return request.get_data()
        stream = request.environ["wsgi.input"]
        if not 0 < limit <= _AT_ONCE:
            return b"".join(_blocks(stream, limit))
        first: bytes = stream.read(limit)
        rest = limit - len(first)
        return b"".join([first, *_blocks(stream, rest)]) if first and rest else first
    except Exception as error:
        # Servers raise errors of their own for broken chunks and lost connections.
        raise MalformedRequest(f"the body could not be read: {type(error).__name__}") from error


def _blocks(stream: Any, limit: int) -> Iterator[bytes]:
    while limit > 0 and (block := stream.read(min(limit, _BLOCK))):
        limit -= len(block)
        yield block


def put_back(request: Request, body: bytes) -> None:
    """Let the view read the body again. Werkzeug would silently cut a chunked one at its limit."""
    environ = request.environ
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    if "HTTP_TRANSFER_ENCODING" in environ:
        del environ["HTTP_TRANSFER_ENCODING"]
    if "wsgi.input_terminated" in environ:
        del environ["wsgi.input_terminated"]


def put_back_decoded(request: Request, body: bytes) -> None:
    """Let the view read the body as if it had been sent without its content encoding."""
    put_back(request, body)
    request.environ.pop("HTTP_CONTENT_ENCODING", None)
    for name in _CACHED:
        request.__dict__.pop(name, None)


_FIELDS = {
    "max_json_depth": "max_depth",
    "max_json_members": "max_members",
    "max_string_length": "max_string",
    "max_elements": "max_elements",
    "max_decoded_bytes": "max_decoded",
}


@dataclass(frozen=True)
class Caps:
    """The limits on bodies of one app; each is the largest value that passes.

    :param max_bytes: of a body, as it is sent and after its content encoding is undone.
    :param max_depth: how deep arrays and objects nest.
    :param max_members: of one object.
    :param max_string: the bytes of one string, as it is written.
    :param max_elements: values that hold no other value, in all, and as many arrays and objects.
    :param max_decoded: the bytes of the arrays that a body declares.
    """

    max_bytes: int
    max_depth: int
    max_members: int
    max_string: int
    max_elements: int
    max_decoded: int

    @classmethod
    def of(cls, settings: Settings) -> Caps:
        """Return the configured limits."""
        return cls(
            settings.max_body_bytes,
            settings.max_json_depth,
            settings.max_json_members,
            settings.max_string_length,
            settings.max_elements,
            settings.max_decoded_bytes,
        )

    def changed(self, options: CapOptions) -> Caps:
        """Return the limits of a route that sets some of them itself."""
        own = {field: getattr(options, name) for name, field in _FIELDS.items()}
        return replace(self, **{field: cap for field, cap in own.items() if cap is not None})

    def check_declared(self, shape: Sequence[int], itemsize: int) -> None:
        """Check the bytes that a shape claims, by arithmetic on unbounded integers, before anything is allocated.

        A length of 0 counts as 1, so that it cannot hide others that no array can have.

        :raises PayloadTooLarge: 413.
        """
        if (
            max(shape, default=1) > self.max_decoded
            or prod(max(each, 1) for each in shape) * itemsize > self.max_decoded
        ):
            raise PayloadTooLarge(f"an array of {len(shape)} dimensions is over the limit of {self.max_decoded} bytes")

    def check_lists(self, shape: Sequence[int]) -> None:
        """Check the number of lists that an array of a shape becomes, and of values in them, before they are made.

        A shape of few or no values can mean very many lists: ``(10**8, 0)`` is as many empty ones.

        :raises PayloadTooLarge: 413.
        """
        *lists, values = accumulate(shape, mul, initial=1)
        if max(sum(lists), values) > self.max_elements:
            raise PayloadTooLarge(
                f"an array of {len(shape)} dimensions is more than {self.max_elements} lists or values"
            )
