"""Cross-origin resource sharing (CORS): which pages of other origins may call a route, by its policy.

Browsers send a preflight before a request that a plain form could not make. It has no credential, so the response is
sent before authentication. Unknown URLs are treated as under the default policy, so that routes cannot be listed.

An origin is sent back only if it is listed, in the form in which it is listed. Every response that depends on the
origin has ``Vary: Origin``, so that caches do not serve it to other origins.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flask import Flask, Request, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from ..errors import Completed
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.cors import METHODS, CorsOptions
from ..policy.matching import PolicyTable
from ..policy.paths import in_mount
from ..policy.policy import Policy

EXPOSED = (
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
    "X-Error-Code",
    "WWW-Authenticate",
    "DPoP-Nonce",
)
"""The response headers of this extension that a page may read."""

_PREFIX = "access-control-"
# CORS-safelisted methods: allowed without being listed.
_SAFE_METHODS = frozenset({"GET", "HEAD", "POST"})
_METHOD = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
_ORDINARY_VARY = ("Origin",)
_PREFLIGHT_VARY = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


class AnnouncedPolicies:
    """Finds the policy of the request that a preflight asks for.

    :param plain: whether only Flask responds; if not, policies by path take precedence.
    :param mounts: the paths of apps that are mounted beneath the guards.
    """

    def __init__(self, app: Flask, policies: PolicyTable, *, plain: bool, mounts: Collection[str]) -> None:
        self._app = app
        self._policies = policies
        self._plain = plain
        self._mounts = mounts

    def find(self, request: Request, method: str) -> Policy:
        """Return the policy for a method at the URL of the request.

        It is the default policy if there is no route.
        """
        if self._plain:
            return self._policies.find(self._rule(request, method), method, request.path)
        path = request.environ.get("PATH_INFO") or "/"
        rule = None if in_mount(path, self._mounts) else self._rule(request, method)
        return self._policies.beneath(path, rule, method)[0]

    def _rule(self, request: Request, method: str) -> Rule | None:
        if method not in METHODS:
            return None
        try:
            adapter = self._app.create_url_adapter(request)
            return None if adapter is None else adapter.match(method=method, return_rule=True)[0]
        except HTTPException:
            # There is no route, or only for another method, or it redirects, which browsers reject for a preflight.
            return None


class CorsGuard:
    """Reads the origin, and responds to preflights, which have an origin and a method.

    An ``OPTIONS`` request without these is treated like any other request, and needs a credential.

    :param policies: finds the policy of the request that a preflight asks for.
    :param default: the options of routes whose policy has none.
    """

    name = "cors"
    stage = Stage.TRANSPORT

    def __init__(self, policies: AnnouncedPolicies, default: CorsOptions) -> None:
        self._policies = policies
        self._default = default

    def check(self, request: Request, exchange: Exchange) -> None:
        """Read the origin of a request, and respond to a preflight.

        :raises Completed: the request is a preflight.
        """
        environ = request.environ
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return
        exchange.origin = origin
        if request.method == "OPTIONS" and _METHOD in environ:
            exchange.preflight = policy = self._policies.find(request, environ[_METHOD])
            asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
            options = self._default if policy.cors is None else policy.cors
            exchange.denied = _denied(options, origin, environ[_METHOD], asked)
            # The CORS headers are added when the response is sent; hooks of the app cannot add them.
            raise Completed(Response(status=204))


def _denied(options: CorsOptions, origin: str, method: str, headers: str) -> str:
    """Return the reason why a browser will reject a preflight, or an empty string."""
    if not options.any_origin and options.allowed(origin) is None:
        return "CORS: the origin is not listed"
    if method not in options.methods and method not in _SAFE_METHODS:
        return "CORS: the method is not listed"
    listed = {name.lower() for name in options.headers}
    asked = {name.strip().lower() for name in headers.split(",") if name.strip()}
    return "" if asked <= listed else "CORS: a header is not listed"


class CorsHeaders:
    """Sets the CORS headers by policy, and removes any that the app has set.

    :param default: the options of routes whose policy has none.
    """

    def __init__(self, default: CorsOptions) -> None:
        self._default = default

    def completed(self, exchange: Exchange, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to send."""
        found = Headers(list(headers))
        self._set(found, exchange)
        return found.to_wsgi_list()

    def _set(self, headers: Headers, exchange: Exchange) -> None:
        for name in {name for name, _ in headers if name.lower().startswith(_PREFIX)}:
            headers.remove(name)
        policy = exchange.preflight or exchange.policy
        options = self._default if policy is None or policy.cors is None else policy.cors
        if exchange.preflight is not None:
            _merge_vary(headers, _PREFLIGHT_VARY)
        elif options.origins and not options.any_origin:
            _merge_vary(headers, _ORDINARY_VARY)
        origin = "*" if options.any_origin else options.allowed(exchange.origin)
        if origin is None:
            return
        headers.set("Access-Control-Allow-Origin", origin)
        if options.credentials:
            headers.set("Access-Control-Allow-Credentials", "true")
        if exchange.preflight is None:
            headers.set("Access-Control-Expose-Headers", ", ".join(dict.fromkeys((*EXPOSED, *options.expose))))
            return
        headers.set("Access-Control-Allow-Methods", ", ".join(options.methods))
        if options.headers:
            headers.set("Access-Control-Allow-Headers", ", ".join(options.headers))
        headers.set("Access-Control-Max-Age", str(options.max_age))


def _merge_vary(headers: Headers, names: Sequence[str]) -> None:
    present = [name.strip() for value in headers.getlist("Vary") for name in value.split(",") if name.strip()]
    known = {name.lower() for name in present}
    missing = [] if "*" in known else [name for name in names if name.lower() not in known]
    if missing:
        headers.set("Vary", ", ".join([*present, *missing]))
