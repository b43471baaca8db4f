"""The state of an app, kept in ``app.extensions["secure_ml"]``, and the parts from which ``init_app`` creates it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flask import Flask

if TYPE_CHECKING:
    from .authentication.api_keys.key import KeyStore
    from .authentication.guard import Authenticator
    from .authentication.revocation import Revocations
    from .config import Settings
    from .limits.engine import Limiter
    from .observe.anomalies import Anomalies
    from .observe.audit.log import AuditLog
    from .observe.metrics import Certificates, Exposition, Metrics
    from .observe.request_log import Sink
    from .outputs.responses import ResponseRules
    from .pipeline import Filter, Guard, Pipeline, Recorder
    from .policy.matching import PolicyTable
    from .policy.options import OwnerHook
    from .principal import Clock
    from .stores import SharedStore
    from .transport.beneath import Beneath
    from .transport.headers import HeaderCompletion
    from .transport.probes import Readiness

EXTENSION = "secure_ml"


@dataclass(frozen=True)
class MetricsState:
    """The metrics of one app.

    :param counters: the metrics that are counted as events happen.
    :param exposition: the exposition of all metrics for a scraper.
    :param certificates: the certificate files whose expiry it includes.
    """

    counters: Metrics
    exposition: Exposition
    certificates: Certificates


@dataclass(frozen=True)
class AppState:
    """The settings and parts of one app."""

    settings: Settings
    configuration: Mapping[str, Any]
    """The configuration of this package when ``init_app`` read it."""
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
    metrics: MetricsState | None
    audit: AuditLog | None
    anomalies: Anomalies | None


def state_of(app: Flask) -> AppState:
    """Return the state of an app.

    :raises RuntimeError: ``SecureML.init_app`` was not called for it.
    """
    if EXTENSION not in app.extensions:
        raise RuntimeError(f"{app.name!r} is not protected: call SecureML().init_app(app) first")
    return cast("AppState", app.extensions[EXTENSION])


@dataclass(frozen=True)
class Parts:
    """The arguments of :class:`~flask_secure_ml.SecureML`."""

    authenticators: tuple[Authenticator, ...]
    guards: tuple[Guard, ...]
    filters: tuple[Filter, ...]
    recorders: tuple[Recorder, ...]
    clock: Clock
    sink: Sink | None
    owner: OwnerHook | None
