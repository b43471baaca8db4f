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
    mounts: tuple[str, ...] = setting(
        [],
        checks.mount_paths,
        """Paths at which WSGI middleware beneath the guards responds itself, such as ``["/metrics"]``. They take no
        policy from a route: theirs is in ``SECURE_ML_POLICIES`` by path, or the default one. The mounts of Werkzeug's
        ``DispatcherMiddleware`` and ``SharedDataMiddleware`` and the path of Socket.IO are known without this.""",
    )
    outer_middleware: tuple[str, ...] = setting(
        [],
        checks.middleware_names,
        """WSGI middleware that may stand around the app, by the import name of its class or function, such as
        ``["whitenoise.base.WhiteNoise"]``. Requests that it responds to itself are not guarded, so put it there before
        ``init_app`` instead where you can. ``ProxyFix`` is never accepted.""",
    )
