"""ADMISSION: an address that keeps presenting invalid credentials has to wait (ASVS 5.0 6.3.1)."""

from __future__ import annotations

from flask import Request

from ..checks import Limits
from ..errors import RateLimited
from ..exchange import Exchange
from ..pipeline import Stage
from .limiter import Limiter, key_for, network_of


class FailureThrottle:
    """Counts invalid credentials by address, never by the key that was claimed: its owner is not locked out."""

    name = "failure-throttle"
    stage = Stage.ADMISSION

    def __init__(self, limiter: Limiter, limits: Limits) -> None:
        self._limiter = limiter
        self._limits = limits

    def check(self, request: Request, exchange: Exchange) -> None:
        """Raise :class:`~flask_secure_ml.errors.RateLimited` when the address has failed too often."""
        if exchange.policy and exchange.policy.public:
            return
        key = self._key(exchange)
        for item in self._limits:
            if not self._limiter.test(item, key):
                wait = str(self._limiter.retry_after(item, key))
                raise RateLimited(f"{exchange.client} failed to authenticate {item}", headers=[("Retry-After", wait)])

    def failed(self, exchange: Exchange) -> None:
        """Count one invalid credential."""
        for item in self._limits:
            self._limiter.hit(item, self._key(exchange))

    def _key(self, exchange: Exchange) -> str:
        return key_for("failed-authentication", network_of(exchange.client))
