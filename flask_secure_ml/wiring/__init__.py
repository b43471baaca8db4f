"""Wires one app: reads its settings, builds its parts, and installs the request hooks.

Importing this package imports only modules that every protected app needs. Optional modules (authentication methods,
stores, formats, limit stores, the OpenAPI description) are imported by the function that builds the part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, request

from ..authentication.resource_metadata import add_resource_metadata
from ..config import Settings
from ..config.cross_checks import session_cookie
from ..describing import is_described_only
from ..errors import ConfigError
from ..exchange import exchange_or_none
from ..state import EXTENSION, state_of
from ..transport.gate import opaque_layers, outer_problems
from ..transport.probes import add_probes
from .build import build_state
from .hooks import Hooks

if TYPE_CHECKING:
    from ..state import Parts


def protect_app(app: Flask, parts: Parts) -> None:
    """Read the configuration of an app, build its parts and install the hooks.

    :raises ConfigError: the configuration is invalid or unsafe; the error lists all problems.
    :raises RuntimeError: the app is already protected.
    """
    if EXTENSION in app.extensions:
        raise RuntimeError(f"{app.name!r} is already protected; init_app was called twice")
    settings = Settings.load(app.config, own_limiter="limiter" in app.extensions)
    state = build_state(app, settings, parts)
    app.extensions[EXTENSION] = state
    _secure_cookies(app, settings)
    Hooks(app, state).install()
    add_resource_metadata(app, state)
    if settings.probes is not None:
        add_probes(app, settings.probes, state.readiness)
    if settings.sentry_dsn is not None and not is_described_only():
        from ..observe.sentry import add_sentry

        add_sentry(settings.sentry_dsn.read()[0].decode(), exchange_or_none)
    if settings.metrics is not None and state.metrics is not None:
        from ..observe.metrics import add_metrics

        add_metrics(app, settings.metrics, state.metrics.exposition, lambda: request)
    if settings.openapi != "off":
        from ..openapi.page import add_openapi

        add_openapi(app, state, lambda: request)


def check_app(app: Flask) -> None:
    """Check the configured policies of an app against its routes, and log warnings.

    :raises ConfigError: a policy does not match the routes, or unknown middleware wraps the app.
    """
    from ..inputs.unseen_changes import unseen_changes

    state = state_of(app)
    settings = state.settings
    problems = [*state.policies.problems(), *outer_problems(app, settings.outer_middleware)]
    if problems:
        raise ConfigError(problems)
    for warning in (*unseen_changes(settings.policies), *opaque_layers(state.beneath, settings.mounts)):
        app.logger.warning("%s", warning)


def _secure_cookies(app: Flask, settings: Settings) -> None:
    """Make session cookies ``Secure``, unless the app accepts clear text."""
    login = settings.session_login
    remember = login is not None and login.of_flask_login
    for key, value in session_cookie(app.config, require_tls=settings.require_tls, remember=remember).items():
        app.logger.info("%s was %r and is now %r", key, app.config.get(key), value)
        app.config[key] = value
