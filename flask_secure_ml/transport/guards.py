"""The guards of the transport: TLS, and a request target that can be decoded."""

from __future__ import annotations

from flask import Request

from ..errors import MalformedRequest, TlsRequired
from ..exchange import Exchange
from ..pipeline import Stage


class TargetGuard:
    """Requires an ASCII query (RFC 3986 section 2); Werkzeug raises an unhandled decoding error for others."""

    name = "target"
    stage = Stage.TRANSPORT

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the query.

        :raises MalformedRequest: it is not ASCII.
        """
        if not request.environ.get("QUERY_STRING", "").isascii():
            raise MalformedRequest("the query string is not ASCII")


class TlsGuard:
    """Requires TLS, by the scheme of the server or of a trusted proxy.

    :param exempt: the endpoints that respond in clear text too.
    """

    name = "tls"
    stage = Stage.TRANSPORT

    def __init__(self, exempt: frozenset[str] = frozenset()) -> None:
        self._exempt = exempt

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the scheme.

        :raises TlsRequired: the request came in clear text.
        """
        if not exchange.secure and exchange.endpoint not in self._exempt:
            raise TlsRequired(f"insecure_transport: clear text from {exchange.client or 'a Unix socket'}")
