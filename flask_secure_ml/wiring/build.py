"""Builds the parts of one app from its settings: guards, filters, recorders and shared state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from flask import Flask, session

from ..authentication.setup import Authentication, build_authentication
from ..authorization import AuthorizationGuard
from ..config import PREFIX, Settings
from ..describing import is_described_only
from ..errors import ConfigError
from ..inputs.guard import build_input_guard
from ..limits.engine import Limiter
from ..limits.failure_throttle import FailureThrottle
from ..limits.guard import CostGuard, RateGuard
from ..limits.headers import limit_headers
from ..limits.setup import build_limiter
from ..observe.request_log import RequestLog, ResponseSize, open_log
from ..outputs import ConditionGuard, OutputFilter, ResponseRules
from ..pipeline import Filter, Guard, Pipeline, Recorder
from ..policy.matching import PolicyTable
from ..refresh import sentence_of
from ..signals import audit_log_changed, limit_store_changed
from ..state import AppState
from ..stores import open_store
from ..transport.beneath import Beneath, beneath
from ..transport.guards import TargetGuard, TlsGuard
from ..transport.headers import FlaskHeaders, ForeignHeaders, HeaderCompletion, HeaderTables
from ..transport.probes import PROBES, Readiness
from ..transport.rejections import RejectionFilter
from .anomalies import build_scoring, reporter
from .audit import audit_part, build_audit
from .metrics import build_metrics, key_set_counter, metrics_state

if TYPE_CHECKING:
    from ..authentication.guard import Authenticator
    from ..observe.alerts import Alerts
    from ..observe.metrics import Metrics
    from ..principal import Clock
    from ..state import Parts
    from ..stores import SharedStore


def build_state(app: Flask, settings: Settings, parts: Parts) -> AppState:
    """Return the frozen state of one app.

    :raises ConfigError: a part cannot be built from its settings.
    """
    below = beneath(app, app.wsgi_app)
    metrics = build_metrics(app, settings)
    audit, digest = build_audit(app, settings, parts.clock, metrics)
    log = _request_log(settings, parts, metrics)
    store = open_store(settings.store_uri, settings.store_password, parts.clock)
    limiter = build_limiter(
        app.config,
        settings,
        parts.clock,
        changed=lambda up: limit_store_changed.send(app, up=up),
        own_limiter="limiter" in app.extensions,
    )
    throttle = FailureThrottle(limiter, settings.failed_auth_limits, settings.failed_key_limits, parts.clock, store)
    login = _session_login(app, settings)
    authentication = build_authentication(
        settings,
        parts.clock,
        store,
        parts.authenticators,
        throttle,
        login,
        key_set_counter(settings, parts.clock, metrics),
    )
    responses = ResponseRules(settings.plans["default"])
    browser = tuple(_browser_headers(settings))
    # Flask-Talisman computes them, which takes about a millisecond per preset: once for both kinds of response.
    tables = HeaderTables(settings.hsts_max_age, subdomains=settings.hsts_include_subdomains)
    policies = PolicyTable(
        app,
        settings.policies,
        owner_hook=parts.owner is not None,
        cors=settings.cors is not None,
        mounts=(*below.mounts, *settings.mounts),
        plain=below.plain,
    )
    alerts = tuple(_alerts(app, settings, parts.clock, store, throttle, metrics))
    scoring = build_scoring(settings, parts.clock, store, metrics, reporter(app, audit, alerts), _probes(settings))
    pipeline = Pipeline.build(
        [
            *_transport(app, settings, policies, below),
            *scoring.guards,
            *_guards(settings, parts, limiter, authentication, responses, digest),
            *parts.guards,
        ],
        [*parts.filters, *_filters(settings, responses, log)],
        [
            *_recorders(log, metrics),
            *alerts,
            *scoring.recorders,
            *parts.recorders,
        ],
    )
    readiness = Readiness({**authentication.parts, "limit store": limiter.ready, **audit_part(audit)}, parts.clock)
    return AppState(
        configuration=MappingProxyType({key: each for key, each in app.config.items() if key.startswith(PREFIX)}),
        settings=settings,
        pipeline=pipeline,
        policies=policies,
        beneath=below,
        clock=parts.clock,
        store=store,
        responses=responses,
        keys=authentication.keys,
        revocations=authentication.revocations,
        load=authentication.load if audit is None else _both(audit.start, authentication.load),
        flask_headers=(_flask_headers(settings, tables), *browser),
        foreign_headers=(ForeignHeaders(tables), *browser),
        limiter=limiter,
        metrics=metrics_state(settings, parts.clock, metrics, readiness, authentication.keys, scoring.anomalies),
        readiness=readiness,
        audit=audit,
        anomalies=scoring.anomalies,
    )


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def _session_login(app: Flask, settings: Settings) -> Authenticator | None:
    if settings.session_login is None:
        return None
    from ..authentication.session import SessionAuthenticator, require_secret_key

    require_secret_key(app)
    users = None
    if settings.session_login.of_flask_login:
        from .flask_login_users import FlaskLoginUsers

        users = FlaskLoginUsers(app)
    return SessionAuthenticator(settings.session_login, lambda: session, app.config["SESSION_COOKIE_NAME"], users)


def _transport(app: Flask, settings: Settings, policies: PolicyTable, below: Beneath) -> Iterator[Guard]:
    if settings.require_tls:
        yield TlsGuard(lambda: app.debug)
    if settings.cors is not None:
        from ..transport.cors import AnnouncedPolicies, CorsGuard

        mounts = (*below.mounts, *settings.mounts)
        yield CorsGuard(AnnouncedPolicies(app, policies, plain=below.plain, mounts=mounts), settings.cors)
    yield TargetGuard()


def _guards(
    settings: Settings,
    parts: Parts,
    limiter: Limiter,
    authentication: Authentication,
    responses: ResponseRules,
    digest: Callable[[bytes], str] | None,
) -> Iterator[Guard]:
    yield authentication.guard
    if settings.session_login is not None:
        from ..authentication.session import SessionOriginGuard

        yield SessionOriginGuard(settings.cors)
    yield AuthorizationGuard(parts.owner, parts.clock)
    yield RateGuard(limiter, _probes(settings))
    yield ConditionGuard(responses)
    yield build_input_guard(settings, digest)
    yield CostGuard(limiter)


def _probes(settings: Settings) -> frozenset[str]:
    return frozenset() if settings.probes is None else PROBES


def _filters(settings: Settings, responses: ResponseRules, log: RequestLog | None) -> Iterator[Filter]:
    # Before the response rules, which depend on the status.
    yield RejectionFilter(replace=settings.error_body == "ours")
    yield OutputFilter(responses)
    if _is_traced():
        from ..observe.tracing import TraceFilter

        yield TraceFilter()
    if log is not None:
        yield ResponseSize()


def _flask_headers(settings: Settings, tables: HeaderTables) -> FlaskHeaders:
    # Browser clients need these headers for their next request (RFC 9449 section 8.2).
    exposed = () if settings.dpop == "off" else ("WWW-Authenticate", "DPoP-Nonce")
    return FlaskHeaders(tables, settings.headers, exposed, limit_headers if settings.limit_headers else None)


def _browser_headers(settings: Settings) -> Iterator[HeaderCompletion]:
    if settings.cors is not None:
        from ..transport.cors import CorsHeaders

        yield CorsHeaders(settings.cors)
    if settings.session_login is not None:
        from ..authentication.session import SessionVary

        yield SessionVary()


def _is_traced() -> bool:
    try:
        return find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        return False


def _alerts(
    app: Flask,
    settings: Settings,
    clock: Clock,
    store: SharedStore,
    throttle: FailureThrottle,
    metrics: Metrics | None,
) -> Iterator[Alerts]:
    address, secret = settings.alert_webhook, settings.alert_webhook_secret
    if address is None or secret is None:
        return
    from ..observe.alerts import Alerts, Webhook

    def blocked_for(network: str) -> int:
        block = throttle.block_of(network)
        return 0 if block is None else block.left

    backoff = settings.limit_backoff
    alerts = Alerts(
        Webhook(address, secret, clock),
        app.name,
        clock,
        store,
        blocked_for,
        block_after=0 if backoff is None else backoff.block_after,
        count=(lambda _result: None) if metrics is None else metrics.alert,
    )
    # The pipeline keeps a reference to the receiver, because a signal only holds a weak one.
    limit_store_changed.connect(alerts.limit_store_changed, app)
    audit_log_changed.connect(alerts.audit_log_changed, app)
    yield alerts


def _request_log(settings: Settings, parts: Parts, metrics: Metrics | None) -> RequestLog | None:
    if is_described_only():
        return None
    try:
        return open_log(
            settings.request_log,
            parts.sink,
            parts.clock,
            settings.request_log_sample,
            None if settings.model is None else settings.model.labels,
            metrics,
        )
    except OSError as error:
        raise ConfigError([f"SECURE_ML_REQUEST_LOG cannot be opened: {sentence_of(error)}"]) from None


def _recorders(log: RequestLog | None, metrics: Metrics | None) -> Iterator[Recorder]:
    if metrics is not None:
        yield metrics
    if _is_traced():
        from ..observe.tracing import TraceRecorder

        yield TraceRecorder()
    if log is not None:
        yield log
