"""LIMIT, COST and ADMISSION: how much a caller may use, and how often a network may fail to authenticate."""

from __future__ import annotations

from ..exchange import current_exchange
from ..principal import network_of

__all__ = ["caller"]


def caller() -> str:
    """Return who is charged for the current request: a ``key_func`` for a ``flask_limiter.Limiter`` of the app's own.

    It is the id of the principal, or the network of an anonymous caller. For a request that was rejected before it was
    authenticated it is the network of the client, so that the key is never empty: Flask-Limiter would not limit it.
    """
    return current_exchange.caller or network_of(current_exchange.client)
