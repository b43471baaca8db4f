"""Building the parts of one app from its settings: guards, filters, recorders and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Flask, session

from ..authentication.setup import Authentication, build_authentication
from ..authorization import AuthorizationGuard
from ..config import Settings
from ..errors import ConfigError
from ..inputs.guard import build_input_guard
from ..limits.engine import Limiter
from ..limits.failure_throttle import FailureThrottle
from ..limits.guard import CostGuard, RateGuard
from ..limits.headers import LimitHeaders
from ..limits.setup import build_limiter
from ..observe.request_log import RequestLog, open_sink
from ..outputs import ConditionGuard, OutputFilter, ResponseRules
from ..pipeline import Filter, Guard, Pipeline, Recorder
from ..policy.matching import PolicyTable
from ..signals import limit_store_changed
from ..state import AppState
from ..stores import open_store
from ..transport.beneath import Beneath, beneath
from ..transport.guards import TargetGuard, TlsGuard
from ..transport.headers import ForeignFilter, ForeignHeaders, HeaderFilter, HeaderTables
from ..transport.probes import PROBES, Readiness
from ..transport.rejections import RejectionFilter

if TYPE_CHECKING:
    from ..authentication.guard import Authenticator
    from ..authentication.session import SessionVary
    from ..extension import Parts
    from ..transport.cors import CorsFilter


def build_state(app: Flask, settings: Settings, parts: Parts) -> AppState:
    """Return the frozen state of one app.

    :raises ConfigError: a part cannot work with its settings.
    """
    below = beneath(app, app.wsgi_app)
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
    authentication = build_authentication(settings, parts.clock, store, parts.authenticators, throttle, login)
    responses = ResponseRules(settings.plans["default"])
    # Flask-Talisman computes them, which takes about a millisecond a preset: once for both kinds of response.
    tables = HeaderTables(settings.hsts_max_age, subdomains=settings.hsts_include_subdomains)
    policies = PolicyTable(
        app,
        settings.policies,
        owner_hook=parts.owner is not None,
        cors=settings.cors is not None,
        mounts=(*below.mounts, *settings.mounts),
        plain=below.plain,
    )
    pipeline = Pipeline.build(
        [
            *_transport(app, settings, policies, below),
            *_guards(settings, parts, limiter, authentication, responses),
            *parts.guards,
        ],
        [*parts.filters, *_filters(settings, responses, tables)],
        [*_recorders(settings, parts), *parts.recorders],
    )
    return AppState(
        settings=settings,
        pipeline=pipeline,
        policies=policies,
        beneath=below,
        clock=parts.clock,
        store=store,
        responses=responses,
        keys=authentication.keys,
        revocations=authentication.revocations,
        load=authentication.load,
        foreign_filters=tuple(_foreign_filters(settings, tables)),
        limiter=limiter,
        readiness=Readiness({**authentication.parts, "limit store": limiter.ready}, parts.clock),
    )


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
        yield CorsGuard(AnnouncedPolicies(app, policies, plain=below.plain, mounts=mounts))
    yield TargetGuard()


def _guards(
    settings: Settings,
    parts: Parts,
    limiter: Limiter,
    authentication: Authentication,
    responses: ResponseRules,
) -> Iterator[Guard]:
    yield authentication.guard
    if settings.session_login is not None:
        from ..authentication.session import SessionOriginGuard

        yield SessionOriginGuard(settings.cors)
    yield AuthorizationGuard(parts.owner, parts.clock)
    yield RateGuard(limiter, _probes(settings))
    yield ConditionGuard(responses)
    yield build_input_guard(settings)
    yield CostGuard(limiter)


def _probes(settings: Settings) -> frozenset[str]:
    return frozenset() if settings.probes is None else PROBES


def _filters(settings: Settings, responses: ResponseRules, tables: HeaderTables) -> Iterator[Filter]:
    # Before the rules of responses, which depend on the status.
    yield RejectionFilter(replace=settings.error_body == "ours")
    yield OutputFilter(responses)
    # A client in a browser needs these headers for its next request (RFC 9449 section 8.2).
    exposed = () if settings.dpop == "off" else ("WWW-Authenticate", "DPoP-Nonce")
    yield HeaderFilter(tables, settings.headers, exposed)
    if settings.limit_headers:
        yield LimitHeaders()
    yield from _browser_filters(settings)


def _browser_filters(settings: Settings) -> Iterator[CorsFilter | SessionVary]:
    if settings.cors is not None:
        from ..transport.cors import CorsFilter

        yield CorsFilter(settings.cors)
    if settings.session_login is not None:
        from ..authentication.session import SessionVary

        yield SessionVary()


def _recorders(settings: Settings, parts: Parts) -> Iterator[Recorder]:
    try:
        sink = parts.sink or open_sink(settings.request_log, parts.clock)
    except OSError as error:
        raise ConfigError([f"SECURE_ML_REQUEST_LOG cannot be opened: {error}"]) from None
    if sink is not None:
        yield RequestLog(sink)


def _foreign_filters(settings: Settings, tables: HeaderTables) -> Iterator[ForeignFilter]:
    """Yield what completes the headers of responses that do not come from Flask."""
    yield ForeignHeaders(tables)
    yield from _browser_filters(settings)
