"""The transport guards: TLS, and a decodable request target."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Request

from ..errors import MalformedRequest, TlsRequired
from ..exchange import Exchange
from ..pipeline import Stage

log: logging.Logger = logging.getLogger(__name__)

_HINT = (
    "requests in clear text get 403 tls_required. If a proxy in front of the app terminates TLS, add it to "
    "SECURE_ML_TRUSTED_PROXIES. For development, serve TLS with a temporary certificate (flask run --cert adhoc), or "
    "allow clear text if other machines cannot reach the port (SECURE_ML_REQUIRE_TLS = False)"
)


class TargetGuard:
    """Requires an ASCII query (RFC 3986 section 2).

    Werkzeug raises an unhandled decoding error for others.
    """

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

    A client on this machine or in its network may be an untrusted proxy, or a developer. So the private reason gives
    advice, and in debug mode, the first rejection is also logged as a warning. Outside debug mode, logging could block
    on a stream without a reader.

    :param debug: returns True if the app is in debug mode.
    """

    name = "tls"
    stage = Stage.TRANSPORT

    def __init__(self, debug: Callable[[], bool] = lambda: False) -> None:
        self._debug = debug
        self._explained = False

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check the scheme, unless the policy of the route makes TLS optional.

        :raises TlsRequired: the request was sent in clear text.
        """
        if exchange.secure or _is_optional(exchange):
            return
        reason = f"insecure_transport: clear text from {exchange.client or 'a Unix socket'}"
        if exchange.client != exchange.peer:
            reason += f", whose proxy {exchange.peer or 'at a Unix socket'} sends no X-Forwarded-Proto: https"
        elif _is_near(exchange.peer):
            reason += "; a proxy that terminates TLS must be in SECURE_ML_TRUSTED_PROXIES"
            if not self._explained and self._debug():
                self._explained = True
                log.warning(_HINT)
        raise TlsRequired(reason)


def _is_optional(exchange: Exchange) -> bool:
    return exchange.policy is not None and exchange.policy.tls == "optional"


def _is_near(address: str) -> bool:
    """Return True for a Unix socket, and for an IP address that is not public."""
    if not address:
        return True
    # Imported here because most apps do not need it.
    from ..fetch import is_public

    return not is_public(address)
