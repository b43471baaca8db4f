"""Builds the limiter of an app from its settings.

The notation of limits and the keys ``RATELIMIT_STORAGE_URI`` and ``RATELIMIT_STRATEGY`` are those of Flask-Limiter.
Counting is our own: the hooks of Flask-Limiter do not limit unknown URLs, static files and requests with an empty key,
join the parts of keys ambiguously, charge limits one by one, and respond with 500 while the storage is down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ..config import Settings
from ..config.fields import STORE_SCHEMES
from ..describing import is_described_only
from ..errors import ConfigError
from ..principal import Clock
from ..stores import sqlite_path
from .counters import Backoff, Counters
from .engine import Limiter
from .memory import MemoryCounters
from .plans import Tariffs
from .rules import STRATEGIES

NAME = "RATELIMIT_STORAGE_URI"
DEFAULT_STRATEGY = "sliding-window-counter"
_USAGE_IN_MEMORY = (
    "SECURE_ML_USAGE_DAYS requires a persistent store: set SECURE_ML_STORE_URI to sqlite:/path or redis://host"
)


def build_limiter(
    config: Mapping[str, Any],
    settings: Settings,
    clock: Clock,
    *,
    changed: Callable[[bool], object] | None = None,
    own_limiter: bool = False,
) -> Limiter:
    """Return the limiter of an app.

    :param config: of the app, for ``RATELIMIT_STORAGE_URI`` and ``RATELIMIT_STRATEGY``.
    :param changed: called with False when the store goes down, and with True when it is up again.
    :param own_limiter: the app has its own ``flask_limiter.Limiter``, whose configuration may not be valid here.
    :raises ConfigError: the store cannot be used.
    """
    uri = limit_store_uri(config, settings, own_limiter=own_limiter)
    if settings.usage_days and _scheme(uri) == "memory":
        raise ConfigError([_USAGE_IN_MEMORY])
    strategy = config.get("RATELIMIT_STRATEGY", DEFAULT_STRATEGY)
    if strategy not in STRATEGIES and own_limiter:
        strategy = DEFAULT_STRATEGY
    if strategy not in STRATEGIES:
        raise ConfigError([f"RATELIMIT_STRATEGY cannot be used: {_other_strategy(strategy)}"])
    backoff = None if settings.limit_backoff is None else Backoff(**asdict(settings.limit_backoff))
    return Limiter(
        _open_counters(uri, settings, clock, backoff),
        clock,
        Tariffs(strategy, settings.limit_outage),
        backoff=backoff,
        workers=settings.limit_workers or _configured_workers(),
        max_keys=settings.memory_max_keys,
        usage=bool(settings.usage_days),
        place=None if _scheme(uri) == "memory" else uri,
        changed=changed,
    )


def limit_store_uri(config: Mapping[str, Any], settings: Settings, *, own_limiter: bool = False) -> str:
    """Return the URI of the limit store: ``RATELIMIT_STORAGE_URI``, or that of the shared state."""
    uri = str(config.get("RATELIMIT_STORAGE_URI") or settings.store_uri)
    return settings.store_uri if own_limiter and _scheme(uri) not in STORE_SCHEMES else uri


def _scheme(uri: str) -> str:
    return uri.partition(":")[0]


# Each kind of store is imported only if it is configured.


def _open_counters(uri: str, settings: Settings, clock: Clock, backoff: Backoff | None) -> Counters:
    scheme = _scheme(uri)
    if scheme not in STORE_SCHEMES:
        raise ConfigError([f"{NAME} cannot be used: it must be memory:, sqlite:/path, redis://host or valkey://host"])
    if scheme == "memory":
        return MemoryCounters(clock, settings.memory_max_keys, backoff)
    if scheme == "sqlite":
        from .sqlite import SqliteCounters

        try:
            path = f"{sqlite_path(uri, NAME)}-limits"
            if is_described_only():
                return MemoryCounters(clock, settings.memory_max_keys, backoff)
            return SqliteCounters(path, clock, backoff, usage_days=settings.usage_days)
        except ValueError as error:
            raise ConfigError([f"{NAME} cannot be used: {error}"]) from None
    return _redis(uri, settings, clock, backoff)


def _redis(uri: str, settings: Settings, clock: Clock, backoff: Backoff | None) -> Counters:
    try:
        from .redis import RedisCounters
    except ImportError:
        raise ConfigError([f'{NAME} requires: pip install "flask-secure-ml[redis]"']) from None
    # The password is that of the shared state; another server has its own in the URI.
    password = settings.store_password if uri == settings.store_uri else None
    try:
        return RedisCounters(
            uri, password, clock, timeout=settings.store_timeout, backoff=backoff, usage_days=settings.usage_days
        )
    except Exception as error:  # noqa: BLE001  of several kinds, and their messages may contain the password
        problem = f"{NAME} cannot be used ({type(error).__name__}): it must be a URL such as redis://host:6379/0"
        raise ConfigError([problem]) from None


def _other_strategy(strategy: object) -> str:
    if strategy == "moving-window":
        return "use 'sliding-window-counter', or 'gcra' for a steady rate"
    return f"it must be one of {', '.join(STRATEGIES)}"


def _configured_workers() -> int:
    # gunicorn reads it too.
    configured = os.environ.get("WEB_CONCURRENCY", "")
    return max(1, int(configured)) if configured.isdecimal() else 1
