"""The guard of request bodies: size, content encoding, format, and the schema of the route.

The body is read once, within a limit that also applies to chunked bodies, and restored, so that views of an existing
app can still call ``request.get_json()`` or ``request.get_data()``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from flask import Request
from marshmallow import Schema

from ..errors import MalformedRequest, PayloadTooLarge
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.options import NO_CAPS, CapOptions
from .body_stream import Caps, declared_length, is_handshake, put_back, put_back_decoded, read, settle_end
from .encodings import Encodings
from .fast_accept import Acceptor
from .formats import NO_OPTIONS, Formats, build_formats, check_charset, is_plain_json
from .formats.json import JSON, parse_json
from .load_context import collect_out_of_range
from .loading import Loader
from .number_arrays import NumberArrays, number_arrays

if TYPE_CHECKING:
    from ..config import Settings


class InputGuard:
    """Limits the body, decodes it, rejects JSON that is not strict, and loads it with the route's schema.

    :param caps: the limits of the app; a policy's ``caps`` take precedence. If the app sets Flask's
        ``MAX_CONTENT_LENGTH``, the smaller of the two limits applies.
    :param build: returns the accepted formats for routes with a schema, with the given limits.
    :param encodings: the content encodings that every route accepts.
    :param digest: returns the digest of a body for the audit log; None for no digests.
    :param arrays: the parser for arrays of numbers in JSON; None if its package is not installed.
    """

    name = "input"
    stage = Stage.INPUT

    def __init__(
        self,
        caps: Caps,
        build: Callable[[Caps], Formats],
        encodings: Encodings,
        arrays: NumberArrays | None = None,
        *,
        digest: Callable[[bytes], str] | None = None,
    ) -> None:
        self._caps = caps
        self._build = build
        self._rules_without_own: tuple[Caps, Formats] = (caps, build(caps))
        self._rules: dict[CapOptions, tuple[Caps, Formats]] = {}
        self._encodings = encodings
        self._digest = digest
        self._arrays = arrays
        self._loaders: dict[int, tuple[Schema, Loader, Acceptor]] = {}

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the body, and set the exchange's ``received_bytes`` and, with a schema, its ``payload`` and ``format``.

        :raises PayloadTooLarge: 413, before reading if the length is declared, and before parsing if counting is
            enough.
        :raises UnsupportedMediaType: 415, a content encoding, a charset or, on a route with a schema, a media type
            is not accepted (RFC 9110 sections 15.5.14 and 15.5.16).
        :raises MalformedRequest: 400, the body is truncated or malformed. An authenticated caller gets the rule and
            the position.
        :raises ValidationFailed: 422, the body does not match the schema.
        """
        settle_end(request.environ)
        schema = exchange.policy.body if exchange.policy else None
        encoding = self._encodings.of(request)
        try:
            if schema is not None:
                self._load(request, exchange, schema, encoding)
            elif request.is_json:
                check_charset(request, JSON)
                if body := self._body(request, exchange, encoding):
                    parse_json(body, self._rules_of(exchange)[0])
            elif encoding is not None or (
                _length(request, exchange, self._limit(request, exchange)) is None and not is_handshake(request.environ)
            ):
                self._body(request, exchange, encoding)
        except MalformedRequest as error:
            if exchange.principal is not None:
                error.members["errors"] = [{"pointer": "", "message": f"{error.rule[:1].upper()}{error.rule[1:]}."}]
            raise

    def _load(self, request: Request, exchange: Exchange, schema: Schema, encoding: str | None) -> None:
        caps, formats = self._rules_of(exchange)
        found = formats.find(request, schema)
        body = self._body(request, exchange, encoding)
        _, loader, acceptor = self._loader(schema)
        if is_plain_json(found, request) and (accepted := acceptor.accept(body, caps)) is not None:
            exchange.format, exchange.format_options = "json", NO_OPTIONS
            exchange.payload, exchange.out_of_range = accepted, 0
            return
        decoded = found.decode(body, request, schema)
        exchange.format, exchange.format_options = decoded.format, decoded.options
        with collect_out_of_range() as reports:
            exchange.payload = loader.load(decoded.value)
        exchange.out_of_range = sum(each.count for each in reports)

    def _loader(self, schema: Schema) -> tuple[Schema, Loader, Acceptor]:
        found = self._loaders.get(id(schema))
        if found is None:
            # Two threads may both create an entry, which is harmless. There is at most one per policy. Keeping the
            # schema ensures that its id is not reused.
            found = self._loaders[id(schema)] = (schema, Loader(schema), Acceptor(schema, self._arrays))
        return found

    def _rules_of(self, exchange: Exchange) -> tuple[Caps, Formats]:
        own = exchange.policy.caps if exchange.policy else NO_CAPS
        if own is NO_CAPS:
            return self._rules_without_own
        found = self._rules.get(own)
        if found is None:
            # Two threads may both create an entry, which is harmless. There is at most one per policy.
            caps = self._caps.changed(own)
            found = self._rules[own] = (caps, self._build(caps))
        return found

    def _body(self, request: Request, exchange: Exchange, encoding: str | None) -> bytes:
        """Return the body after content decoding."""
        limit = self._limit(request, exchange)
        body = read(request, _length(request, exchange, limit), limit)
        exchange.received_bytes = len(body)
        if self._digest is not None and body:
            exchange.input_digest = self._digest(body)
        if encoding is None:
            put_back(request, body)
        else:
            body = self._encodings.decode(encoding, body, limit)
            put_back_decoded(request, body)
        return body

    def _limit(self, request: Request, exchange: Exchange) -> int:
        own = exchange.policy.caps.max_body_bytes if exchange.policy else None
        limit = self._caps.max_bytes if own is None else own
        app_wide = request.max_content_length
        return limit if app_wide is None else min(limit, app_wide)


def _length(request: Request, exchange: Exchange, limit: int) -> int | None:
    """Return the declared length after checking it; bodies that are not read here need no other check."""
    length = declared_length(request.environ)
    if length is not None:
        exchange.received_bytes = length
        if length > limit:
            raise PayloadTooLarge(f"Content-Length {length} is over the limit of {limit} bytes")
    return length


def build_input_guard(settings: Settings, digest: Callable[[bytes], str] | None = None) -> InputGuard:
    """Return the guard of one app.

    :param digest: returns the digest of a body for the audit log.
    :raises ConfigError: a format or an encoding needs a package that is not installed.
    """
    build = partial(build_formats, settings.wire_formats)
    encodings = Encodings(settings.content_encodings)
    return InputGuard(Caps.of(settings), build, encodings, number_arrays(), digest=digest)
