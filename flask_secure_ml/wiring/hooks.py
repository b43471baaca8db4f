"""The hooks of a request: those in Flask, and those that the proxy middleware calls."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

from flask import Flask, Request, Response, got_request_exception, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse
from werkzeug.wrappers import Response as BaseResponse

from ..errors import Completed, DependencyUnavailable, InternalError, SecureMLError, own_text, problem_response
from ..exchange import EXCHANGE_KEY, Exchange, exchange_of
from ..limits.guard import settle
from ..outputs import ArrayJSONProvider, mark_checked
from ..outputs.json_provider import Writer
from ..policy.decorators import WRAPPER
from ..policy.policy import Policy
from ..signals import audit_unavailable, request_authenticated, request_rejected
from ..state import AppState
from ..transport.gate import Admission
from ..transport.outgoing import FLASK_MARK
from ..transport.proxy import ExchangeOpener, ProxyMiddleware


class Hooks:
    """The hooks of one app: Flask's, and those of the proxy middleware (``transport.site.Site``)."""

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._admission = Admission(app, state.policies, state.pipeline, state.beneath, state.settings, self._guard)

    def install(self) -> None:
        """Put the hooks into the app, each where it cannot be bypassed."""
        app, settings, clock = self._app, self._state.settings, self._state.clock
        # First in line: the preprocessors of URL values run before the hooks of before_request, at the first of which
        # that returns a response Flask stops. Without this one no response leaves, see Outgoing.
        app.url_value_preprocessors.setdefault(None, []).insert(0, self._before)
        # Flask walks these lists backwards, so the first entry has the last word.
        app.after_request_funcs.setdefault(None, []).insert(0, self._after)
        app.teardown_request_funcs.setdefault(None, []).insert(0, self._teardown)
        if HTTPException not in app.error_handler_spec[None][None]:
            app.register_error_handler(HTTPException, self._problem)
        got_request_exception.connect(self._unhandled, app)
        app.ensure_sync = self._ensuring(app.ensure_sync)  # type: ignore[method-assign]
        app.handle_user_exception = self._noting(app.handle_user_exception)  # type: ignore[method-assign]
        if type(app.json) is DefaultJSONProvider:
            app.json = ArrayJSONProvider(app, settings.max_json_depth, self._respond)
        opener = ExchangeOpener(settings.trusted_proxies, clock, settings.client_certificate_header)
        app.wsgi_app = ProxyMiddleware(  # type: ignore[method-assign]
            app, app.wsgi_app, opener=opener, admission=self._admission, site=self, clock=clock
        )

    def _before(self, _endpoint: object, _values: object) -> None:
        """Guard the request, before any other code of the app runs."""
        # The request itself: each access through the proxy costs as much as a small guard.
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange: Exchange | None = current.environ.get(EXCHANGE_KEY)
        if exchange is None:
            raise InternalError("the proxy middleware did not run: was app.wsgi_app replaced?")
        exchange.streamed = None
        self._admission.enter(current, exchange)

    def _guard(self, current: Request, exchange: Exchange, policy: Policy, endpoint: str | None) -> None:
        """Run the guards for a request under a policy.

        :param endpoint: the endpoint of Flask, or the configured path of what is mounted.
        :raises SecureMLError: the request is rejected.
        """
        exchange.method = current.method
        exchange.endpoint = endpoint
        exchange.path = current.path
        exchange.policy = policy
        known = not request_authenticated.receivers or exchange.principal is not None
        try:
            self._state.pipeline.check(current, exchange)
        except SecureMLError as error:
            request_rejected.send(self._app, exchange=exchange, error=error)
            raise
        if not known and exchange.principal is not None:
            request_authenticated.send(self._app, exchange=exchange)

    def _respond(self, value: Any, write: Writer) -> AnyResponse:
        """Return the response for the value that a view returned."""
        try:
            current: Request = request._get_current_object()  # type: ignore[attr-defined]
        except RuntimeError:
            # There is no request.
            return write(value)
        exchange: Exchange | None = current.environ.get(EXCHANGE_KEY)
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

    def _ensuring(self, ensure_sync: Callable[..., Any]) -> Any:
        """Return Flask's own ``ensure_sync``, which need not inspect what is known to be no coroutine function.

        That are the hooks of this object and the views that a decorator of ours has wrapped.
        """

        def ensured(function: Callable[..., Any]) -> Any:
            if type(function) is MethodType and function.__self__ is self:
                return function
            if type(function) is FunctionType and function.__code__ is WRAPPER:
                return function
            return ensure_sync(function)

        return ensured

    def _noting(self, handle: Callable[[Exception], Any]) -> Any:
        """Return Flask's own error handling; each exception is recorded on the exchange first."""

        def noted(error: Exception) -> Any:
            if isinstance(error, Completed):
                # Flask would make a stream of it, which no filter can read.
                return error.response
            exchange = exchange_of(request.environ)
            if exchange is not None:
                exchange.handle(error)
            return handle(error)

        return noted

    def _after(self, response: Response) -> Response:
        """Run the filters."""
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange: Exchange | None = current.environ.get(EXCHANGE_KEY)
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
        exchange = None if error is None else exchange_of(request.environ)
        if exchange is not None and error is not None:
            exchange.fail(error)

    @property
    def propagates(self) -> bool:
        """Whether the app raises errors that nothing handles, as Flask decides."""
        configured = self._app.config["PROPAGATE_EXCEPTIONS"]
        return bool(self._app.testing or self._app.debug) if configured is None else bool(configured)

    def error_response(self, exchange: Exchange, error: BaseException) -> BaseResponse:
        """Return the response to an error that left Flask."""
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

    def finish_headers(
        self, exchange: Exchange, headers: list[tuple[str, str]], *, of_flask: bool
    ) -> list[tuple[str, str]]:
        """Return the headers of a response, completed."""
        for each in self._state.flask_headers if of_flask else self._state.foreign_headers:
            headers = each.completed(exchange, headers)
        return headers

    def commit(self, exchange: Exchange) -> SecureMLError | None:
        """Write the audit record of a response, and return what replaces it if that cannot be done and is required."""
        audit = self._state.audit
        if audit is None:
            return None
        exchange.finished = self._state.clock.monotonic()
        reason = audit.record(exchange)
        if reason is None:
            return None
        audit_unavailable.send(self._app, exchange=exchange, reason=reason)
        return DependencyUnavailable(reason) if audit.required else None

    def record(self, exchange: Exchange) -> None:
        """Record the response, before its first byte is sent."""
        exchange.finished = self._state.clock.monotonic()
        self._state.pipeline.record(exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Record the end of a streamed response."""
        exchange.finished = self._state.clock.monotonic()
        if self._state.audit is not None:
            self._state.audit.record_stream_end(exchange)
        self._state.pipeline.record_stream_end(exchange)

    def complete(self, exchange: Exchange) -> list[Callable[[], None]]:
        """Settle what the request was charged, and return what is left to do when the response was sent."""
        return settle(exchange) if exchange.charges else []
