"""Counting against a storage that may be down.

Flask-Limiter reads its own ``RATELIMIT_*`` configuration and builds the storage and the strategy. What is
counted, for whom and when is ours: its hooks never limit unknown URLs or static files, let an empty key pass,
join key parts ambiguously, and answer 500 while the storage is down.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Any, TypeVar

import flask_limiter
from flask import Flask
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import RateLimiter

from ..errors import ConfigError, DependencyUnavailable
from ..exchange import Exchange
from ..principal import Clock

log: logging.Logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 1.0
"""How long a storage that failed is left alone: requests in between pay nothing for it."""

SOCKET_TIMEOUT = 0.25
"""Seconds to wait for a remote storage; the client library's own default is to wait for ever."""


class Limiter:
    """Limits by caller, with a policy for the time when the storage is down.

    :param strategy: the strategy over the configured storage.
    :param outage: ``memory`` counts in this process meanwhile, ``closed`` refuses with 503.
    """

    def __init__(self, strategy: RateLimiter, clock: Clock, outage: str) -> None:
        self._strategy = strategy
        self._fallback = type(strategy)(MemoryStorage())
        self._clock = clock
        self._outage = outage
        self._retry_at = -math.inf
        errors = strategy.storage.base_exceptions
        self._errors: tuple[type[Exception], ...] = (*(errors if isinstance(errors, tuple) else (errors,)), OSError)

    def hit(self, item: RateLimitItem, key: str, cost: int = 1) -> bool:
        """Charge ``cost``; False, with nothing charged, when it does not fit.

        :raises DependencyUnavailable: the storage is down and the outage policy is ``closed``.
        """
        return self._run(lambda strategy: strategy.hit(item, key, cost=cost))

    def test(self, item: RateLimitItem, key: str, cost: int = 1) -> bool:
        """Return whether ``cost`` would fit, without charging it."""
        return self._run(lambda strategy: strategy.test(item, key, cost=cost))

    def retry_after(self, item: RateLimitItem, key: str) -> int:
        """Return whole seconds, at least 1, until the window of this key moves on."""
        reset = self._run(lambda strategy: strategy.get_window_stats(item, key).reset_time)
        return min(max(1, math.ceil(reset - self._clock.now())), item.get_expiry())

    def count(self, key: str, seconds: int, amount: int = 1) -> int:
        """Add to a plain number and return the sum; the number is forgotten some seconds after its first use.

        :raises DependencyUnavailable: as :meth:`hit`.
        """
        return self._run(lambda strategy: strategy.storage.incr(key, seconds, amount))

    def counted(self, key: str) -> int:
        """Return the plain number of a key; 0 for one that was never counted or is forgotten."""
        return self._run(lambda strategy: strategy.storage.get(key))

    def _run(self, action: Callable[[RateLimiter], T]) -> T:
        if self._clock.monotonic() < self._retry_at:
            return self._degraded(action)
        try:
            return action(self._strategy)
        except self._errors as error:
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS
            log.error("the limit storage failed (%s): outage policy %r", type(error).__name__, self._outage)
            return self._degraded(action)

    def _degraded(self, action: Callable[[RateLimiter], T]) -> T:
        if self._outage == "closed":
            raise DependencyUnavailable("the limit storage is down", headers=[("Retry-After", "1")])
        return action(self._fallback)


def build_limiter(config: Mapping[str, Any], clock: Clock, outage: str) -> Limiter:
    """Let Flask-Limiter read ``RATELIMIT_*``, on an app of its own so that none of its hooks reach the user's.

    :raises ConfigError: the storage or the strategy cannot be used.
    """
    wiring = Flask("flask_secure_ml.limits")
    wiring.config.update({key: value for key, value in config.items() if key.startswith("RATELIMIT_")})
    if not wiring.config.setdefault("RATELIMIT_ENABLED", True):
        raise ConfigError(["RATELIMIT_ENABLED must be true; to lift limits, leave them out of plans and policies"])
    wiring.config.setdefault("RATELIMIT_STRATEGY", "sliding-window-counter")
    wiring.config.setdefault("RATELIMIT_STORAGE_URI", "memory://")
    wiring.config["RATELIMIT_STORAGE_OPTIONS"] = _storage_options(wiring.config)
    limiter = flask_limiter.Limiter(flask_limiter.util.get_remote_address)
    try:
        limiter.init_app(wiring)
    except Exception as error:  # noqa: BLE001  each storage raises errors of its own
        raise ConfigError([f"RATELIMIT_STORAGE_URI or RATELIMIT_STRATEGY cannot be used: {error}"]) from None
    return Limiter(limiter.limiter, clock, outage)


def _storage_options(config: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(config.get("RATELIMIT_STORAGE_OPTIONS") or {})
    if config["RATELIMIT_STORAGE_URI"].partition(":")[0].startswith(("redis", "valkey")):
        timeouts = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": SOCKET_TIMEOUT}
        return timeouts | given
    return given


def key_for(*parts: str) -> str:
    """Return one key from several parts; a digest, so that no separator inside a part can forge another key."""
    return blake2b(
        "\x00".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def caller_of(exchange: Exchange) -> str:
    """Return who pays: the principal, or the network address of an anonymous caller."""
    return exchange.principal.id if exchange.principal else f"address:{network_of(exchange.client)}"


def network_of(address: str) -> str:
    """Return the address, and for IPv6 the /64 network that one subscriber commonly holds."""
    if ":" not in address:
        return address or "unknown"
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return "unknown"
    # On a socket for both families every IPv4 caller is an IPv6 address with one common prefix.
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
