"""How a request reaches the app."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from .record import setting


@dataclass(frozen=True)
class TransportSettings:
    """How a request reaches the app."""

    require_tls: bool = setting(
        True,
        checks.boolean,
        """Refuse clear text with 403 ``tls_required``. Turn it off only where no other machine can reach the
        port, such as a local development server; ``flask secure-ml check`` names it.""",
    )
    trusted_proxies: checks.Networks = setting(
        [],
        checks.networks,
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are believed, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. From anyone else these headers are removed.""",
    )
    hsts_max_age: int = setting(
        31_536_000,
        checks.integer(0),
        """Seconds for which browsers shall use HTTPS only (``Strict-Transport-Security``), sent on TLS
        connections only; 0 tells browsers to forget it.""",
    )
