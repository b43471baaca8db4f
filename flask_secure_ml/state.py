"""The state of one app: created by ``init_app``, frozen, and kept in ``app.extensions["secure_ml"]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import Flask

if TYPE_CHECKING:
    from .authentication.api_keys.key import KeyStore
    from .authentication.revocation import Revocations
    from .config import Settings
    from .limits.engine import Limiter
    from .observe.audit.log import AuditLog
    from .observe.metrics import Metrics
    from .outputs.responses import ResponseRules
    from .pipeline import Pipeline
    from .policy.matching import PolicyTable
    from .principal import Clock
    from .stores import SharedStore
    from .transport.beneath import Beneath
    from .transport.headers import HeaderCompletion
    from .transport.probes import Readiness

EXTENSION = "secure_ml"


@dataclass(frozen=True)
class AppState:
    """The settings and parts of one app."""

    settings: Settings
    pipeline: Pipeline
    policies: PolicyTable
    beneath: Beneath
    clock: Clock
    store: SharedStore
    responses: ResponseRules
    keys: KeyStore | None
    revocations: Revocations
    load: Callable[[], None]
    flask_headers: tuple[HeaderCompletion, ...]
    foreign_headers: tuple[HeaderCompletion, ...]
    readiness: Readiness
    limiter: Limiter
    metrics: Metrics | None
    audit: AuditLog | None


def state_of(app: Flask) -> AppState:
    """Return the state of an app.

    :raises RuntimeError: ``SecureML.init_app`` was not called for it.
    """
    if EXTENSION not in app.extensions:
        raise RuntimeError(f"{app.name!r} is not protected: call SecureML().init_app(app) first")
    return cast("AppState", app.extensions[EXTENSION])
