"""The extension object: declared parts, ``init_app``, and the three hooks on the way of a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, Request, Response, has_request_context, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse
from werkzeug.wrappers import Response as BaseResponse

from .assembly import Parts, build_state
from .authentication.base import Authenticator
from .authorization import OwnerHook
from .errors import InternalError, SecureMLError, problem_response, slug_and_detail
from .exchange import Clock, Exchange, SystemClock, exchange_of
from .inputs.rewriting import unseen_changes
from .observe.request_log import Sink
from .openapi import add_openapi
from .outputs import Answers, ArrayJSONProvider, sole_chunk
from .outputs.provider import Writer
from .pipeline import Filter, Guard, Recorder
from .signals import authenticated, refused
from .state import EXTENSION, AppState, state_of
from .transport.proxy import Door
from .wellknown import add_resource_metadata


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
        state = build_state(app, self._parts)
        if app.wsgi_app != type(app).wsgi_app.__get__(app):
            app.logger.warning("middleware that was put around %r before init_app answers without the guards", app.name)
        app.extensions[EXTENSION] = state
        settings = state.settings
        door = Door(app.wsgi_app, settings.trusted_proxies, state.clock, settings.client_certificate_header)
        app.wsgi_app = door  # type: ignore[method-assign]
        app.config["SESSION_COOKIE_SECURE"] = True
        app.config["SESSION_COOKIE_SAMESITE"] = app.config["SESSION_COOKIE_SAMESITE"] or "Lax"
        hooks = _Hooks(app, state, Answers(settings.plans))
        hooks.install()
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
        state.policies.check()
        for point in unseen_changes(state.settings.policies):
            app.logger.warning("%s", point)


@dataclass(frozen=True)
class _Hooks:
    """The hooks of one app."""

    app: Flask
    state: AppState
    answers: Answers

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
            raise InternalError("the transport middleware did not run: was app.wsgi_app replaced?")
        if exchange.guarded is current:
            return
        exchange.guarded = current
        self.state.policies.ensure_checked()
        exchange.method = current.method
        exchange.endpoint = current.endpoint
        exchange.path = current.path
        exchange.policy = self.state.policies.find(current.url_rule, current.method)
        self._guard(current, exchange)

    def _guard(self, current: Request, exchange: Exchange) -> None:
        try:
            self.state.pipeline.check(current, exchange)
        except SecureMLError as error:
            exchange.code = error.slug
            refused.send(self.app, exchange=exchange, error=error)
            raise
        if exchange.principal is not None:
            authenticated.send(self.app, exchange=exchange)

    def answer(self, value: Any, write: Writer) -> AnyResponse:
        """Make the answer from what a view returned, before it is written."""
        if not has_request_context():
            return write(value)
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = exchange_of(current.environ)
        return write(value) if exchange is None else self.answers.respond(value, write, current, exchange)

    def after(self, response: Response) -> Response:
        exchange = exchange_of(request.environ)
        if exchange is None or exchange.policy is None:
            response = self._withheld(exchange)
        if exchange is None:
            return response
        exchange.status = response.status_code
        self.state.pipeline.shape(response, exchange)
        exchange.status = response.status_code
        exchange.deferred = response.is_streamed
        if exchange.deferred:
            response.call_on_close(lambda: self._finish(exchange))
        return response

    def _withheld(self, exchange: Exchange | None) -> Response:
        """Replace an answer that some other code gave before the guards ran."""
        error = InternalError("the guards did not run: other code answered before them")
        self.app.logger.critical("%s %s: %s", request.method, request.endpoint, error.reason)
        if exchange is not None:
            exchange.refusal, exchange.code = error, error.slug
        problem = problem_response(error, request.environ)
        return cast("Response", self.app.response_class.force_type(problem))

    def teardown(self, error: BaseException | None) -> None:
        exchange = exchange_of(request.environ)
        if exchange is None:
            return
        exchange.fault = exchange.fault or error
        if not exchange.deferred:
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        exchange.finished = self.state.clock.monotonic()
        self.state.pipeline.record(exchange)

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
