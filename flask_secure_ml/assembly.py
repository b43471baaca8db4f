"""Builds the parts of one app from what was declared and what is configured, in one visible place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask

from .authentication.api_keys import ApiKeyAuthenticator, FileKeyStore
from .authentication.base import AuthenticationGuard, Authenticator
from .authentication.jwt import JwtAuthenticator
from .authorization import ScopeGuard
from .config import Settings
from .errors import ConfigError
from .exchange import Clock
from .inputs.body import InputGuard
from .limits.limiter import build_limiter
from .limits.penalties import FailureThrottle
from .limits.plans import CostGuard, RateGuard
from .observe.request_log import RequestLog, Sink, open_sink
from .pipeline import Filter, Guard, Pipeline, Recorder
from .policy_table import PolicyTable
from .state import AppState
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


def build_state(app: Flask, parts: Parts) -> AppState:
    """Return the frozen state of one app.

    :raises ConfigError: the configuration is not safe.
    """
    settings = Settings.load(app.config)
    keys = FileKeyStore(settings.api_keys_file) if settings.api_keys_file else None
    pipeline = Pipeline.build(
        [*_guards(app, settings, parts, keys), *parts.guards],
        [*parts.filters, HeaderFilter(settings.hsts_max_age)],
        [*_recorders(settings, parts), *parts.recorders],
    )
    return AppState(settings, pipeline, PolicyTable(app, settings.policies), parts.clock, keys)


def _guards(app: Flask, settings: Settings, parts: Parts, keys: FileKeyStore | None) -> Iterator[Guard]:
    limiter = build_limiter(app.config, parts.clock, settings.limit_outage)
    throttle = FailureThrottle(limiter, settings.failed_auth_limit)
    authenticators = [*_authenticators(settings, parts.clock, keys), *parts.authenticators]
    if settings.require_tls:
        yield TlsGuard()
    yield TargetGuard()
    yield throttle
    yield AuthenticationGuard(authenticators, settings.realm, throttle.failed)
    yield ScopeGuard()
    yield RateGuard(limiter, settings.plans)
    yield InputGuard(settings.max_body_bytes, settings.max_json_depth)
    yield CostGuard(limiter, settings.plans)


def _authenticators(settings: Settings, clock: Clock, keys: FileKeyStore | None) -> Iterator[Authenticator]:
    if keys is not None and settings.api_key_pepper is not None:
        yield ApiKeyAuthenticator(keys, settings.api_key_pepper, clock)
    if settings.jwt_issuers:
        yield JwtAuthenticator.from_settings(settings, clock)


def _recorders(settings: Settings, parts: Parts) -> Iterator[Recorder]:
    try:
        sink = parts.sink or open_sink(settings.request_log)
    except OSError as error:
        raise ConfigError([f"SECURE_ML_REQUEST_LOG cannot be opened: {error}"]) from None
    if sink is not None:
        yield RequestLog(sink)
