"""The extension object: what the user declares.

Importing the package loads what declarations need: this class, policies, guards and errors. What serves requests is
imported by :mod:`.wiring` when an app is protected, and what an app does not use is not imported at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask

from .principal import Clock, SystemClock
from .state import state_of

if TYPE_CHECKING:
    from .authentication.guard import Authenticator
    from .observe.request_log import Sink
    from .pipeline import Filter, Guard, Recorder
    from .policy.options import OwnerHook


class SecureML:
    """Protects every route of a Flask app.

    Create one at import time and call :meth:`init_app` for each app. It keeps only its own arguments, never an app or
    its configuration, so several apps can share it. Everything else is configured with ``SECURE_ML_*`` settings.

    :param app: the app to protect right away, instead of a call of :meth:`init_app`.
    :param authenticators: authentication methods besides the configured ones; see
        :class:`~flask_secure_ml.authentication.guard.Authenticator`.
    :param guards: further checks of requests; each runs at its own :class:`~flask_secure_ml.Stage`.
    :param filters: functions on responses. They run before the built-in filters, which mask what these return too.
    :param recorders: readers of finished requests. They run after the built-in ones.
    :param clock: the clock of all parts; tests pass :class:`flask_secure_ml.testing.FakeClock`.
    :param sink: where the request log goes, instead of ``SECURE_ML_REQUEST_LOG``.
    :param owner: decides for policies with ``owner=True``: a callable that takes the principal and the view's URL
        arguments, and returns True if the principal may use the object that the URL names.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        authenticators: Iterable[Authenticator] = (),
        guards: Iterable[Guard] = (),
        filters: Iterable[Filter] = (),
        recorders: Iterable[Recorder] = (),
        clock: Clock | None = None,
        sink: Sink | None = None,
        owner: OwnerHook | None = None,
    ) -> None:
        self._parts = Parts(
            tuple(authenticators), tuple(guards), tuple(filters), tuple(recorders), clock or SystemClock(), sink, owner
        )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration and protect every route of an app, also those that are added later.

        Middleware that wraps ``app.wsgi_app`` belongs before this call; then its responses are protected too.

        :raises ConfigError: the configuration is not safe; the error lists every problem.
        :raises RuntimeError: the app is protected already.
        """
        from .wiring import protect_app

        protect_app(app, self._parts)

    @staticmethod
    def check(app: Flask) -> None:
        """Check the configured policies against the routes; call it when all routes are registered.

        The first request does the same, and every request gets 500 until the check passes. Logged as warnings are
        configured schemas whose changes a view that reads the body does not see, and middleware with unknown paths.

        :raises ConfigError: a policy does not fit the routes, or unknown middleware wraps the app.
        """
        from .wiring import check_app

        check_app(app)

    @staticmethod
    def ready(app: Flask) -> list[str]:
        """Return the names of the parts that cannot serve requests now; empty when the app is ready.

        The readiness probe of ``SECURE_ML_PROBES`` reports the same. The result is at most a second old.
        """
        return list(state_of(app).readiness.problems())

    @staticmethod
    def load(app: Flask) -> None:
        """Read keys and revocations from the shared store; call it when a worker starts.

        The first request does the same. Nothing is raised: while the store is down, requests are rejected with 503.
        """
        state = state_of(app)
        if state.metrics is not None:
            state.metrics.begin()
        state.load()

    @staticmethod
    def audit_event(app: Flask, action: str, members: Mapping[str, Any]) -> bool:
        """Write a record of your own to the audit log, such as that a model was replaced.

        :param members: strings, integers, booleans, None, and small lists and dicts of these; never secrets or inputs.
        :returns: True if it was written; False if that is not possible now, or the log is off.
        :raises ValueError: a member has another type.
        """
        audit = state_of(app).audit
        return audit is not None and audit.event(action, members) is None


@dataclass(frozen=True)
class Parts:
    """The arguments of :class:`SecureML`."""

    authenticators: tuple[Authenticator, ...]
    guards: tuple[Guard, ...]
    filters: tuple[Filter, ...]
    recorders: tuple[Recorder, ...]
    clock: Clock
    sink: Sink | None
    owner: OwnerHook | None
