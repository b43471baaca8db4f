"""Checks of forged headers, as far as responses reveal whether the app trusts them.

* Scheme: the error ``tls_required`` is sent for all requests in clear text and for none over TLS.
* IP address: the header ``RateLimit`` of a public route is counted by network, so a fresh counter means that the app
  trusted a forged address.
* Host: a response repeats it.
* Client certificate: responses do not reveal it, so the check only reports a note.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from ..finding import Check, Found, Severity
from .client import Reply, unknown_path
from .site import Endpoint, Site

SCHEMES = (
    ("X-Forwarded-Proto", "{0}"),
    ("Forwarded", "proto={0}"),
    ("X-Forwarded-Scheme", "{0}"),
    ("X-Scheme", "{0}"),
    ("X-Url-Scheme", "{0}"),
    ("CloudFront-Forwarded-Proto", "{0}"),
    ("CF-Visitor", '{{"scheme":"{0}"}}'),
)
ADDRESSES = (
    ("X-Forwarded-For", "{0}"),
    ("X-Real-IP", "{0}"),
    ("Forwarded", 'for="[{0}]"'),
    ("True-Client-IP", "{0}"),
    ("CF-Connecting-IP", "{0}"),
    ("X-Client-IP", "{0}"),
    ("X-Cluster-Client-IP", "{0}"),
    ("Fastly-Client-IP", "{0}"),
    ("X-Original-Forwarded-For", "{0}"),
)
HOSTS = ("X-Forwarded-Host", "X-Host", "X-Original-Host", "X-Forwarded-Server")
_MARGIN = 2
"""Minimum difference of a fresh counter; fewer requests become available between two responses."""


def scheme(site: Site) -> Iterator[Found]:
    """Yield the headers with which a client can forge the scheme."""
    secure = site.client.secure
    forged = "http" if secure else "https"
    if site.stranger.is_ours("tls_required") is secure:
        return
    together = [(name, form.format(forged)) for name, form in SCHEMES]
    if not _changes_scheme(site, together, secure=secure):
        return
    for header in together:
        if _changes_scheme(site, [header], secure=secure):
            yield Found(site.where, f"a client can set the scheme of its request with {header[0]}")


def unseen_tls(site: Site) -> Iterator[Found]:
    """Yield a finding if the app mistakes requests over TLS for clear text."""
    if site.client.secure and site.stranger.is_ours("tls_required"):
        yield Found(site.where, "a request over TLS gets 403 tls_required")


def _changes_scheme(site: Site, headers: Sequence[tuple[str, str]], *, secure: bool) -> bool:
    reply = site.client.send("GET", unknown_path(), headers)
    return bool(reply.header("X-Error-Code")) and reply.is_ours("tls_required") is secure


def address(site: Site) -> Iterator[Found]:
    """Yield the headers with which a client can forge its IP address."""
    route = _counted(site)
    if route is None:
        return
    if _is_fresh(site, route, [(name, form.format(_address())) for name, form in ADDRESSES]):
        for name, form in ADDRESSES:
            if _is_fresh(site, route, [(name, form.format(_address()))]):
                yield Found(site.where, f"a client can set its IP address with {name}")


def _counted(site: Site) -> Endpoint | None:
    """Return a public route with a limit by network, after three requests to it."""
    for route in site.readable(public=True):
        if site.client.send("GET", route.path).remaining is not None:
            for _ in range(_MARGIN):
                site.client.send("GET", route.path)
            return route
    return None


def _is_fresh(site: Site, route: Endpoint, headers: Sequence[tuple[str, str]]) -> bool:
    """Return True if a request with these headers gets a different counter than those around it."""
    before, forged, after = (site.client.send("GET", route.path, each).remaining for each in ((), headers, ()))
    if before is None or forged is None or after is None:
        return False
    return forged >= before + _MARGIN and forged >= after + _MARGIN


def _address() -> str:
    """Return a documentation address (RFC 3849) in a network that was not used before."""
    return f"2001:db8:{secrets.randbits(16):x}:{secrets.randbits(16):x}::1"


def host(site: Site) -> Iterator[Found]:
    """Yield the paths whose response repeats a forged host."""
    for path in (unknown_path(), *(each.path for each in site.readable(public=True)[:1])):
        name = _host()
        reply = site.client.send("GET", path, [(header, name) for header in HOSTS])
        if _repeats(reply, name):
            yield Found(site.at(path), f"a response repeats the host that a client sent in one of {', '.join(HOSTS)}")
            return


def any_host(site: Site) -> Iterator[Found]:
    """Yield a finding if the app responds to requests for other hosts."""
    reply = site.client.send("GET", unknown_path(), host=_host())
    # A proxy that sends error responses in the app's format rejects with 421 (RFC 9110 section 15.5.20).
    if reply.status != HTTPStatus.MISDIRECTED_REQUEST and reply.header("X-Error-Code") and reply.header("X-Request-ID"):
        yield Found(site.where, f"a request for another host reaches the app: {reply.shown()}")


def _host() -> str:
    return f"check-{secrets.token_hex(6)}.invalid"


def _repeats(reply: Reply, name: str) -> bool:
    return name.encode() in reply.body or any(name in value for _, value in reply.headers)


def request_id(site: Site) -> Iterator[Found]:
    """Yield a finding if clients can choose the id of their requests."""
    chosen = f"check-{secrets.token_hex(12)}"
    if site.client.send("GET", unknown_path(), [("X-Request-ID", chosen)]).header("X-Request-ID") == chosen:
        yield Found(site.where, "the X-Request-ID that a client sends is kept")


def certificate_header(site: Site) -> Iterator[Found]:
    """Yield the certificate header, which cannot be checked from outside."""
    name = site.setup.settings.client_certificate_header if site.setup else None
    if name is not None:
        yield Found(site.where, f"it cannot be checked from outside whether the proxy forwards {name} from clients")


CHECKS = (
    Check(
        "SML921",
        Severity.ERROR,
        "A forged scheme is trusted",
        "A request without TLS is accepted as secure, or a request over TLS gets 403.",
        "nginx: proxy_set_header X-Forwarded-Proto $scheme; HAProxy: http-request set-header X-Forwarded-Proto https; "
        "and only proxies in SECURE_ML_TRUSTED_PROXIES",
        scheme,
    ),
    Check(
        "SML922",
        Severity.ERROR,
        "A forged IP address is trusted",
        "Clients evade limits and blocks by network, and records contain forged addresses.",
        "nginx: proxy_set_header X-Forwarded-For $remote_addr; Envoy: use_remote_address: true; "
        "HAProxy: http-request set-header X-Forwarded-For %[src]",
        address,
    ),
    Check(
        "SML923",
        Severity.WARNING,
        "A forged host is repeated",
        "Links in responses, including cached ones, point to a host of the attacker's choice.",
        "nginx: proxy_set_header X-Forwarded-Host $host; HAProxy: http-request del-header X-Forwarded-Host",
        host,
    ),
    Check(
        "SML924",
        Severity.NOTE,
        "Other hosts reach the app",
        "DNS rebinding and cache poisoning are possible.",
        'nginx: listen 443 ssl default_server; return 444; Flask 3.1: TRUSTED_HOSTS = ["models.example.com"]',
        any_host,
    ),
    Check(
        "SML925",
        Severity.NOTE,
        "Clients can choose request ids",
        "Two requests can have the same id in the log.",
        "nginx: proxy_set_header X-Request-ID $request_id",
        request_id,
    ),
    Check(
        "SML926",
        Severity.NOTE,
        "A certificate header cannot be checked",
        "If a proxy forwards the header that a client sends, anyone can impersonate any client.",
        "nginx: proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert; Envoy: forward_client_cert_details: "
        "SANITIZE_SET",
        certificate_header,
    ),
    Check(
        "SML927",
        Severity.ERROR,
        "Requests over TLS are treated as clear text",
        "All requests are rejected: the proxy does not report TLS to the app, or the app does not trust the proxy.",
        'nginx: proxy_set_header X-Forwarded-Proto $scheme; SECURE_ML_TRUSTED_PROXIES = ["10.0.3.0/24"]',
        unseen_tls,
    ),
)
