"""Refuses clear text. Never a redirect: by then the secret has already crossed the wire (ASVS 5.0 4.1.2)."""

from __future__ import annotations

from flask import Request

from ..errors import TlsRequired
from ..exchange import Exchange
from ..pipeline import Stage


class TlsGuard:
    """Lets only TLS requests pass, by the scheme of the server or of a trusted proxy."""

    name = "tls"
    stage = Stage.TRANSPORT

    def check(self, request: Request, exchange: Exchange) -> None:
        """Raise :class:`~flask_secure_ml.errors.TlsRequired` for clear text."""
        if not exchange.secure:
            raise TlsRequired(f"insecure_transport: clear text from {exchange.client or 'a Unix socket'}")
