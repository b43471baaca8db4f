"""Decides when the guards run: before the layers beneath the proxy middleware, or in Flask's first hook.

If only Flask responds, its hooks are sufficient. A mounted WSGI app, Socket.IO or a class with its own dispatch
responds without Flask's hooks; if there is one beneath, the guards run before it is called, for every request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Request, Response
from flask.ctx import RequestContext
from werkzeug.exceptions import HTTPException

from ..config import Settings
from ..errors import Completed, InternalError
from ..exchange import Exchange
from ..pipeline import Pipeline
from ..policy.matching import PolicyTable
from ..policy.paths import in_mount
from ..policy.policy import Policy
from .beneath import Beneath, around, is_proxy_fix, layer_name

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


log: logging.Logger = logging.getLogger(__name__)

SOCKETS = ("gunicorn.socket", "werkzeug.socket", "eventlet.input", "wsgi.websocket", "wsgi.early_hints")
"""The keys under which servers expose the connection, with which code can respond without ``start_response``."""

POLICY_VIOLATION = 1008
"""The close code for a WebSocket whose handshake the server completed before it called any app (RFC 6455, 7.4.1)."""

PROXY_FIX_MARK = "werkzeug.proxy_fix.orig"
_PROXY_FIX = (
    "ProxyFix wraps the app and trusts the forwarded headers of all clients: remove it, and name your proxies in "
    "SECURE_ML_TRUSTED_PROXIES"
)

Guard = Callable[[Request, Exchange, Policy, str | None], None]


class Admission:
    """Runs the guards once for each request, as early as the layers beneath require.

    :param pipeline: the pipeline whose guards are run.
    :param below: the layers beneath the proxy middleware.
    :param guard: runs the guards for a request under a policy, and raises an error if they reject it.
    """

    def __init__(
        self, app: Flask, policies: PolicyTable, pipeline: Pipeline, below: Beneath, settings: Settings, guard: Guard
    ) -> None:
        self._app = app
        self._policies = policies
        self._pipeline = pipeline
        self._guard = guard
        self._plain = below.plain
        self._mounts = (*below.mounts, *settings.mounts)
        self._outer = OuterMiddleware(app, settings.outer_middleware)

    def admit(self, environ: WSGIEnvironment, exchange: Exchange) -> Response | None:
        """Return the response that rejects the request, or None to call the layers beneath.

        A plain app is guarded in Flask's first hook. Otherwise the guards run here, under the policy of the path. A
        policy that is public in code admits requests to Flask only: until Flask's first hook has run, the socket is
        hidden, and any other response is replaced.

        :raises InternalError: unknown middleware wraps the app.
        """
        # If an outer app admitted the request, it ran its own guards, not these.
        exchange.answerable = False
        self._outer.check()
        if PROXY_FIX_MARK in environ and exchange.checked_by is None:
            raise InternalError(_PROXY_FIX)
        if self._plain:
            return None
        context = _GuardContext(self._app, environ)
        try:
            # push() opens the session and matches the URL, with user code that may fail; like Flask, always pop.
            context.push()
            rejection = self._admit(context.request, exchange)
            context.goes_on = rejection is None
        finally:
            context.pop(None)
        return rejection

    def enter(self, request: Request, exchange: Exchange) -> None:
        """Guard a request in Flask's first hook, unless it was already admitted for the same target and policy.

        :raises SecureMLError: the request is rejected.
        """
        if exchange.guarded is request:
            return
        if exchange.guarded is not None and exchange.checked_by is self._pipeline:
            # Middleware beneath has changed the request: the original was guarded and charged, but not this one.
            exchange.target = None
            exchange.clear_charges()
        exchange.guarded = request
        exchange.answerable = True
        self._policies.ensure_checked()
        policy = self._policies.find(request.url_rule, request.method, request.path)
        if request.url_rule is None:
            policy = self._policies.redirected(request) or policy
        if exchange.target is None or exchange.cleared is not policy or exchange.target != target_of(request):
            self._guard(request, exchange, policy, request.endpoint)
            exchange.flask_only &= policy.public
        if exchange.sockets:
            _give_sockets(request.environ, exchange.sockets)

    def _admit(self, request: Request, exchange: Exchange) -> Response | None:
        try:
            opens_all = self._check(request, exchange)
        except HTTPException as error:
            exchange.answerable = True
            _close_websocket(request.environ)
            return self._rejection(error)
        exchange.answerable = opens_all
        exchange.flask_only = not opens_all
        if exchange.flask_only:
            exchange.sockets = _take_sockets(request.environ)
        return None

    def _check(self, request: Request, exchange: Exchange) -> bool:
        """Run the guards; return False if the policy admits requests to Flask only."""
        path = request.environ.get("PATH_INFO") or "/"
        mounted = in_mount(path, self._mounts)
        if mounted:
            # The rule belongs to a route that the mount shadows, and a key for that route is not valid for the mount.
            request.url_rule = request.view_args = None
        self._policies.ensure_checked()
        policy, name = self._policies.beneath(path, request.url_rule, request.method)
        if request.url_rule is None and not mounted and name is None:
            policy = self._policies.redirected(request) or policy
        exchange.target = target_of(request)
        self._guard(request, exchange, policy, name or request.endpoint)
        return name is not None or not policy.public

    def _rejection(self, error: HTTPException) -> Response:
        # Flask's own methods, because an override in the app's class may be the code that must not run.
        rejected = error.response if isinstance(error, Completed) else Flask.handle_user_exception(self._app, error)
        return Flask.process_response(self._app, self._app.make_response(rejected))


class OuterMiddleware:
    """Rejects every request until the configuration names all middleware that wraps the app.

    :param named: ``SECURE_ML_OUTER_MIDDLEWARE``.
    """

    def __init__(self, app: Flask, named: Collection[str]) -> None:
        self._app = app
        self._named = named
        self._seen: object = None
        self._problem: str | None = None

    def check(self) -> None:
        """Check that no unknown middleware wraps the app.

        :raises InternalError: there is some.
        """
        outermost = self._app.wsgi_app
        if outermost is not self._seen:
            self._problem = next(outer_problems(self._app, self._named), None)
            # Two threads may see it for the first time; then it is logged twice.
            self._seen = outermost
            if self._problem is not None:
                log.critical("every request gets 500: %s", self._problem)
        if self._problem is not None:
            raise InternalError(self._problem)


def outer_problems(app: Flask, named: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each layer around the app that the configuration does not name, and for ``ProxyFix``."""
    for layer in around(app):
        name = layer_name(layer)
        if is_proxy_fix(layer):
            yield _PROXY_FIX
        elif name not in named:
            yield (
                f"{name} wraps the app and can bypass the guards, because it was added after init_app: add it "
                f"before, or name it in SECURE_ML_OUTER_MIDDLEWARE"
            )


def opaque_layers(below: Beneath, mounts: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each layer beneath the guards whose own paths are unknown."""
    for name in () if mounts else below.opaque:
        yield (
            f"{name} runs inside the guards and may respond itself at paths of public routes: "
            f"list its paths in SECURE_ML_MOUNTS"
        )


def target_of(request: Request) -> tuple[str, str, str]:
    """Return the target of a request in WSGI: method, mount and path."""
    environ = request.environ
    return request.method, environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")


class _GuardContext(RequestContext):
    """A request context for the guards; for an admitted request, it leaves the teardown functions to Flask's own."""

    goes_on = False

    def pop(self, exc: BaseException | None = None) -> None:
        if self.goes_on:
            self.app = cast("Flask", SimpleNamespace(do_teardown_request=lambda _: None))
        super().pop(exc)


def _give_sockets(environ: WSGIEnvironment, sockets: Mapping[str, Any]) -> None:
    """Restore the keys that were hidden from the code beneath, except for a body that was replaced meanwhile."""
    replaced = not isinstance(environ["wsgi.input"], _Readable)
    environ.update({name: taken for name, taken in sockets.items() if not (replaced and name == "wsgi.input")})


def _take_sockets(environ: WSGIEnvironment) -> dict[str, Any]:
    taken = {name: environ.pop(name) for name in SOCKETS if name in environ}
    # gevent's own server exposes the socket in its input.
    taken["wsgi.input"] = environ["wsgi.input"]
    environ["wsgi.input"] = _Readable(environ["wsgi.input"])
    return taken


class _Readable:
    """The body of a request, without the other attributes of its stream."""

    def __init__(self, stream: Any) -> None:
        self.read = stream.read
        self.readline = stream.readline
        self.readlines = stream.readlines
        self._stream_iterator = stream.__iter__

    def __iter__(self) -> Iterator[bytes]:
        return cast("Iterator[bytes]", self._stream_iterator())


def _close_websocket(environ: WSGIEnvironment) -> None:
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:
        try:
            if type(websocket).__module__.startswith("geventwebsocket."):
                # Its own close frame has no code.
                websocket.send_frame(POLICY_VIOLATION.to_bytes(2), websocket.OPCODE_CLOSE)
            websocket.close(POLICY_VIOLATION)
        except Exception as error:  # noqa: BLE001 - the client may be gone, and each library has its own errors
            log.info("a rejected WebSocket could not be closed: %s", type(error).__name__)
