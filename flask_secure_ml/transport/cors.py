"""Cross-origin resource sharing (CORS): which pages of other origins may call, by their policies.

Browsers send a preflight before a request that a plain form could not make. It has no credential, so it is answered
before authentication: for an unknown URL as under the default policy, so that routes cannot be listed.

An origin is sent back only if it is listed, in the form in which it is listed. A response that depends on the origin
has ``Vary: Origin``, whoever asked, so that no cache serves one origin what is for another.
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
_METHOD = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
_ORDINARY_VARY = ("Origin",)
_PREFLIGHT_VARY = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


class AnnouncedPolicies:
    """Finds the policy of the request that a preflight announces.

    :param plain: Flask alone responds; otherwise policies by path come first.
    :param mounts: the paths of what is mounted beneath the guards.
    """

    def __init__(self, app: Flask, policies: PolicyTable, *, plain: bool, mounts: Collection[str]) -> None:
        self._app = app
        self._policies = policies
        self._plain = plain
        self._mounts = mounts

    def find(self, request: Request, method: str) -> Policy:
        """Return the policy for a method at the URL of the request; the default one where there is no route."""
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
            # Nothing is there, another method is, or the URL redirects, which no browser follows for a preflight.
            return None


class CorsGuard:
    """Reads the origin, and responds to preflights: those that name an origin and a method.

    An ``OPTIONS`` request without these is one like any other, which needs a credential.

    :param policies: finds the policy of the request that a preflight announces.
    """

    name = "cors"
    stage = Stage.TRANSPORT

    def __init__(self, policies: AnnouncedPolicies) -> None:
        self._policies = policies

    def check(self, request: Request, exchange: Exchange) -> None:
        """Let everything but a preflight pass.

        :raises Completed: it is a preflight.
        """
        environ = request.environ
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return
        exchange.origin = origin
        if request.method == "OPTIONS" and _METHOD in environ:
            exchange.preflight = self._policies.find(request, environ[_METHOD])
            # The headers are added when it leaves, and no hook of the app can.
            raise Completed(Response(status=204))


class CorsHeaders:
    """Sets the headers of CORS, and removes those that the app has set: the policy alone decides.

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
