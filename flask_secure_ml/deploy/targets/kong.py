"""Kong Gateway without a database: routes, size limits, clean headers and health checks.

Kong's own authentication is not used: the app verifies all credentials anyway, and the open-source plugins support
neither key sets of issuers nor client certificates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...errors import TlsRequired
from .. import web
from ..facts import Facts, RouteFacts
from ..target import Target

FORGED = (
    "Client-Cert",
    "Client-Cert-Chain",
    "Forwarded",
    "X-Amzn-Mtls-Clientcert-Leaf",
    "X-Forwarded-Client-Cert",
    "X-Real-IP",
    "X-Request-ID",
    "X-SSL-Client-Cert",
)
"""Headers that the app, or an app inside it, may trust from a proxy."""

_CATCH_ALL = 0


class KongRoute(NamedTuple):
    """A Kong route: a path and its body size limit."""

    name: str
    path: str
    priority: int
    max_body_bytes: int
    stream: bool


def make(facts: Facts) -> Mapping[str, str]:
    """Return the declarative configuration and the server configuration."""
    return {
        "kong.yaml": TARGET.render(
            "kong.yaml",
            facts,
            upstream=f"{facts.options.name}.internal",
            protocol="https" if facts.options.upstream_ca else "http",
            places=[place for place in facts.options.upstreams if not place.startswith("unix:")],
            routes=list(_routes(facts)),
            forged=list(FORGED),
            flood=web.address_rate(facts),
            clear_text=_problem(),
        ),
        "kong.conf": TARGET.render("kong.conf", facts),
        "problem.json": _template(),
    }


def _routes(facts: Facts) -> Iterator[KongRoute]:
    """Yield a route for each rule with different limits, and one for all other paths.

    Unknown paths also go to the app, whose 401 does not reveal which routes exist.
    """
    usual = facts.settings.max_body_bytes
    special = [route for route in facts.routes if route.stream or route.max_body_bytes != usual]
    for number, route in enumerate(special, 1):
        yield KongRoute(
            f"{facts.options.name}-{number}",
            _path(route),
            2 if route.literal else 1,
            route.max_body_bytes,
            route.stream,
        )
    yield KongRoute(f"{facts.options.name}-other", "/", _CATCH_ALL, usual, stream=False)


def _path(route: RouteFacts) -> str:
    """Return the path in the syntax of Kong 3: a regular expression after a tilde, which Kong anchors at its start."""
    return "~" + route.pattern.removeprefix("^")


def _problem() -> str:
    return json.dumps(
        {
            "type": "about:blank",
            "title": "Forbidden",
            "status": TlsRequired.code,
            "detail": TlsRequired.detail,
            "code": TlsRequired.slug,
        }
    )


def _template() -> str:
    """Return the body template of Kong's own errors; ``%s`` is replaced by the message and the request id.

    All of them have the same template, so it has no code.
    """
    members = {"type": "about:blank", "detail": "%s", "request_id": "%s"}
    return json.dumps(members) + "\n"


def exceed(facts: Facts) -> Iterator[str]:
    """Yield the features of the app that Kong without a license does not support."""
    if facts.options.client_certificates != "off":
        yield "client certificates require Kong Enterprise; put another proxy in front, or use access tokens"


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    if any(place.startswith("unix:") for place in facts.options.upstreams):
        yield "Kong cannot connect to a Unix socket; set 'upstreams' to host and port"
    if not facts.behind_proxy:
        yield "SECURE_ML_TRUSTED_PROXIES does not contain Kong's network, so all clients have Kong's address"
    if facts.options.front_proxies:
        yield (
            "Kong counts the requests of a load balancer in front as those of one client; also add front_proxies to"
            " SECURE_ML_TRUSTED_PROXIES, because Kong forwards the whole X-Forwarded-For chain"
        )
    yield from web.without_effect(facts, "Kong", "address_connections", "waf", "acme_email", "access_log")


TARGET = Target(
    name="kong",
    summary="Kong Gateway without a database: routes, size limits, headers and health checks",
    overlay="another declarative file, merged by deck",
    make=make,
    advice=("kong: check with  kong config parse {folder}/kong.yaml",),
    warn=warn,
    exceed=exceed,
)
