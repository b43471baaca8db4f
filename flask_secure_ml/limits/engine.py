"""Counting in a limit storage that may be down.

Flask-Limiter reads its own ``RATELIMIT_*`` configuration and creates the storage. What is counted, for whom and when is
decided here: its hooks never limit unknown URLs or static files, let an empty key pass, join parts of keys ambiguously,
and respond with 500 while the storage is down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flask import Flask

from ..errors import ConfigError, DependencyUnavailable
from ..principal import Clock
from ..refresh import Breaker, Outage, PerProcess

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.storage import Storage
    from limits.strategies import RateLimiter

# The libraries are imported when an app is built: that takes longer than the rest of this package.

T = TypeVar("T")
Action: TypeAlias = "Callable[[RateLimiter], T]"

PAUSE = 1.0
"""Seconds for which a storage that failed is not called, so that requests in between do not wait for it."""

SOCKET_TIMEOUT = 0.25
"""Seconds to wait for a remote storage; the client library's own default is to wait for ever."""


class Limiter:
    """Counts by caller, with a policy for the time when the storage is down.

    :param connect: returns the strategy over the storage. Each process calls it for itself: clients of a server have
        locks and connections, which must not be carried over a fork.
    :param fallback: counts in this process.
    :param outage: ``memory`` counts in this process meanwhile, ``closed`` rejects with 503.
    """

    def __init__(self, connect: Callable[[], RateLimiter], fallback: RateLimiter, clock: Clock, outage: str) -> None:
        self._strategy = PerProcess(connect)
        self._fallback = fallback
        self._outage = outage
        log = Outage(
            f"the limit storage is down (outage policy {outage!r})", "the limit storage is up again", clock.monotonic
        )
        self._breaker = Breaker(clock, pause=PAUSE, outage=log)

    def connect(self) -> None:
        """Create the storage at start-up; one that is down is created when it is up.

        :raises Exception: the configuration can never work.
        """
        from limits.errors import ConfigurationError

        try:
            self._strategy.get()
        except (ConfigurationError, AssertionError, ImportError, NotImplementedError, TypeError, ValueError):
            raise
        except Exception as error:  # noqa: BLE001  each storage raises errors of its own
            self._breaker.failed(type(error).__name__)

    def hit(self, item: RateLimitItem, key: str, cost: int = 1) -> bool:
        """Charge ``cost``; return False, with nothing charged, if it does not fit.

        :raises DependencyUnavailable: the storage is down and the outage policy is ``closed``.
        """
        return self._run(lambda strategy: strategy.hit(item, key, cost=cost))

    def test(self, item: RateLimitItem, key: str, cost: int = 1) -> bool:
        """Return True if ``cost`` would fit, without charging it."""
        return self._run(lambda strategy: strategy.test(item, key, cost=cost))

    def retry_after(self, item: RateLimitItem, key: str) -> int:
        """Return whole seconds, at least 1, until the window of a key moves on."""
        reset = self._run(lambda strategy: strategy.get_window_stats(item, key).reset_time)
        return min(max(1, _seconds_until(reset)), item.get_expiry())

    def count(self, key: str, seconds: int, amount: int = 1) -> int:
        """Add to a plain counter and return the sum; it expires some seconds after its first use.

        :raises DependencyUnavailable: as :meth:`hit`.
        """
        return self._run(lambda strategy: strategy.storage.incr(key, seconds, amount))

    def counted(self, key: str) -> int:
        """Return a plain counter; 0 for one that was never used or has expired."""
        return self._run(lambda strategy: strategy.storage.get(key))

    def remaining(self, key: str) -> int:
        """Return whole seconds until a plain counter expires; 0 for one that was never used or has expired."""
        return max(0, _seconds_until(self._run(lambda strategy: strategy.storage.get_expiry(key))))

    def ready(self) -> None:
        """Raise what :meth:`hit` would raise for every caller.

        :raises DependencyUnavailable: the storage is down and the outage policy is ``closed``.
        """
        self.counted("ready")

    def _run(self, action: Action[T]) -> T:
        if self._breaker.wait():
            return self._degraded(action)
        try:
            strategy = self._strategy.get()
        except Exception as error:  # noqa: BLE001  each storage raises errors of its own
            return self._failed(error, action)
        try:
            result = action(strategy)
        except _errors(strategy.storage) as error:
            return self._failed(error, action)
        self._breaker.succeeded()
        return result

    def _failed(self, error: Exception, action: Action[T]) -> T:
        self._breaker.failed(type(error).__name__)
        return self._degraded(action)

    def _degraded(self, action: Action[T]) -> T:
        if self._outage == "closed":
            raise DependencyUnavailable("the limit storage is down", headers=[("Retry-After", "1")])
        return action(self._fallback)


def _errors(storage: Storage) -> tuple[type[Exception], ...]:
    errors = storage.base_exceptions
    return (*(errors if isinstance(errors, tuple) else (errors,)), OSError)


def _seconds_until(instant: float) -> int:
    # Storages convert the seconds that are left to the time of day; the difference is theirs again.
    return math.ceil(round(instant - time.time(), 3))


def build_limiter(config: Mapping[str, Any], clock: Clock, outage: str) -> Limiter:
    """Return the limiter for the ``RATELIMIT_*`` keys.

    :raises ConfigError: the storage or the strategy can never work.
    """
    from limits.strategies import STRATEGIES

    from .memory import ProcessStorage

    name = config.get("RATELIMIT_STRATEGY", "sliding-window-counter")
    if name not in STRATEGIES:
        raise ConfigError([f"RATELIMIT_STRATEGY cannot be used: it must be one of {', '.join(sorted(STRATEGIES))}"])
    uri = config.get("RATELIMIT_STORAGE_URI", "memory://")
    strategy = STRATEGIES[name]
    here = strategy(ProcessStorage(clock))
    remote = not uri.startswith("memory:")
    limiter = Limiter((lambda: strategy(_connect(config, uri))) if remote else lambda: here, here, clock, outage)
    try:
        limiter.connect()
    except Exception as error:  # noqa: BLE001  of several kinds
        # The URI may contain a password.
        reason = str(error).replace(uri, "the URI")
        raise ConfigError([f"RATELIMIT_STORAGE_URI cannot be used: {reason}"]) from None
    return limiter


def _connect(config: Mapping[str, Any], uri: str) -> Storage:
    """Let Flask-Limiter create the storage, on an app of its own so that none of its hooks reach the user's."""
    # Importing it takes longer than most apps need to start, and counting in memory does not need it.
    import flask_limiter

    wiring = Flask("flask_secure_ml.limits")
    wiring.config.update({key: value for key, value in config.items() if key.startswith("RATELIMIT_")})
    wiring.config["RATELIMIT_STORAGE_OPTIONS"] = _storage_options(config, uri)
    limiter = flask_limiter.Limiter(flask_limiter.util.get_remote_address)
    limiter.init_app(wiring)
    return limiter.limiter.storage


def _storage_options(config: Mapping[str, Any], uri: str) -> dict[str, Any]:
    given = dict(config.get("RATELIMIT_STORAGE_OPTIONS") or {})
    if uri.partition(":")[0].startswith(("redis", "valkey")):
        timeouts = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": SOCKET_TIMEOUT}
        return timeouts | given
    return given


def key_for(*parts: str) -> str:
    """Return one key from several parts; a digest, so that no separator inside a part can forge another key."""
    return blake2b(
        "\x00".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()
