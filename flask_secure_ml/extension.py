"""The extension object.

Importing the package loads only what declarations need: this class, policies, guards and errors. :mod:`.wiring` imports
the parts that serve requests when an app is protected, and only those that the app uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask

from .principal import Clock, SystemClock
from .state import Parts, state_of

if TYPE_CHECKING:
    from .authentication.guard import Authenticator
    from .observe.request_log import Sink
    from .pipeline import Filter, Guard, Recorder
    from .policy.options import OwnerHook


class SecureML:
    """Protects every route of a Flask app.

    Create one at import time and call :meth:`init_app` for each app. It keeps only its own arguments, never an app or
    its configuration, so several apps can share it. Everything else is configured with ``SECURE_ML_*`` settings.

    :param app: the app to protect immediately, instead of calling :meth:`init_app`.
    :param authenticators: authentication methods in addition to the configured ones; see
        :class:`~flask_secure_ml.authentication.guard.Authenticator`.
    :param guards: additional checks of requests; each runs at its own :class:`~flask_secure_ml.Stage`.
    :param filters: objects that change responses. They run before the built-in filters, which also mask their output.
    :param recorders: objects that record finished requests. They run after the built-in ones.
    :param clock: the clock of all parts; tests pass :class:`flask_secure_ml.testing.FakeClock`.
    :param sink: the destination of the request log, instead of ``SECURE_ML_REQUEST_LOG``.
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
        """Read the configuration and protect every route of an app, including those that are added later.

        Wrap ``app.wsgi_app`` in middleware before this call, so that the middleware's responses are protected too.

        :raises ConfigError: the configuration is not secure; the error lists every problem.
        :raises RuntimeError: the app is already protected.
        """
        from .wiring import protect_app

        protect_app(app, self._parts)

    @staticmethod
    def check(app: Flask) -> None:
        """Check the configured policies against the routes; call it after all routes are registered.

        The first request does the same, and every request gets 500 until the check passes. It logs a warning for each
        configured schema that changes values in a way that a view that reads the body does not see, and for middleware
        with unknown paths.

        :raises ConfigError: a policy does not fit the routes, or unknown middleware wraps the app.
        """
        from .wiring import check_app

        check_app(app)

    @staticmethod
    def ready(app: Flask) -> list[str]:
        """Return the names of the parts that cannot serve requests now; empty if the app is ready.

        The readiness probe of ``SECURE_ML_PROBES`` reports the same. The result is at most a second old.
        """
        return list(state_of(app).readiness.problems())

    @staticmethod
    def load(app: Flask) -> None:
        """Read keys and revocations from the shared store; call it when a worker starts.

        The first request does the same. If the store is down, no error is raised, and requests are rejected with 503.

        :raises ConfigError: the port of ``SECURE_ML_METRICS_LISTEN`` is in use.
        """
        state = state_of(app)
        if state.metrics is not None:
            state.metrics.counters.begin()
        state.load()

    @staticmethod
    def audit_event(app: Flask, action: str, members: Mapping[str, Any]) -> bool:
        """Write your own record to the audit log, for example when a model is replaced.

        :param members: strings, integers, booleans, None, and small lists and dicts of these; never secrets or inputs.
        :returns: True if it was written; False if it cannot be written now, or the log is off.
        :raises ValueError: a member has another type, or all of them have more than 60,000 bytes of JSON.
        """
        audit = state_of(app).audit
        return audit is not None and audit.event(action, members) is None
