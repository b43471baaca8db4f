"""The guards of the transport: TLS, and a request target that can be decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address

from flask import Request

from ..errors import MalformedRequest, TlsRequired
from ..exchange import Exchange
from ..pipeline import Stage

log: logging.Logger = logging.getLogger(__name__)

_HINT = (
    "requests in clear text get 403 tls_required. For development, serve TLS with a temporary certificate "
    "(flask run --cert adhoc), or allow clear text where no other machine can reach the port "
    "(SECURE_ML_REQUIRE_TLS = False)"
)


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

    In debug, the first rejection of a client on this machine is logged with what its developer can do.

    :param debug: returns True if the app is in debug.
    """

    name = "tls"
    stage = Stage.TRANSPORT

    def __init__(self, debug: Callable[[], bool] = lambda: False) -> None:
        self._debug = debug
        self._explained = False

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the scheme, unless the policy of the route makes TLS optional.

        :raises TlsRequired: the request came in clear text.
        """
        if not exchange.secure and not _is_optional(exchange):
            if not self._explained and self._debug() and _is_here(exchange.client):
                self._explained = True
                log.warning(_HINT)
            raise TlsRequired(f"insecure_transport: clear text from {exchange.client or 'a Unix socket'}")


def _is_optional(exchange: Exchange) -> bool:
    return exchange.policy is not None and exchange.policy.tls == "optional"


def _is_here(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
