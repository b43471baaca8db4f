"""Shared by all proxies: locations, error responses, limits and TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from operator import itemgetter
from typing import Any

from werkzeug.exceptions import HTTPException

from ..config import Settings
from ..config.deployment import DeployOptions
from ..errors import (
    CODE_HEADER,
    PROBLEM_JSON,
    RETRY_SECONDS,
    DependencyUnavailable,
    Forbidden,
    NotAuthenticated,
    PayloadTooLarge,
    RateLimited,
    TlsRequired,
    problem_document,
    slug_and_detail,
)
from ..transport.cors import EXPOSED
from ..transport.forwarded import CERTIFICATE_FORMATS
from .facts import Facts, RouteFacts
from .openssl import CIPHERS, GROUPS

CONNECT_SECONDS = 2
"""Connect timeout of a proxy to an app server."""

CLIENT_SECONDS = 15
"""Timeout of a proxy for the headers of a request, and for the next bytes of a body."""

UPSTREAM_IDLE_SECONDS = 15
"""Keep-alive timeout of a proxy to an app server: shorter than the server's, so that requests do not use a closing
connection."""

SERVER_IDLE_SECONDS = 30
"""Keep-alive timeout of an app server behind a proxy."""

LINE_BYTES = 8_000
"""Maximum length of a URL or header at a proxy; gunicorn accepts request lines of up to 8,190 bytes."""

HOP_HEADERS = (
    "Forwarded",
    "X-Real-IP",
    "X-Forwarded-Server",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Original-URL",
    "X-Rewrite-URL",
    "Proxy",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Trailer",
)
"""Client headers that proxies remove, in addition to those that they set themselves."""

CERTIFICATE_HEADERS = tuple(CERTIFICATE_FORMATS)
"""Headers that the app can read a client certificate from."""

CREDENTIAL_HEADERS = ("Authorization", "X-API-Key", "Cookie", "DPoP")
"""Request headers that make a response private, so that shared caches neither store nor serve it."""

CALLER_HEADERS = ("RateLimit", "RateLimit-Policy", "X-Request-ID")
"""Response headers of one request, which are not served from a cache."""

_STATUSES = (400, 404, 405, 500)
# Errors that the app itself never sends. Phrases of http.HTTPStatus differ between releases of Python.
_OF_PROXIES: Mapping[int, tuple[str, str]] = {
    408: ("request_timeout", "The request took too long to arrive."),
    414: ("uri_too_long", "The URL of the request is too long."),
    417: ("expectation_failed", "The server cannot meet the expectation of the request."),
    421: ("misdirected_request", "This server does not serve the host of the request."),
    431: ("header_too_large", "The headers of the request are too large."),
    501: ("not_implemented", "The server does not support this request."),
    502: ("bad_gateway", "The service cannot be reached. Try again later."),
    504: ("prediction_timeout", "The prediction took longer than it may."),
    505: ("http_version_not_supported", "The server does not support this version of HTTP."),
}
_LEAST_RATE = 500
_LEAST_CONNECTIONS = 256
_PARTS = re.compile(r"<[^>]*>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Location:
    """The URLs of one rule for a proxy, with the most permissive limits of all rules that they may match.

    :param rule: the rule of Werkzeug.
    :param pattern: an anchored regular expression of the paths.
    :param literal: the path, if the rule has no variable.
    """

    rule: str
    pattern: str
    literal: str | None
    methods: tuple[str, ...]
    max_body_bytes: int
    cache_seconds: int
    stream: bool


def locations(facts: Facts) -> tuple[Location, ...]:
    """Return the locations of an app, literal ones first.

    Flask tries other rules if the method of the first does not match, and orders rules differently than a proxy. So
    each location has the maximum body size of all rules with overlapping paths, is a stream if one of them is, and is
    cached only if all of them are.
    """
    return tuple(
        _location(route, [other for other in facts.routes if _overlap(route, other)]) for route in facts.routes
    )


def printable_locations(facts: Facts) -> tuple[Location, ...]:
    """Return the locations without control characters, for languages whose strings cannot contain them.

    A proxy handles other routes like unknown URLs.
    """
    return tuple(each for each in locations(facts) if not _CONTROL.search(each.rule))


def _location(route: RouteFacts, same: list[RouteFacts]) -> Location:
    return Location(
        rule=route.rule,
        pattern=route.pattern,
        literal=route.literal,
        methods=tuple(sorted({method for each in same for method in each.methods})),
        max_body_bytes=max(each.max_body_bytes for each in same),
        cache_seconds=min(each.cache_seconds for each in same),
        stream=any(each.stream for each in same),
    )


def _overlap(one: RouteFacts, other: RouteFacts) -> bool:
    """Return True unless it is certain that no path matches both rules."""
    if one.literal is not None and other.literal is not None:
        return one.literal.rstrip("/") == other.literal.rstrip("/")
    if one.literal is not None or other.literal is not None:
        literal, pattern = (one.literal, other.pattern) if one.literal is not None else (other.literal, one.pattern)
        return re.search(pattern, literal or "") is not None
    starts = sorted((_PARTS.split(one.rule)[0], _PARTS.split(other.rule)[0]), key=len)
    return starts[1].startswith(starts[0])


@dataclass(frozen=True)
class Problem:
    """An error response of a proxy.

    :param status: the status code.
    :param code: the stable code, also in ``X-Error-Code``.
    :param document: the problem document in JSON, with the proxy's placeholder for the request id.
    :param headers: additional headers besides the request id and the common headers.
    """

    status: int
    code: str
    document: str
    headers: Mapping[str, str]


def problems(facts: Facts, request_id: str) -> dict[str, Problem]:
    """Return the error responses of a proxy by name: the status, or ``tls`` for the 403 to clear text.

    :param request_id: the proxy's placeholder for the request id, such as ``$request_id``. It must not need escaping
        in JSON.
    """
    return {name: _problem(facts, error, request_id) for name, error in sorted(_errors(), key=itemgetter(0))}


def _errors() -> Iterator[tuple[str, HTTPException]]:
    yield "tls", TlsRequired("")
    for own in (NotAuthenticated, Forbidden, PayloadTooLarge, RateLimited, DependencyUnavailable):
        yield str(own.code), own("")
    for status in (*_STATUSES, *_OF_PROXIES):
        error = HTTPException()
        error.code = status
        yield str(status), error


def _problem(facts: Facts, error: HTTPException, request_id: str) -> Problem:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    code, detail = _OF_PROXIES.get(status) or slug_and_detail(error)
    document = problem_document(error, request_id) | {"code": code, "detail": detail}
    headers = {
        "Content-Type": PROBLEM_JSON,
        CODE_HEADER: code,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    headers |= cors_headers(facts)
    if value := hsts(facts.settings):
        headers["Strict-Transport-Security"] = value
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = f'Mutual realm="{facts.settings.realm}"'
    return Problem(int(status), code, json.dumps(document), headers)


def error_origins(facts: Facts) -> tuple[str, ...]:
    """Return the origins whose pages may read the error responses of a proxy; ``*`` alone stands for all origins."""
    return tuple(sorted(facts.settings.cors.origins)) if facts.settings.cors else ()


def cors_headers(facts: Facts) -> dict[str, str]:
    """Return the CORS headers of all error responses.

    A single origin is allowed in every response, which browsers compare with their own. For several origins, a proxy
    adds ``Access-Control-Allow-Origin`` with the one of the request.
    """
    origins = error_origins(facts)
    if not (facts.settings.cors and origins):
        return {}
    headers = {"Access-Control-Expose-Headers": ", ".join(EXPOSED)}
    if facts.settings.cors.credentials:
        headers["Access-Control-Allow-Credentials"] = "true"
    own = {"Access-Control-Allow-Origin": origins[0]} if len(origins) == 1 else {"Vary": "Origin"}
    return headers | own


def hsts(settings: Settings) -> str | None:
    """Return the value of ``Strict-Transport-Security`` (RFC 6797), or None."""
    if not settings.hsts_max_age:
        return None
    return f"max-age={settings.hsts_max_age}" + ("; includeSubDomains" if settings.hsts_include_subdomains else "")


def address_rate(facts: Facts) -> int:
    """Return the maximum requests per second of one IP address: many callers may share it."""
    given = facts.options.address_rate
    if given is not None:
        return given
    rates = [-(-limit.amount // limit.seconds) for plan in facts.settings.plans.values() for limit in plan.requests]
    return max(_LEAST_RATE, 20 * max(rates, default=0))


def address_burst(facts: Facts) -> int:
    """Return the maximum burst of requests of one IP address."""
    if facts.options.address_rate is not None:
        return 10 * facts.options.address_rate
    amounts = [limit.amount for plan in facts.settings.plans.values() for limit in plan.requests]
    return max(10 * address_rate(facts), max(amounts, default=0))


def address_connections(facts: Facts) -> int:
    """Return the maximum number of connections of one IP address."""
    given = facts.options.address_connections
    if given is not None:
        return given
    flying = [plan.in_flight or 0 for plan in facts.settings.plans.values()]
    return max(_LEAST_CONNECTIONS, 16 * max(flying, default=0))


def common_values(facts: Facts) -> dict[str, Any]:
    """Return the shared template values of all proxies."""
    return {
        "certificate_header": facts.settings.client_certificate_header,
        "certificate_headers": CERTIFICATE_HEADERS,
        "hop_headers": HOP_HEADERS,
        "caller_headers": CALLER_HEADERS,
        "credential_headers": CREDENTIAL_HEADERS,
        "hsts": hsts(facts.settings),
        "cors_headers": cors_headers(facts),
        "error_origins": error_origins(facts) if len(error_origins(facts)) > 1 else (),
        "ciphers": ":".join(CIPHERS),
        "curves": ":".join(GROUPS),
        "address_rate": address_rate(facts),
        "address_burst": address_burst(facts),
        "address_connections": address_connections(facts),
        "client_seconds": CLIENT_SECONDS,
        "connect_seconds": min(CONNECT_SECONDS, facts.options.request_timeout),
        "upstream_idle": UPSTREAM_IDLE_SECONDS,
        "line_bytes": LINE_BYTES,
    }


_INSTEAD = {
    "waf": ": it does not have the Core Rule Set; use nginx",
    "acme_email": ": it does not obtain certificates; use certbot for 'certificate'",
}


def without_effect(facts: Facts, program: str, *names: str) -> Iterator[str]:
    """Yield a warning for each option that is set and that a program does not support.

    :param names: the options that it does not support.
    """
    defaults = DeployOptions()
    for name in names:
        if getattr(facts.options, name) != getattr(defaults, name):
            yield f"{name} has no effect on {program}{_INSTEAD.get(name, '')}"


def warnings(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings, for all proxies."""
    if facts.root != "/":
        yield (
            f"APPLICATION_ROOT is {facts.root}, but the files match paths without it: let another proxy in front remove"
            " the prefix, or serve the app at the root of its own host"
        )
    if not facts.behind_proxy:
        yield "SECURE_ML_TRUSTED_PROXIES is empty, so the app rejects requests from the proxy: add its network"
    if facts.options.client_certificates != "off" and facts.settings.client_certificate_header is None:
        yield "SECURE_ML_CLIENT_CERTIFICATE_HEADER is not set, so the app does not get client certificates"
    if facts.options.upstream_ca is not None and facts.upstream_name.startswith("*"):
        yield "upstream_name is not set, and the first host is a pattern: set the name in the servers' certificates"
    if facts.options.upstream_ca is None and any(not _is_local(server) for server in facts.options.upstreams):
        yield "upstream_ca is not set, so credentials are sent in clear text between the proxy and the servers"


def _is_local(server: str) -> bool:
    host = server.rpartition(":")[0]
    try:
        return host in {"unix", "localhost"} or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
