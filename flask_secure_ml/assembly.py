"""Builds the parts of one app from what was declared and what is configured, in one visible place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Flask

from .authentication.base import Authenticator
from .authentication.setup import build_authentication
from .authorization import AuthorizationGuard, OwnerHook
from .config import Settings
from .errors import ConfigError
from .exchange import Clock
from .inputs.setup import build_input_guard
from .limits.limiter import Limiter, build_limiter
from .limits.penalties import FailureThrottle
from .limits.plans import CostGuard, RateGuard
from .observe.request_log import RequestLog, Sink, open_sink
from .outputs import Answers, ConditionGuard, OutputFilter
from .pipeline import Filter, Guard, Pipeline, Recorder
from .policy_table import PolicyTable
from .state import AppState
from .stores.open import open_store
from .transport.beneath import Beneath
from .transport.headers import HeaderFilter
from .transport.target import TargetGuard
from .transport.tls import TlsGuard


@dataclass(frozen=True)
class Parts:
    """What the user declared on the extension object."""

    authenticators: tuple[Authenticator, ...]
    guards: tuple[Guard, ...]
    filters: tuple[Filter, ...]
    recorders: tuple[Recorder, ...]
    clock: Clock
    sink: Sink | None
    owner: OwnerHook | None


def build_state(app: Flask, parts: Parts, below: Beneath) -> AppState:
    """Return the frozen state of one app.

    :raises ConfigError: the configuration is not safe.
    """
    settings = Settings.load(app.config)
    store = open_store(settings.store_uri, settings.store_password, parts.clock)
    limiter = build_limiter(app.config, parts.clock, settings.limit_outage)
    throttle = FailureThrottle(limiter, settings.failed_auth_limit, settings.failed_key_limit, parts.clock)
    authentication = build_authentication(settings, parts.clock, store, parts.authenticators, throttle.failed)
    guards = _guards(settings, parts, limiter, [throttle, authentication.guard])
    pipeline = Pipeline.build(
        [*guards, *parts.guards],
        [
            *parts.filters,
            OutputFilter(Answers(settings.plans)),
            HeaderFilter(settings.hsts_max_age, _exposed(settings)),
        ],
        [*_recorders(settings, parts), *parts.recorders],
    )
    mounts = (*below.mounts, *settings.mounts)
    policies = PolicyTable(app, settings.policies, owner_hook=parts.owner is not None, mounts=mounts)
    return AppState(
        settings, pipeline, policies, below, parts.clock, store, authentication.keys, authentication.revocations
    )


def _exposed(settings: Settings) -> tuple[str, ...]:
    # A client in a browser needs them to answer a challenge (RFC 9449 section 8.2).
    return () if settings.dpop == "off" else ("WWW-Authenticate", "DPoP-Nonce")


def _guards(settings: Settings, parts: Parts, limiter: Limiter, who: Sequence[Guard]) -> Iterator[Guard]:
    if settings.require_tls:
        yield TlsGuard()
    yield TargetGuard()
    yield from who
    yield AuthorizationGuard(parts.owner, parts.clock)
    yield RateGuard(limiter, settings.plans)
    yield ConditionGuard(Answers(settings.plans))
    yield build_input_guard(settings)
    yield CostGuard(limiter, settings.plans)


def _recorders(settings: Settings, parts: Parts) -> Iterator[Recorder]:
    try:
        sink = parts.sink or open_sink(settings.request_log, parts.clock)
    except OSError as error:
        raise ConfigError([f"SECURE_ML_REQUEST_LOG cannot be opened: {error}"]) from None
    if sink is not None:
        yield RequestLog(sink)
