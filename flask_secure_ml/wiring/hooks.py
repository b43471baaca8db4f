"""The request hooks that Flask and the proxy middleware call."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

from flask import Flask, Request, Response, got_request_exception, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as AnyResponse
from werkzeug.wrappers import Response as BaseResponse

from ..describing import is_described_only
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
    """The request hooks of one app, for Flask and for the proxy middleware (``transport.site.Site``)."""

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._described = is_described_only()
        self._admission = Admission(app, state.policies, state.pipeline, state.beneath, state.settings, self._guard)

    def install(self) -> None:
        """Install the hooks where they cannot be bypassed."""
        app, settings, clock = self._app, self._state.settings, self._state.clock
        # First: URL value preprocessors run before the before_request hooks, where Flask stops at the first hook that
        # returns a response. Without this hook, no response is sent, see Outgoing.
        app.url_value_preprocessors.setdefault(None, []).insert(0, self._before)
        # Flask iterates over these lists in reverse, so the first entry runs last.
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
        """Run the guards before any other code of the app."""
        # Use the request itself: each access through the context proxy costs as much as a small guard.
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange: Exchange | None = current.environ.get(EXCHANGE_KEY)
        if exchange is None:
            raise InternalError("the proxy middleware did not run: was app.wsgi_app replaced?")
        exchange.streamed = None
        self._admission.enter(current, exchange)

    def _guard(self, current: Request, exchange: Exchange, policy: Policy, endpoint: str | None) -> None:
        """Run the guards for a request with a policy.

        :param endpoint: the endpoint of Flask, or the configured path of mounted middleware.
        :raises SecureMLError: the request is rejected.
        """
        exchange.method = current.method
        exchange.endpoint = endpoint
        exchange.path = current.path
        exchange.policy = policy
        known = not request_authenticated.receivers or exchange.principal is not None
        try:
            if self._described:
                # Its secrets were not checked, and it has no audit log, even if one is required.
                raise DependencyUnavailable("this app was loaded for its description only")
            self._state.pipeline.check(current, exchange)
        except SecureMLError as error:
            request_rejected.send(self._app, exchange=exchange, error=error)
            raise
        if not known and exchange.principal is not None:
            request_authenticated.send(self._app, exchange=exchange)

    def _respond(self, value: Any, write: Writer) -> AnyResponse:
        """Return the response for the return value of a view."""
        try:
            current: Request = request._get_current_object()  # type: ignore[attr-defined]
        except RuntimeError:
            # There is no request.
            return write(value)
        exchange: Exchange | None = current.environ.get(EXCHANGE_KEY)
        return write(value) if exchange is None else self._state.responses.respond(value, write, current, exchange)

    def _problem(self, error: HTTPException) -> BaseResponse:
        """Return the problem document for an HTTP error, including errors of other extensions."""
        exchange = exchange_of(request.environ)
        if error.response is not None:
            # Without a status it is not an error, and only gets here if the app traps HTTP exceptions.
            if exchange is not None and error.code is not None:
                exchange.reject(error)
            return cast("BaseResponse", error.response)
        everything = self._app.error_handler_spec[None][None].get(Exception)
        if everything is not None and not isinstance(error, SecureMLError):
            # Without this handler, Flask would have called the app's handler for all exceptions.
            written = self._app.ensure_sync(everything)(error)
            # Many handlers return HTTP errors unchanged: "if isinstance(error, HTTPException): return error".
            if written is not error:
                return self._app.make_response(written)
        response = problem_response(error) if exchange is None else exchange.problem(error)
        if own_text(error) is None:
            # A message of the app may contain data that the response rules of the route remove.
            mark_checked(response)
        return response

    def _ensuring(self, ensure_sync: Callable[..., Any]) -> Any:
        """Return Flask's ``ensure_sync`` with a shortcut for functions that are known to be synchronous.

        These are the hooks of this object and the views that our decorator has wrapped.
        """

        def ensured(function: Callable[..., Any]) -> Any:
            if type(function) is MethodType and function.__self__ is self:
                return function
            if type(function) is FunctionType and function.__code__ is WRAPPER:
                return function
            return ensure_sync(function)

        return ensured

    def _noting(self, handle: Callable[[Exception], Any]) -> Any:
        """Return Flask's error handling, which first records each exception on the exchange."""

        def noted(error: Exception) -> Any:
            if isinstance(error, Completed):
                # Flask would turn it into a stream, which filters cannot read.
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

    def begin(self, exchange: Exchange) -> None:
        """Count a request that begins."""
        metrics = self._state.metrics
        if metrics is not None:
            metrics.counters.request_began(exchange)
            exchange.counted = True

    @property
    def propagates(self) -> bool:
        """Whether Flask propagates unhandled exceptions of the app."""
        configured = self._app.config["PROPAGATE_EXCEPTIONS"]
        return bool(self._app.testing or self._app.debug) if configured is None else bool(configured)

    def error_response(self, exchange: Exchange, error: BaseException) -> BaseResponse:
        """Return the response for an exception that propagated out of Flask."""
        if not isinstance(error, SecureMLError):
            self._app.logger.error("request %s failed", exchange.request_id, exc_info=error)
            # If a handler of the app fails for a rejection, the response is still the rejection.
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
        """Return the complete headers of a response."""
        for each in self._state.flask_headers if of_flask else self._state.foreign_headers:
            headers = each.completed(exchange, headers)
        return headers

    def commit(self, exchange: Exchange) -> SecureMLError | None:
        """Write the audit record of a response; return the error that replaces it if a required record fails."""
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
        """Record the response before its first byte is sent."""
        exchange.finished = self._state.clock.monotonic()
        self._state.pipeline.record(exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Record the end of a streamed response."""
        exchange.finished = self._state.clock.monotonic()
        if self._state.audit is not None:
            self._state.audit.record_stream_end(exchange)
        self._state.pipeline.record_stream_end(exchange)

    def complete(self, exchange: Exchange) -> list[Callable[[], None]]:
        """Settle the charges of the request, and return the callbacks to run after the response was sent."""
        metrics = self._state.metrics
        if metrics is not None and exchange.counted:
            # A response that the server cannot send is completed twice.
            exchange.counted = False
            metrics.counters.request_ended(exchange)
        return settle(exchange) if exchange.charges else []
