"""Checks of response headers as clients get them, by the rules of the MDN HTTP Observatory."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import Check, Found, Severity
from ..offline.transport import HALF_A_YEAR
from .site import Site

_MAX_AGE = re.compile(r"max-age=\"?(\d+)", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+")
_ONCE = ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options")


def hsts(site: Site) -> Iterator[Found]:
    """Yield a finding if HSTS is missing or short."""
    if not (site.client.secure and site.sample.status):
        return
    found = _MAX_AGE.search(site.sample.header("Strict-Transport-Security"))
    if found is None:
        yield Found(site.where, "Strict-Transport-Security is missing")
    elif int(found[1]) < HALF_A_YEAR:
        yield Found(site.where, f"Strict-Transport-Security lasts only {found[1]} seconds")


def missing(site: Site) -> Iterator[Found]:
    """Yield the security headers that are missing."""
    reply = site.sample
    if not reply.status:
        return
    if {each.lower() for each in reply.all("X-Content-Type-Options")} != {"nosniff"}:
        yield Found(site.where, "X-Content-Type-Options: nosniff is missing")
    policy = reply.header("Content-Security-Policy").lower()
    if "default-src" not in policy:
        yield Found(site.where, "Content-Security-Policy is missing")
    elif "unsafe-inline" in policy or "unsafe-eval" in policy:
        yield Found(site.where, "the Content-Security-Policy allows inline scripts or eval")
    if "frame-ancestors" not in policy and not reply.header("X-Frame-Options"):
        yield Found(site.where, "frame-ancestors and X-Frame-Options are missing")
    if not reply.header("Referrer-Policy"):
        yield Found(site.where, "Referrer-Policy is missing")


def doubled(site: Site) -> Iterator[Found]:
    """Yield the security headers that are sent twice."""
    for name in _ONCE:
        if len(site.sample.all(name)) > 1:
            yield Found(site.where, f"{name} arrives {len(site.sample.all(name))} times")


def versions(site: Site) -> Iterator[Found]:
    """Yield the headers that disclose the version of a program."""
    for name in ("Server", "X-Powered-By", "Via"):
        value = site.sample.header(name)
        if value and (name == "X-Powered-By" or _VERSION.search(value.removeprefix("1.1 ").removeprefix("1.0 "))):
            yield Found(site.where, f"{name} discloses a version")


CHECKS = (
    Check(
        "SML911",
        Severity.WARNING,
        "HSTS is missing or short",
        "Browsers may follow a link without TLS.",
        "nginx: no proxy_hide_header Strict-Transport-Security; SECURE_ML_HSTS_MAX_AGE = 31536000",
        hsts,
    ),
    Check(
        "SML912",
        Severity.WARNING,
        "Security headers are missing",
        "The app sends them, but a proxy removes or replaces them.",
        "nginx: no proxy_hide_header and no add_header of the same name",
        missing,
    ),
    Check(
        "SML913",
        Severity.WARNING,
        "A security header is sent twice",
        "Browsers use the first HSTS header and combine policies, so the effective policy is not the intended one.",
        "nginx: remove the add_header for the header in the message",
        doubled,
    ),
    Check(
        "SML914",
        Severity.NOTE,
        "A version is disclosed",
        "Attackers learn which known vulnerabilities to try.",
        "nginx: server_tokens off; HAProxy: http-response del-header Server",
        versions,
    ),
)
