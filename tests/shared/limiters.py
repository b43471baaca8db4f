"""Limiters with the settings of an app."""

from __future__ import annotations

from typing import Any

from flask_secure_ml.config import Settings
from flask_secure_ml.limits.engine import Limiter
from flask_secure_ml.limits.setup import build_limiter
from flask_secure_ml.policy.limits import Limit, LimitList
from flask_secure_ml.principal import Clock


def limiter_of(clock: Clock, outage: str = "degrade", uri: str = "memory:", **settings: Any) -> Limiter:
    """Return a limiter; settings are ``SECURE_ML_*`` without the prefix, or ``RATELIMIT_*``."""
    # A long timeout, because a busy machine can be slow.
    given = {"RATELIMIT_STORAGE_URI": uri, "LIMIT_OUTAGE": outage, "STORE_TIMEOUT": 2.0} | settings
    config = {name if name.startswith("RATELIMIT_") else f"SECURE_ML_{name}": each for name, each in given.items()}
    return build_limiter(config, Settings.load(config), clock)


def limit(notation: str) -> Limit:
    """Return one limit."""
    found: Limit = LimitList().deserialize([notation])[0]
    return found
