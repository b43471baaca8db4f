"""Checks of error responses as clients get them, and of limits that app and proxy must agree on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from http import HTTPStatus

from ..finding import Check, Found, Severity
from .client import Reply, unknown_path
from .site import MOST_ROUTES, Endpoint, Site

MOST_BODY = 16 * 1024 * 1024
"""Maximum size of a body that is sent to compare limits, in bytes."""

MOST_REPEATS = 25
"""Maximum number of requests to use up a limit."""

_HEADER_MARGIN = 256
_METHODS = ("POST", "PUT", "PATCH", "DELETE")
# Without a body, these have no effect even if a route accepts them. DELETE would.
_HARMLESS = ("PATCH", "POST", "PUT")


def unauthenticated(site: Site) -> Iterator[Found]:
    """Yield a 401 that the app did not send, or that lost its challenge."""
    reply = site.stranger
    if not reply.status or reply.is_ours("tls_required"):
        return
    if not reply.is_ours("not_authenticated"):
        yield Found(site.where, f"an anonymous request for an unknown URL gets {reply.shown()} instead of 401")
    elif not reply.header("WWW-Authenticate"):
        yield Found(site.where, "the 401 has no header WWW-Authenticate")


def credential(site: Site) -> Iterator[Found]:
    """Yield a credential that the service rejects."""
    if site.client.credential is not None and site.unknown.status == HTTPStatus.UNAUTHORIZED:
        yield Found(site.where, "a request with the given credential gets 401")


def not_found(site: Site) -> Iterator[Found]:
    """Yield a 404 that the app did not send."""
    if site.authenticated:
        reply = site.unknown
        if reply.status == HTTPStatus.NOT_FOUND and not reply.is_ours("not_found"):
            yield Found(site.where, f"an unknown URL gets {reply.shown()}")


def wrong_method(site: Site) -> Iterator[Found]:
    """Yield a 405 that the app did not send, or that does not list the allowed methods."""
    if not site.authenticated:
        return
    methods: dict[str, set[str]] = {}
    for each in site.endpoints:
        methods.setdefault(each.path, set()).update(each.methods)
    for path, taken in [*methods.items()][:MOST_ROUTES]:
        for method in [each for each in _HARMLESS if each not in taken][:1]:
            reply = site.client.send(method, path, authenticated=True)
            is_ours = reply.is_ours("method_not_allowed") and bool(reply.header("Allow"))
            by_another = reply.status >= HTTPStatus.BAD_REQUEST and not reply.header("X-Request-ID")
            is_rejected = reply.status == HTTPStatus.METHOD_NOT_ALLOWED or by_another
            if is_rejected and not is_ours:
                yield Found(site.at(path), f"{method} gets {reply.shown()}")
            if is_rejected:
                return


def body_limit(site: Site) -> Iterator[Found]:
    """Yield a finding if a proxy rejects bodies that the app accepts, or replaces the app's 413."""
    route = _with_body(site)
    if route is None or route.max_body is None:
        return
    method = next(each for each in route.methods if each in _METHODS)
    size = min(route.max_body, MOST_BODY)
    # Spaces and half an object: the app reads the whole body and rejects it.
    within = site.client.send(method, route.path, body=b"{".rjust(size), authenticated=True)
    if within.is_limited:
        site.limited.append(route.path)
        return
    if within.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or not within.header("X-Request-ID"):
        too_large = within.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        fix = f"nginx: client_max_body_size {size}" if too_large else "nginx: a writable client_body_temp_path"
        yield Found(site.at(route.path), f"a body of {size} bytes, which the app accepts, gets {within.shown()}", fix)
        return
    if route.max_body < MOST_BODY:
        beyond = site.client.send(method, route.path, body=b"{".rjust(size + 1), authenticated=True)
        if beyond.is_limited:
            site.limited.append(route.path)
        elif not beyond.is_ours("payload_too_large"):
            yield Found(site.at(route.path), f"a body of {size + 1} bytes, which is too large, gets {beyond.shown()}")


def _with_body(site: Site) -> Endpoint | None:
    if not site.authenticated:
        return None
    routes = [each for each in site.endpoints if each.body and set(each.methods) & {*_METHODS}]
    return min(routes, key=lambda each: each.max_body or 0, default=None)


def rate_limited(site: Site) -> Iterator[Found]:
    """Yield a 429 that the app did not send, if few requests are enough to get one."""
    found = _used_up(site)
    if found is None:
        return
    path, reply = found
    if not reply.is_limited or not reply.header("Retry-After"):
        yield Found(site.at(path), f"a request beyond the limit gets {reply.shown()}")


def _used_up(site: Site) -> tuple[str, Reply] | None:
    """Return a path with an exhausted limit and its 429; None if that takes too many requests."""
    for path, reply in site.private_replies.items():
        if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            return path, reply
    left = {path: each.remaining for path, each in site.private_replies.items() if each.remaining is not None}
    path, repeats = min(left.items(), key=lambda each: each[1], default=("", MOST_REPEATS + 1))
    for _ in range(repeats + 1 if repeats <= MOST_REPEATS else 0):
        reply = site.client.send("GET", path, authenticated=True)
        if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            return path, reply
    return None


def blocked_methods(site: Site) -> Iterator[Found]:
    """Yield the methods of routes that do not reach the app."""
    if not site.stranger.header("X-Request-ID"):
        # In that case, every 401 is replaced on its way.
        return
    used = {method for each in site.endpoints for method in each.methods} & {*_METHODS}
    for method in sorted(used):
        reply = site.client.send(method, unknown_path())
        if reply.status and not reply.header("X-Request-ID"):
            yield Found(site.where, f"{method}, which the app accepts, gets {reply.shown()}")


def header_limit(site: Site) -> Iterator[Found]:
    """Yield a finding if a header with the longest accepted token is rejected."""
    issuers = site.setup.settings.token_issuers if site.setup else ()
    longest = max((each.max_token_bytes for each in issuers), default=0)
    if longest and site.stranger.header("X-Request-ID"):
        reply = site.client.send("GET", unknown_path(), [("X-Check", "x" * (longest - _HEADER_MARGIN))])
        if not reply.header("X-Request-ID"):
            what = f"a header of {longest - _HEADER_MARGIN} bytes, which a token may need, gets {reply.shown()}"
            yield Found(site.where, what)


def trace(site: Site) -> Iterator[Found]:
    """Yield a finding if TRACE repeats the headers of a request."""
    marker = secrets.token_hex(12)
    reply = site.client.send("TRACE", unknown_path(), [("X-Check", marker)])
    if marker.encode() in reply.body:
        yield Found(site.where, "TRACE repeats the headers of a request")


CHECKS = (
    Check(
        "SML931",
        Severity.ERROR,
        "The app's 401 does not reach clients",
        "Requests do not reach the app, or clients get no challenge (RFC 9110 section 11.6.1).",
        "nginx: proxy_pass to the app for every path, proxy_intercept_errors off, and no auth_basic",
        unauthenticated,
    ),
    Check(
        "SML932",
        Severity.WARNING,
        "The credential is rejected",
        "The checks that need a credential were not made.",
        "--credential with a reference to a valid API key or access token; nginx: "
        "proxy_set_header Authorization $http_authorization",
        credential,
    ),
    Check(
        "SML933",
        Severity.WARNING,
        "The app's 404 does not reach clients",
        "Clients get no problem document and no request id.",
        "nginx: proxy_intercept_errors off, and no error_page 404",
        not_found,
    ),
    Check(
        "SML934",
        Severity.WARNING,
        "The app's 405 does not reach clients",
        "Clients get no problem document, or no list of allowed methods (RFC 9110 section 15.5.6).",
        "nginx: proxy_intercept_errors off, and no limit_except",
        wrong_method,
    ),
    Check(
        "SML935",
        Severity.WARNING,
        "App and proxy have different body size limits",
        "Valid bodies are rejected, or clients get no problem document for bodies that are too large.",
        "nginx: client_max_body_size above SECURE_ML_MAX_BODY_BYTES, proxy_intercept_errors off",
        body_limit,
    ),
    Check(
        "SML936",
        Severity.WARNING,
        "The app's 429 does not reach clients",
        "Clients do not get Retry-After.",
        "nginx: proxy_intercept_errors off, and no error_page 429",
        rate_limited,
    ),
    Check(
        "SML937",
        Severity.WARNING,
        "A method does not reach the app",
        "Clients cannot call routes with this method.",
        "nginx: no limit_except and no if ($request_method) for it",
        blocked_methods,
    ),
    Check(
        "SML938",
        Severity.WARNING,
        "Long tokens are rejected",
        "Callers with many scopes or groups get an error response that is not from the app.",
        "nginx: large_client_header_buffers 4 16k; gunicorn: limit_request_field_size",
        header_limit,
    ),
    Check(
        "SML939",
        Severity.WARNING,
        "TRACE repeats requests",
        "Scripts can read headers that browsers hide from them (RFC 9110 section 9.3.8).",
        "Apache: TraceEnable off; HAProxy: http-request deny if METH_TRACE",
        trace,
    ),
)
