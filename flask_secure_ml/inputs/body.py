"""The body of a request: how large, in which format, and is it what the route's schema says.

The body is read here once, within a cap that holds for chunked bodies too, and put back, so that a view of an
older app can still call ``request.get_json()`` or ``request.get_data()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from flask import Request
from marshmallow import Schema, ValidationError

from .. import strictjson
from ..errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from ..exchange import Exchange
from ..pipeline import Stage
from . import reports
from .problems import validation_failed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON = "application/json"
# More digits than any cap has; also keeps int() from its limit on long texts.
_LENGTH_DIGITS = 18
_BLOCK = 65_536


class InputGuard:
    """Caps the body, holds JSON to :mod:`flask_secure_ml.strictjson`, and loads it with the route's schema.

    :param max_bytes: the largest body in bytes; a policy's own ``max_bytes`` comes before it. Where the app sets
        Flask's ``MAX_CONTENT_LENGTH``, the smaller of the two holds.
    :param max_depth: how deep the arrays and objects of JSON may nest.
    """

    name = "input"
    stage = Stage.INPUT

    def __init__(self, max_bytes: int, max_depth: int) -> None:
        self._max_bytes = max_bytes
        self._max_depth = max_depth

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the body, and set the exchange's ``received_bytes`` and, with a schema, its ``payload``.

        :raises PayloadTooLarge: 413, before the body is read where its length is declared.
        :raises UnsupportedMediaType: 415, for a content encoding, a charset other than UTF-8, and a media type
            other than JSON on a route with a schema (RFC 9110 sections 15.5.14 and 15.5.16).
        :raises MalformedRequest: 400, for a body that ends early, and JSON that is not strict.
        :raises ValidationFailed: 422, for JSON that is not what the schema says.
        """
        schema = _schema(request, exchange)
        _check_encoding(request)
        if schema is not None or request.is_json:
            _check_media_type(request, required=schema is not None)
        body = self._body(request, exchange)
        if schema is not None:
            with reports.collect() as found:
                exchange.payload = _load(schema, self._parse(body or b""))
            exchange.out_of_range = sum(each.count for each in found)
        elif body and request.is_json:
            self._parse(body)

    def _body(self, request: Request, exchange: Exchange) -> bytes | None:
        """Return the body, or None when it is left in its stream: its length is known, and nothing parses it."""
        cap = self._cap(request, exchange)
        length = _declared_length(request.environ)
        if length is not None:
            exchange.received_bytes = length
            if length > cap:
                raise PayloadTooLarge(f"Content-Length {length} is over the cap of {cap} bytes")
            if not request.is_json:
                return None
        body = _read(request, length, cap)
        exchange.received_bytes = len(body)
        _put_back(request, body)
        return body

    def _cap(self, request: Request, exchange: Exchange) -> int:
        own = exchange.policy.max_bytes if exchange.policy else None
        cap = self._max_bytes if own is None else own
        app_wide = request.max_content_length
        return cap if app_wide is None else min(cap, app_wide)

    def _parse(self, body: bytes) -> Any:
        try:
            return strictjson.loads(body, max_depth=self._max_depth)
        except strictjson.StrictJSONError as error:
            raise MalformedRequest(f"the body is not strict JSON: {error}") from None


def _schema(request: Request, exchange: Exchange) -> Schema | None:
    """Return the schema that the view relies on. No view runs when Flask answers OPTIONS itself."""
    automatic = request.method == "OPTIONS" and getattr(request.url_rule, "provide_automatic_options", False)
    return None if automatic or exchange.policy is None else exchange.policy.body


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType("the body has a content encoding", headers=[("Accept-Encoding", "identity")])


def _check_media_type(request: Request, *, required: bool) -> None:
    if required and request.mimetype != JSON:
        raise UnsupportedMediaType("the media type is not application/json", headers=[("Accept", JSON)])
    if request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedMediaType("the charset of JSON is not UTF-8", headers=[("Accept", JSON)])


def _declared_length(environ: WSGIEnvironment) -> int | None:
    """Return the ``Content-Length``; None when there is none.

    :raises MalformedRequest: a length beside a transfer coding, or one that is no number: two readers of such a
        request can disagree where it ends (RFC 9112 section 6.3).
    """
    text = environ.get("CONTENT_LENGTH") or ""
    coding = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    if coding:
        _check_coding(coding, environ)
    if not text:
        return None
    if coding or not (text.isascii() and text.isdigit()):
        raise MalformedRequest("Content-Length is not a number, or stands beside Transfer-Encoding")
    if len(text) > _LENGTH_DIGITS:
        raise PayloadTooLarge(f"Content-Length has {len(text)} digits")
    return int(text)


def _check_coding(coding: str, environ: WSGIEnvironment) -> None:
    if coding != "chunked":
        raise MalformedRequest("the transfer coding is not chunked")
    if "wsgi.input_terminated" not in environ:
        raise MalformedRequest("the body is chunked, which this WSGI server does not decode")


def _read(request: Request, length: int | None, cap: int) -> bytes:
    """Read the body: exactly the declared length, or what the server delivers up to the cap."""
    if length is None and "wsgi.input_terminated" not in request.environ:
        return b""
    body = _received(request, cap + 1 if length is None else length)
    if length is None and len(body) > cap:
        raise PayloadTooLarge(f"a body without a declared length is over the cap of {cap} bytes")
    if length is not None and len(body) != length:
        raise MalformedRequest(f"the body ends after {len(body)} of {length} bytes")
    return body


def _received(request: Request, limit: int) -> bytes:
    try:
        if "stream" in request.__dict__:
            # A signal handler or URL preprocessor was here first; Werkzeug kept what it read.
            return request.get_data()
        return b"".join(_blocks(request.environ["wsgi.input"], limit))
    except Exception as error:
        # Servers raise errors of their own for broken chunks and lost connections.
        raise MalformedRequest(f"the body could not be read: {type(error).__name__}") from error


def _blocks(stream: Any, limit: int) -> Iterator[bytes]:
    while limit > 0 and (block := stream.read(min(limit, _BLOCK))):
        limit -= len(block)
        yield block


def _put_back(request: Request, body: bytes) -> None:
    """Let the view read the body again. Werkzeug would cut a chunked one at its limit without a word."""
    environ = request.environ
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)


def _load(schema: Schema, value: Any) -> Any:
    try:
        return schema.load(value)
    except ValidationError as error:
        raise validation_failed(error) from None
