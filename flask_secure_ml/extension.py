"""The extension object: declared parts, ``init_app``, and the three hooks on the way of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, Request, Response, has_request_context, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse
from werkzeug.wrappers import Response as BaseResponse

from .authentication.guard import Authenticator
from .authentication.resource_metadata import add_resource_metadata
from .authentication.setup import build_authentication
from .authorization import AuthorizationGuard, OwnerHook
from .config import Settings
from .errors import REQUEST_ID_KEY, ConfigError, InternalError, SecureMLError, problem_response, slug_and_detail
from .exchange import Exchange, exchange_of
from .inputs.guard import build_input_guard
from .inputs.unseen import unseen_changes
from .limits.engine import Limiter, build_limiter
from .limits.failure_throttle import FailureThrottle
from .limits.plans import CostGuard, RateGuard
from .observe.request_log import RequestLog, Sink, open_sink
from .openapi import add_openapi
from .outputs import Answers, ArrayJSONProvider, ConditionGuard, OutputFilter, sole_chunk
from .outputs.responses import Writer
from .pipeline import Filter, Guard, Pipeline, Recorder
from .policy.matching import PolicyTable
from .policy.policy import Policy
from .principal import Clock, SystemClock
from .signals import request_authenticated, request_rejected
from .state import EXTENSION, AppState, state_of
from .stores import open_store
from .transport.beneath import Beneath, beneath
from .transport.gate import Admission, give_sockets, opaque_layers, outer_problems, target_of
from .transport.guards import TargetGuard, TlsGuard
from .transport.headers import ForeignHeaders, HeaderFilter
from .transport.outgoing import FLASK_MARK
from .transport.proxy import ExchangeOpener, ProxyMiddleware


class SecureML:
    """Protects every route of the apps it is given.

    The object keeps what was declared here and nothing of any app, so one object may serve several apps.

    :param app: protect this app at once; the same as calling :meth:`init_app`.
    :param authenticators: further ways to authenticate, beside those that the configuration turns on.
    :param guards: further guards; each runs at its own :class:`~flask_secure_ml.pipeline.Stage`.
    :param filters: further filters, run before the built-in ones, which hold their answers to the terms too.
    :param recorders: further recorders, run after the built-in ones.
    :param clock: the clock of all parts; a test passes :class:`flask_secure_ml.testing.FakeClock`.
    :param sink: where the request log goes, instead of ``SECURE_ML_REQUEST_LOG``.
    :param owner: tells for policies with ``owner=True`` whether a principal may touch the object that the URL names:
        a callable that takes the principal and the view's URL arguments and returns True or False.
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
        """Read the configuration once and protect every route, also those that are added later.

        :raises ConfigError: the configuration is not safe; it lists every problem.
        :raises RuntimeError: the app is protected already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(f"{app.name!r} is protected already; init_app was called twice")
        below = beneath(app, app.wsgi_app)
        state = build_state(app, self._parts, below)
        app.extensions[EXTENSION] = state
        settings = state.settings
        app.config["SESSION_COOKIE_SECURE"] = True
        app.config["SESSION_COOKIE_SAMESITE"] = app.config["SESSION_COOKIE_SAMESITE"] or "Lax"
        hooks = _Hooks(app, state, Answers(settings.plans), ForeignHeaders(settings.hsts_max_age))
        hooks.install()
        opener = ExchangeOpener(settings.trusted_proxies, state.clock, settings.client_certificate_header)
        admission = Admission(app, state.policies, below, settings, hooks.guard)
        proxy = ProxyMiddleware(app, app.wsgi_app, opener=opener, admission=admission, site=hooks, clock=state.clock)
        app.wsgi_app = proxy  # type: ignore[method-assign]
        add_resource_metadata(app, state)
        add_openapi(app, state, lambda: request)
        if type(app.json) is DefaultJSONProvider:
            app.json = ArrayJSONProvider(app, settings.max_json_depth, hooks.answer)

    @staticmethod
    def check(app: Flask) -> None:
        """Hold the configured policies against the routes; call it when all routes are registered.

        The first request does the same, and until it passes every request is answered with 500.

        A configured policy whose schema changes what it loads is logged as a warning: a view that reads the body
        itself does not see the changes.

        :raises ConfigError: a policy for a route that does not exist, or two policies for one route.
        """
        state = state_of(app)
        problems = [*state.policies.problems(), *outer_problems(app, state.settings.outer_middleware)]
        if problems:
            raise ConfigError(problems)
        settings = state.settings
        for finding in (*unseen_changes(settings.policies), *opaque_layers(state.beneath, settings.mounts)):
            app.logger.warning("%s", finding)

    @staticmethod
    def load(app: Flask) -> None:
        """Read keys and revocations from the shared store; call it when a worker starts.

        The first request does the same. Nothing is raised: while the store is down, requests are rejected with 503.
        """
        state_of(app).load()


@dataclass(frozen=True)
class _Hooks:
    """The hooks of one app."""

    app: Flask
    state: AppState
    answers: Answers
    foreign_headers: ForeignHeaders

    def install(self) -> None:
        # First in line: Flask stops at the first hook that answers, and none may answer before the guards. What
        # processes URL values runs before those hooks, and may abort, so the guards go before that too.
        self.app.url_value_preprocessors.setdefault(None, []).insert(0, lambda _endpoint, _values: self.before())
        self.app.before_request_funcs.setdefault(None, []).insert(0, self.before)
        # Flask walks these lists backwards, so the first entry has the last word.
        self.app.after_request_funcs.setdefault(None, []).insert(0, self.after)
        self.app.teardown_request_funcs.setdefault(None, []).insert(0, self.teardown)
        if HTTPException not in self.app.error_handler_spec[None][None]:
            self.app.register_error_handler(HTTPException, self.problem)

    def before(self) -> None:
        # The request itself: each look through the proxy costs as much as a small guard.
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = exchange_of(current.environ)
        if exchange is None:
            raise InternalError("the proxy middleware did not run: was app.wsgi_app replaced?")
        if exchange.guarded is current:
            return
        if exchange.guarded is not None and exchange.checked_by is self.state.pipeline:
            # Middleware beneath makes several requests of one: what was checked and charged was for the first.
            exchange.target = None
            exchange.charged.clear()
        exchange.guarded = current
        exchange.answerable = True
        self.state.policies.ensure_checked()
        policy = self.state.policies.find(current.url_rule, current.method, current.path)
        if exchange.target is None or exchange.cleared is not policy or exchange.target != target_of(current):
            self.guard(current, exchange, policy, current.endpoint)
            exchange.flask_only &= policy.public
        if exchange.sockets:
            give_sockets(current.environ, exchange.sockets)

    def guard(self, current: Request, exchange: Exchange, policy: Policy, endpoint: str | None) -> None:
        """Run the guards for a request under a policy.

        :param endpoint: the endpoint of Flask, or the configured path of what is mounted.
        :raises SecureMLError: the request is rejected.
        """
        known = exchange.principal is not None
        exchange.method = current.method
        exchange.endpoint = endpoint
        exchange.path = current.path
        exchange.policy = policy
        try:
            self.state.pipeline.check(current, exchange)
        except SecureMLError as error:
            exchange.code = error.slug
            request_rejected.send(self.app, exchange=exchange, error=error)
            raise
        if exchange.principal is not None and not known:
            request_authenticated.send(self.app, exchange=exchange)

    def answer(self, value: Any, write: Writer) -> AnyResponse:
        """Make the answer from what a view returned, before it is written."""
        if not has_request_context():
            return write(value)
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = exchange_of(current.environ)
        return write(value) if exchange is None else self.answers.respond(value, write, current, exchange)

    def after(self, response: Response) -> Response:
        exchange = exchange_of(request.environ)
        if exchange is None:
            return response
        exchange.status = response.status_code
        self.state.pipeline.shape(response, exchange)
        exchange.streamed = response.is_streamed
        if exchange.flask_only:
            response.headers[FLASK_MARK] = exchange.request_id
        return response

    def teardown(self, error: BaseException | None) -> None:
        exchange = exchange_of(request.environ)
        if exchange is not None:
            exchange.fault = exchange.fault or error

    # What the proxy middleware asks of the app: see transport.outgoing.Site.

    @property
    def propagates(self) -> bool:
        configured = self.app.config["PROPAGATE_EXCEPTIONS"]
        return bool(self.app.testing or self.app.debug) if configured is None else bool(configured)

    def error_response(self, exchange: Exchange, error: BaseException | None) -> BaseResponse:
        if error is None:
            found: SecureMLError = InternalError("the guards did not run: other code answered before them")
            self.app.logger.critical("request %s: %s", exchange.request_id, found.reason)
        elif isinstance(error, SecureMLError):
            found = error
        else:
            found = InternalError(f"unhandled {type(error).__name__}")
            self.app.logger.error("request %s failed", exchange.request_id, exc_info=error)
        exchange.refusal, exchange.code = found, found.slug
        problem = problem_response(found, {REQUEST_ID_KEY: exchange.request_id})
        response = cast("Response", self.app.response_class.force_type(problem))
        exchange.shaped = sole_chunk(response)
        self.state.pipeline.shape(response, exchange)
        return response

    def finish_headers(self, exchange: Exchange, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return self.foreign_headers.completed(exchange, headers)

    def record(self, exchange: Exchange) -> None:
        exchange.finished = self.state.clock.monotonic()
        self.state.pipeline.record(exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        exchange.finished = self.state.clock.monotonic()
        self.state.pipeline.record_stream_end(exchange)

    def problem(self, error: HTTPException) -> BaseResponse:
        """Turn every HTTP error, also of other extensions, into a problem document."""
        exchange = exchange_of(request.environ)
        if exchange is not None:
            exchange.code = slug_and_detail(error)[0]
            if isinstance(error, SecureMLError):
                exchange.refusal = error
        if error.response is not None:
            return cast("BaseResponse", error.response)
        response = problem_response(error, request.environ)
        if exchange is not None:
            exchange.shaped = sole_chunk(response)
        return response


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
    throttle = FailureThrottle(limiter, settings.failed_auth_limits, settings.failed_key_limits)
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
        settings,
        pipeline,
        policies,
        below,
        parts.clock,
        store,
        authentication.keys,
        authentication.revocations,
        authentication.load,
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
