"""Checks of open routes, cached responses, the served OpenAPI description and idle clients."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from ...openapi import build_document
from ..finding import Check, Found, Severity
from .client import Reply
from .site import MOST_ROUTES, Site

_MOST_ANONYMOUS = 30
# Without a body, these rarely have an effect, even on a route that is open by mistake.
_HARMLESS = ("GET", "POST", "PUT", "PATCH")
# Statuses of responses to a request that was read: 401 comes first.
_OF_VIEWS = frozenset({400, 406, 409, 410, 413, 415, 422, 428})
# Codes of the app for callers with a credential only. For others, an unknown URL is a 401 as well.
_LATER_CODES = ("not_found", "insufficient_scope", "internal_error")
_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head"})
_NOT_STORED = re.compile(r"\b(no-store|private)\b")


def open_routes(site: Site) -> Iterator[Found]:
    """Yield the private routes that respond to anonymous requests; run after the authenticated requests."""
    _ = site.private_replies
    requests, _left_out = anonymous_requests(site)
    for method, path in requests:
        reply = site.client.send(method, path, body=None if method == "GET" else b"")
        # Where every anonymous request is rejected alike, this one did not get further.
        if reply.status != site.stranger.status and _is_open(reply):
            yield Found(site.at(path), f"an anonymous {method} gets status {reply.status}")


def anonymous_requests(site: Site) -> tuple[list[tuple[str, str]], int]:
    """Return the methods and paths of requests to private routes, and the number of routes left out.

    None has a body, and none is a ``DELETE``.
    """
    found: dict[tuple[str, str], None] = {}
    without = 0
    for route in site.routes:
        if not route.public:
            method = next((each for each in _HARMLESS if each in route.methods), "")
            if method and route.path:
                found[method, route.path] = None
            else:
                without += 1
    requests = sorted(found, key=lambda each: each[0] != "GET")
    return requests[:_MOST_ANONYMOUS], without + len(requests[_MOST_ANONYMOUS:])


def _is_open(reply: Reply) -> bool:
    """Return True if a response shows that an anonymous request passed authentication."""
    if not reply.status or reply.is_ours("not_authenticated"):
        return False
    if reply.status < HTTPStatus.BAD_REQUEST or reply.status in _OF_VIEWS:
        return True
    return any(reply.is_ours(code) for code in _LATER_CODES)


def cached(site: Site) -> Iterator[Found]:
    """Yield the private responses that a shared cache has stored or may store."""
    for path, reply in site.private_replies.items():
        if reply.header("Age") or "hit" in reply.header("X-Cache").lower():
            yield Found(site.at(path), "a response that needs a credential comes from a cache")
        elif reply.status == HTTPStatus.OK and not _NOT_STORED.search(reply.header("Cache-Control").lower()):
            yield Found(site.at(path), "a response that needs a credential may be cached")


def unreached(site: Site) -> Iterator[Found]:
    """Yield the public routes that do not reach the app."""
    for route in site.readable(public=True):
        reply = site.client.send("GET", route.path)
        if reply.status and not reply.header("X-Request-ID"):
            yield Found(site.at(route.path), f"a request gets {reply.shown()}, without X-Request-ID")


def other_description(site: Site) -> Iterator[Found]:
    """Yield a finding if the served OpenAPI description differs from that of the loaded app."""
    setup = site.setup
    if setup is None or setup.settings.openapi == "off":
        return
    if setup.settings.openapi == "protected" and not site.authenticated:
        return
    if not site.description:
        yield Found(site.where, "the OpenAPI description is not served")
        return
    here, there = _operations(build_document(setup.app)), _operations(site.description)
    for kind, names in (("lacks", here - there), ("has", there - here)):
        if names:
            shown = ", ".join(sorted(names)[:MOST_ROUTES])
            yield Found(site.where, f"the served description {kind} {shown}, unlike the app that was loaded")


def _operations(document: Mapping[str, Any]) -> set[str]:
    paths = document.get("paths")
    items = paths.items() if isinstance(paths, dict) else ()
    return {
        f"{method.upper()} {path}"
        for path, item in items
        if isinstance(item, dict)
        for method in item
        if method in _METHODS
    }


def unchecked(site: Site) -> Iterator[Found]:
    """Yield the checks that could not be made, and why."""
    if not site.stranger.status:
        return
    if not site.authenticated:
        yield Found(site.where, "404, 405, 413, 429 and caches were not checked: this needs a valid --credential")
    for path in site.limited:
        yield Found(site.at(path), "the maximum size of a body was not checked: a limit of the caller is used up")
    if site.setup is None and not site.description:
        yield Found(site.where, "routes were not checked: neither the app nor its OpenAPI description is available")
    elif not any(site.client.send("GET", each.path).remaining is not None for each in site.readable(public=True)):
        what = "forged IP addresses were not checked: no public route with GET sends RateLimit"
        yield Found(site.where, what, "SECURE_ML_LIMIT_HEADERS = True, and a public route such as /healthz")
    if number := anonymous_requests(site)[1]:
        yield Found(site.where, f"private routes that were not requested without a credential: {number}")
    for kind, public in (("private", False), ("public", True)):
        if (public or site.authenticated) and (number := site.left_out(public=public)):
            yield Found(site.where, f"{kind} routes with GET that were not requested: {number}")
    if site.client.sent >= site.client.most:
        yield Found(site.where, f"{site.client.most} requests were sent, which is the maximum for one run")


def silent_clients(site: Site) -> Iterator[Found]:
    """Yield a finding if a client that sends half a request stays connected; opt-in."""
    if not site.patience:
        return
    with suppress(OSError), site.client.connect(seconds=site.patience + site.client.timeout) as channel:
        channel.sendall(f"GET / HTTP/1.1\r\nHost: {site.client.authority}\r\nX-Check: ".encode())
        if not _ends_within(channel, site.patience):
            what = f"a client that sends half a request is still connected after {site.patience:g} seconds"
            yield Found(site.where, what)


def _ends_within(channel: socket.socket, seconds: float) -> bool:
    """Return True if the server closes a connection in time.

    Data that the server sends does not extend the time.
    """
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        channel.settimeout(left)
        try:
            if not channel.recv(65_536):
                return True
        except TimeoutError:
            return False
    return False


CHECKS = (
    Check(
        "SML941",
        Severity.ERROR,
        "A private route is public",
        "The policy restricts it to callers, but another server or a cache responds, or a proxy adds a credential.",
        "nginx: proxy_pass to the app for this path, proxy_cache off, and no credential in proxy_set_header",
        open_routes,
    ),
    Check(
        "SML942",
        Severity.WARNING,
        "Private responses are cached",
        "One caller gets the response of another.",
        "nginx: proxy_cache off, and no proxy_ignore_headers Cache-Control",
        cached,
    ),
    Check(
        "SML943",
        Severity.NOTE,
        "A public route does not reach the app",
        "Another server responds instead of the app.",
        "nginx: proxy_pass to the app for this path, or remove the route",
        unreached,
    ),
    Check(
        "SML944",
        Severity.WARNING,
        "Another version is served",
        "The app that was checked is not the one that is running.",
        "deploy the loaded app, or check the deployed version",
        other_description,
    ),
    Check(
        "SML945",
        Severity.WARNING,
        "Idle clients stay connected",
        "A few hundred such clients exhaust the connections of a threaded server.",
        "nginx: client_header_timeout 10s; HAProxy: timeout http-request 10s; gunicorn: worker_class gevent",
        silent_clients,
    ),
    Check(
        "SML946",
        Severity.NOTE,
        "Some checks could not be made",
        "The subjects that the message names may have problems.",
        "--credential env:NAME, --app module:create_app, SECURE_ML_OPENAPI",
        unchecked,
    ),
)
