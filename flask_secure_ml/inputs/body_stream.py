"""Reading a request body: exactly its declared length, at most the limit, and restored so that views can read it."""

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


# More digits than any limit has, and fewer than int() accepts.
_LENGTH_DIGITS = 18
_BLOCK = 65_536
# The size of one read. A large one saves a copy of the body if the server has received all of it.
_AT_ONCE = 4_194_304
# Attributes in which Werkzeug caches the body and its length.
_CACHED = ("stream", "content_length", "_cached_data", "_cached_json")


def whole_number(digits: str) -> int | None:
    """Return the number in a string of up to 18 digits; None for any other string."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LENGTH_DIGITS else None


def declared_length(environ: WSGIEnvironment) -> int | None:
    """Return the ``Content-Length``; None if there is none.

    :raises MalformedRequest: the length is not a number, or there is a transfer coding too: two readers of such a
        request can disagree on where it ends (RFC 9112 section 6.3).
    :raises PayloadTooLarge: the number has more digits than any limit.
    """
    value = environ.get("CONTENT_LENGTH") or ""
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding and (coding := coding.strip().lower()):
        _check_coding(coding, environ)
    if not value:
        return None
    length = None if coding else whole_number(value)
    if length is None and (coding or not (value.isascii() and value.isdigit())):
        raise MalformedRequest("Content-Length is not a number, or Transfer-Encoding is also present")
    if length is None:
        raise PayloadTooLarge(f"Content-Length has {len(value)} digits")
    return length


def is_handshake(environ: WSGIEnvironment) -> bool:
    """Return True for a WebSocket handshake (RFC 6455 section 4.1), which has no body.

    The input that a server passes for it contains the first frames.
    """
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and environ.get("REQUEST_METHOD") == "GET"
        and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")
        and not environ.get("CONTENT_LENGTH")
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def settle_end(environ: WSGIEnvironment) -> None:
    """Remove ``wsgi.input_terminated`` if reading the input would block.

    For upgrade requests, gevent's server passes the raw connection as the input and sets the flag to False, which
    Werkzeug treats as True.
    """
    if "wsgi.input_terminated" in environ and (not environ["wsgi.input_terminated"] or is_handshake(environ)):
        del environ["wsgi.input_terminated"]


def _check_coding(coding: str, environ: WSGIEnvironment) -> None:
    if coding != "chunked":
        raise MalformedRequest("the transfer coding is not chunked")
    if "wsgi.input_terminated" not in environ:
        raise MalformedRequest(
            "the body is chunked, which this WSGI server does not decode", rule="a chunked body is not accepted"
        )


def read(request: Request, length: int | None, limit: int) -> bytes:
    """Return the body: exactly its declared length, or without one, all data up to the limit.

    :raises PayloadTooLarge: a body without a declared length exceeds the limit.
    :raises MalformedRequest: the body ends early or cannot be read.
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
            # A signal handler or URL preprocessor has already read the body; Werkzeug cached it.
            return request.get_data()
        stream = request.environ["wsgi.input"]
        if not 0 < limit <= _AT_ONCE:
            return b"".join(_blocks(stream, limit))
        first: bytes = stream.read(limit)
        rest = limit - len(first)
        return b"".join([first, *_blocks(stream, rest)]) if first and rest else first
    except Exception as error:
        # Servers raise their own exceptions for invalid chunks and lost connections.
        kind = type(error.__cause__ or error).__name__
        rule = "the body could not be read"
        raise MalformedRequest(f"{rule}: {kind}", rule=rule) from error


def _blocks(stream: Any, limit: int) -> Iterator[bytes]:
    while limit > 0 and (block := stream.read(min(limit, _BLOCK))):
        limit -= len(block)
        yield block


def put_back(request: Request, body: bytes) -> None:
    """Let the view read the body again. Otherwise Werkzeug would silently truncate a chunked body at its limit."""
    environ = request.environ
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    if "HTTP_TRANSFER_ENCODING" in environ:
        del environ["HTTP_TRANSFER_ENCODING"]
    if "wsgi.input_terminated" in environ:
        del environ["wsgi.input_terminated"]


def put_back_decoded(request: Request, body: bytes) -> None:
    """Let the view read the decoded body as if it had been sent without content encoding."""
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
    """The limits on request bodies of one app; each is the largest accepted value.

    :param max_bytes: bytes of a body, both as sent and after content decoding.
    :param max_depth: nesting depth of arrays and objects.
    :param max_members: members of one object.
    :param max_string: bytes of one string, as sent.
    :param max_elements: values that contain no other value, in total, and the same number of arrays and objects.
    :param max_decoded: bytes of the arrays that a body declares.
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
        """Return the limits of a route, whose own limits take precedence."""
        own = {field: getattr(options, name) for name, field in _FIELDS.items()}
        return replace(self, **{field: cap for field, cap in own.items() if cap is not None})

    def check_declared(self, shape: Sequence[int], itemsize: int) -> None:
        """Check the size of a declared shape before any memory is allocated.

        The arithmetic uses Python integers, so it cannot overflow. A length of 0 counts as 1, so that it cannot hide
        lengths that no array can have.

        :raises PayloadTooLarge: 413, it is over the limit.
        """
        if (
            max(shape, default=1) > self.max_decoded
            or prod(max(each, 1) for each in shape) * itemsize > self.max_decoded
        ):
            raise PayloadTooLarge(f"an array of {len(shape)} dimensions is over the limit of {self.max_decoded} bytes")

    def check_lists(self, shape: Sequence[int]) -> None:
        """Check the number of lists, and of values, into which an array of this shape would be converted.

        A shape with few or no values can need many lists: ``(10**8, 0)`` is 100 million empty ones.

        :raises PayloadTooLarge: 413, it is over the limit.
        """
        *lists, values = accumulate(shape, mul, initial=1)
        if max(sum(lists), values) > self.max_elements:
            raise PayloadTooLarge(
                f"an array of {len(shape)} dimensions is more than {self.max_elements} lists or values"
            )
