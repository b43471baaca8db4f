"""Refuses a request target that no client may send, before anything decodes it."""

from __future__ import annotations

from flask import Request

from ..errors import MalformedRequest, TlsRequired
from ..exchange import Exchange
from ..pipeline import Stage


class TargetGuard:
    """Asks for an ASCII query (RFC 3986 section 2); Werkzeug answers others with an unhandled decoding error."""

    name = "target"
    stage = Stage.TRANSPORT

    def check(self, request: Request, exchange: Exchange) -> None:
        """Raise :class:`~flask_secure_ml.errors.MalformedRequest` for a query that is not ASCII."""
        if not request.environ.get("QUERY_STRING", "").isascii():
            raise MalformedRequest("the query string is not ASCII")


class TlsGuard:
    """Lets only TLS requests pass, by the scheme of the server or of a trusted proxy."""

    name = "tls"
    stage = Stage.TRANSPORT

    def check(self, request: Request, exchange: Exchange) -> None:
        """Raise :class:`~flask_secure_ml.errors.TlsRequired` for clear text."""
        if not exchange.secure:
            raise TlsRequired(f"insecure_transport: clear text from {exchange.client or 'a Unix socket'}")
