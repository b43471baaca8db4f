"""LIMIT, COST and ADMISSION: limits and quotas of callers, and the throttle for failed authentication."""

from __future__ import annotations

from ..exchange import current_exchange
from ..principal import network_of

__all__ = ["caller"]


def caller() -> str:
    """Return who is charged for the current request; a ``key_func`` for the app's own ``flask_limiter.Limiter``.

    It is the id of the principal, or the network of an anonymous caller. If a request is rejected before
    authentication, it is the network of the client, because Flask-Limiter does not limit requests with an empty key.
    """
    return current_exchange.caller or network_of(current_exchange.client)
