"""Wires the parts of one app: what is built from its settings, and the hooks of a request.

This module imports what every protected app needs. What only some apps use (authentication methods, stores, formats,
limit storages, the OpenAPI description) is imported by the function that builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Request, Response, got_request_exception, has_request_context, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse
from werkzeug.wrappers import Response as BaseResponse

from .authentication.resource_metadata import add_resource_metadata
from .authentication.setup import Authentication, build_authentication
from .authorization import AuthorizationGuard
from .config import Settings
from .config.cross_checks import session_cookie
from .errors import ConfigError, InternalError, SecureMLError, own_text, problem_response
from .exchange import Exchange, exchange_of
from .inputs.guard import build_input_guard
from .limits.engine import Limiter, build_limiter
from .limits.failure_throttle import FailureThrottle
from .limits.plans import CostGuard, RateGuard
from .observe.request_log import RequestLog, open_sink
from .outputs import ArrayJSONProvider, ConditionGuard, OutputFilter, ResponseRules, mark_checked
from .outputs.json_provider import Writer
from .pipeline import Filter, Guard, Pipeline, Recorder
from .policy.matching import PolicyTable
from .policy.policy import Policy
from .signals import request_authenticated, request_rejected
from .state import EXTENSION, AppState, state_of
from .stores import open_store
from .transport.beneath import Beneath, beneath
from .transport.gate import Admission, opaque_layers, outer_problems
from .transport.guards import TargetGuard, TlsGuard
from .transport.headers import ForeignFilter, ForeignHeaders, HeaderFilter, HeaderTables
from .transport.outgoing import FLASK_MARK
from .transport.proxy import ExchangeOpener, ProxyMiddleware
from .transport.rejections import RejectionFilter

if TYPE_CHECKING:
    from .extension import Parts


def protect_app(app: Flask, parts: Parts) -> None:
    """Read the configuration of an app, build its parts and put the hooks into it.

    :raises ConfigError: the configuration is not safe; the error lists every problem.
    :raises RuntimeError: the app is protected already.
    """
    if EXTENSION in app.extensions:
        raise RuntimeError(f"{app.name!r} is protected already; init_app was called twice")
    settings = Settings.load(app.config, own_limiter="limiter" in app.extensions)
    state = build_state(app, settings, parts)
    app.extensions[EXTENSION] = state
    _secure_cookies(app, settings)
    _Hooks(app, state).install()
    add_resource_metadata(app, state)
    if settings.openapi != "off":
        from .openapi.page import add_openapi

        add_openapi(app, state, lambda: request)


def check_app(app: Flask) -> None:
    """Check the configured policies of an app against its routes, and log warnings.

    :raises ConfigError: a policy does not fit the routes, or unknown middleware wraps the app.
    """
    from .inputs.unseen_changes import unseen_changes

    state = state_of(app)
    settings = state.settings
    problems = [*state.policies.problems(), *outer_problems(app, settings.outer_middleware)]
    if problems:
        raise ConfigError(problems)
    for warning in (*unseen_changes(settings.policies), *opaque_layers(state.beneath, settings.mounts)):
        app.logger.warning("%s", warning)


def build_state(app: Flask, settings: Settings, parts: Parts) -> AppState:
    """Return the frozen state of one app.

    :raises ConfigError: a part cannot work with its settings.
    """
    below = beneath(app, app.wsgi_app)
    store = open_store(settings.store_uri, settings.store_password, parts.clock)
    limiter = build_limiter(app.config, parts.clock, settings.limit_outage)
    throttle = FailureThrottle(limiter, settings.failed_auth_limits, settings.failed_key_limits, parts.clock, store)
    authentication = build_authentication(settings, parts.clock, store, parts.authenticators, throttle)
    responses = ResponseRules(settings.plans["default"])
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
        [*parts.filters, *_filters(settings, responses)],
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
    )


def _transport(app: Flask, settings: Settings, policies: PolicyTable, below: Beneath) -> Iterator[Guard]:
    if settings.require_tls:
        yield TlsGuard()
    if settings.cors is not None:
        from .transport.cors import AnnouncedPolicies, CorsGuard

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
    yield AuthorizationGuard(parts.owner, parts.clock)
    yield RateGuard(limiter)
    yield ConditionGuard(responses)
    yield build_input_guard(settings)
    yield CostGuard(limiter)


def _filters(settings: Settings, responses: ResponseRules) -> Iterator[Filter]:
    # Before the rules of responses, which depend on the status.
    yield RejectionFilter(replace=settings.error_body == "ours")
    yield OutputFilter(responses)
    # A client in a browser needs these headers for its next request (RFC 9449 section 8.2).
    tables = HeaderTables(settings.hsts_max_age, subdomains=settings.hsts_include_subdomains)
    exposed = () if settings.dpop == "off" else ("WWW-Authenticate", "DPoP-Nonce")
    yield HeaderFilter(tables, settings.headers, exposed)
    if settings.cors is not None:
        from .transport.cors import CorsFilter

        yield CorsFilter(settings.cors)


def _foreign_filters(settings: Settings) -> Iterator[ForeignFilter]:
    """Yield what completes the headers of responses that do not come from Flask."""
    yield ForeignHeaders(HeaderTables(settings.hsts_max_age, subdomains=settings.hsts_include_subdomains))
    if settings.cors is not None:
        from .transport.cors import CorsFilter

        yield CorsFilter(settings.cors)


def _recorders(settings: Settings, parts: Parts) -> Iterator[Recorder]:
    try:
        sink = parts.sink or open_sink(settings.request_log, parts.clock)
    except OSError as error:
        raise ConfigError([f"SECURE_ML_REQUEST_LOG cannot be opened: {error}"]) from None
    if sink is not None:
        yield RequestLog(sink)


def _secure_cookies(app: Flask, settings: Settings) -> None:
    """Keep session cookies off clear text, unless the app is served in clear text."""
    for key, value in session_cookie(app.config, require_tls=settings.require_tls).items():
        app.logger.info("%s was %r and is now %r", key, app.config[key], value)
        app.config[key] = value


class _Hooks:
    """The hooks of one app: Flask's, and those of the proxy middleware (``transport.outgoing.Site``)."""

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._finishing: list[ForeignFilter] = list(_foreign_filters(state.settings))
        self._admission = Admission(app, state.policies, state.pipeline, state.beneath, state.settings, self._guard)

    def install(self) -> None:
        """Put the hooks into the app, each where it cannot be bypassed."""
        app, settings, clock = self._app, self._state.settings, self._state.clock
        # First in line: Flask stops at the first hook that returns a response, and none may before the guards. The
        # preprocessors of URL values run before those hooks, and may abort, so the guards run before them too.
        app.url_value_preprocessors.setdefault(None, []).insert(0, lambda _endpoint, _values: self._before())
        app.before_request_funcs.setdefault(None, []).insert(0, self._before)
        # Flask walks these lists backwards, so the first entry has the last word.
        app.after_request_funcs.setdefault(None, []).insert(0, self._after)
        app.teardown_request_funcs.setdefault(None, []).insert(0, self._teardown)
        if HTTPException not in app.error_handler_spec[None][None]:
            app.register_error_handler(HTTPException, self._problem)
        got_request_exception.connect(self._unhandled, app)
        app.handle_user_exception = self._noting(app.handle_user_exception)  # type: ignore[method-assign]
        if type(app.json) is DefaultJSONProvider:
            app.json = ArrayJSONProvider(app, settings.max_json_depth, self._respond)
        opener = ExchangeOpener(settings.trusted_proxies, clock, settings.client_certificate_header)
        app.wsgi_app = ProxyMiddleware(  # type: ignore[method-assign]
            app, app.wsgi_app, opener=opener, admission=self._admission, site=self, clock=clock
        )

    def _before(self) -> None:
        """Guard the request, before any other code of the app runs."""
        # The request itself: each access through the proxy costs as much as a small guard.
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = exchange_of(current.environ)
        if exchange is None:
            raise InternalError("the proxy middleware did not run: was app.wsgi_app replaced?")
        exchange.streamed = None
        self._admission.enter(current, exchange)

    def _guard(self, current: Request, exchange: Exchange, policy: Policy, endpoint: str | None) -> None:
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
            self._state.pipeline.check(current, exchange)
        except SecureMLError as error:
            request_rejected.send(self._app, exchange=exchange, error=error)
            raise
        if exchange.principal is not None and not known:
            request_authenticated.send(self._app, exchange=exchange)

    def _respond(self, value: Any, write: Writer) -> AnyResponse:
        """Return the response for the value that a view returned."""
        if not has_request_context():
            return write(value)
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = exchange_of(current.environ)
        return write(value) if exchange is None else self._state.responses.respond(value, write, current, exchange)

    def _problem(self, error: HTTPException) -> BaseResponse:
        """Return the problem document for an HTTP error, also for one of another extension."""
        exchange = exchange_of(request.environ)
        if error.response is not None:
            # Without a status it is no error, and is here only if the app traps HTTP exceptions.
            if exchange is not None and error.code is not None:
                exchange.reject(error)
            return cast("BaseResponse", error.response)
        everything = self._app.error_handler_spec[None][None].get(Exception)
        if everything is not None and not isinstance(error, SecureMLError):
            # Without this handler, Flask would have called the app's one for all exceptions.
            written = self._app.ensure_sync(everything)(error)
            # Many pass on what is no failure: "if isinstance(error, HTTPException): return error".
            if written is not error:
                return self._app.make_response(written)
        response = problem_response(error) if exchange is None else exchange.problem(error)
        if own_text(error) is None:
            # A text of the app may say what the rules of the route withhold.
            mark_checked(response)
        return response

    def _noting(self, handle: Callable[[Exception], Any]) -> Any:
        """Return Flask's own error handling, which tells the exchange of each exception first."""

        def noted(error: Exception) -> Any:
            exchange = exchange_of(request.environ)
            if exchange is not None:
                exchange.handle(error)
            return handle(error)

        return noted

    def _after(self, response: Response) -> Response:
        """Run the filters."""
        exchange = exchange_of(request.environ)
        if exchange is not None:
            self._state.pipeline.filter(response, exchange)
            exchange.streamed = response.is_streamed
            if exchange.flask_only:
                response.headers[FLASK_MARK] = exchange.request_id
        return response

    def _unhandled(self, _app: Flask, exception: BaseException, **_extra: Any) -> None:
        exchange = exchange_of(request.environ)
        if exchange is not None:
            exchange.fail(exception)

    def _teardown(self, error: BaseException | None) -> None:
        exchange = exchange_of(request.environ)
        if exchange is not None and error is not None:
            exchange.fail(error)

    @property
    def propagates(self) -> bool:
        configured = self._app.config["PROPAGATE_EXCEPTIONS"]
        return bool(self._app.testing or self._app.debug) if configured is None else bool(configured)

    def error_response(self, exchange: Exchange, error: BaseException) -> BaseResponse:
        if not isinstance(error, SecureMLError):
            self._app.logger.error("request %s failed", exchange.request_id, exc_info=error)
            # A handler of the app that fails on a rejection leaves it a rejection.
            error = exchange.rejected or InternalError(f"unhandled {type(error).__name__}")
        response = cast("Response", self._app.response_class.force_type(exchange.problem(error)))
        mark_checked(response)
        for each in self._state.pipeline.filters:
            try:
                each.apply(response, exchange)
            except Exception:
                self._app.logger.exception("a filter failed for the error response of %s", exchange.request_id)
        return response

    def finish_headers(self, exchange: Exchange, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        for each in self._finishing:
            headers = each.completed(exchange, headers)
        return headers

    def record(self, exchange: Exchange) -> None:
        exchange.finished = self._state.clock.monotonic()
        self._state.pipeline.record(exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        exchange.finished = self._state.clock.monotonic()
        self._state.pipeline.record_stream_end(exchange)
