"""Checks of CORS and security headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ...config.issuers import LOOPBACK
from ...policy.cors import CorsOptions
from ..finding import Check, Found, Severity, Where, setting
from ..setup import Setup

_NEEDED = frozenset({"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"})
_WEAK = re.compile(r"(default|script)-src[^;]*('unsafe-inline'|'unsafe-eval'|\s\*(\s|;|$)|\bdata:)")


def flask_cors(setup: Setup) -> Iterator[Found]:
    """Yield a finding if flask-cors is an extension of the app."""
    if any(_is_of_flask_cors(hook) for hooks in setup.app.after_request_funcs.values() for hook in hooks):
        yield Found(Where("app", setup.app.name), "flask-cors is used, but the guards reject its preflights")


def cross_origin(setup: Setup) -> Iterator[Found]:
    """Yield the views with the decorator of flask-cors."""
    for name in sorted(name for name, view in setup.app.view_functions.items() if _is_of_flask_cors(view)):
        what = f"{name} has the decorator cross_origin of flask-cors, but the guards reject its preflights"
        yield Found(Where("route", name), what)


def clear_text_origins(setup: Setup) -> Iterator[Found]:
    """Yield the origins that are served without TLS."""
    for where, cors in _all(setup):
        for origin in sorted(cors.origins):
            if origin.startswith("http:") and urlsplit(origin).hostname not in LOOPBACK:
                yield Found(where, f"CORS of {where} allows {origin}")


def any_origin(setup: Setup) -> Iterator[Found]:
    """Yield the CORS options that allow every origin."""
    for where, cors in _all(setup):
        if cors.any_origin:
            yield Found(where, f"CORS of {where} allows every origin")


def credentials(setup: Setup) -> Iterator[Found]:
    """Yield the CORS options that allow cookies and client certificates."""
    for where, cors in _all(setup):
        if cors.credentials:
            what = f"pages of {', '.join(sorted(cors.origins)) or 'no origin'} send cookies and certificates to {where}"
            yield Found(where, what)


def weaker_headers(setup: Setup) -> Iterator[Found]:
    """Yield the security headers that are left out or weakened."""
    options = [(setting("headers"), setup.settings.headers)]
    options += [(setup.at(route), route.policy.headers) for route in setup.routes if route.policy.headers is not None]
    for where, given in options:
        for name, value in given.values:
            if value is None and name in _NEEDED:
                yield Found(where, f"{name} is not sent")
            elif value is not None and name == "Content-Security-Policy" and _WEAK.search(value):
                yield Found(where, "the Content-Security-Policy allows inline scripts, eval or every source")


def _all(setup: Setup) -> Iterator[tuple[Where, CorsOptions]]:
    if setup.settings.cors is not None:
        yield setting("cors"), setup.settings.cors
    for route in setup.routes:
        if route.policy.cors is not None:
            yield setup.at(route), route.policy.cors


def _is_of_flask_cors(function: Any) -> bool:
    """Return True if a function or one that it wraps is defined in flask-cors."""
    while function is not None:
        if str(getattr(function, "__globals__", {}).get("__name__", "")).startswith("flask_cors."):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


CHECKS = (
    Check(
        "SML501",
        Severity.WARNING,
        "flask-cors is used",
        "Its preflights are rejected with 401.",
        'remove flask-cors, and set SECURE_ML_CORS = {"origins": ["https://app.example.com"]}',
        flask_cors,
    ),
    Check(
        "SML502",
        Severity.WARNING,
        "A decorator of flask-cors is used",
        "Preflights of this route are rejected with 401.",
        '@protect(..., cors={"origins": ["https://app.example.com"]})',
        cross_origin,
    ),
    Check(
        "SML503",
        Severity.WARNING,
        "CORS allows an origin without TLS",
        "An attacker on the network of a visitor can modify its pages, and send requests from that origin.",
        'SECURE_ML_CORS = {"origins": ["https://app.example.com"]}',
        clear_text_origins,
    ),
    Check(
        "SML504",
        Severity.WARNING,
        "CORS allows every origin",
        "Every web page can read the responses.",
        'SECURE_ML_CORS = {"origins": ["https://app.example.com"]}',
        any_origin,
    ),
    Check(
        "SML505",
        Severity.NOTE,
        "CORS allows credentials",
        "A script that is injected into an allowed page can send requests as the visitor.",
        'SECURE_ML_CORS = {"origins": ["https://app.example.com"], "credentials": false}',
        credentials,
    ),
    Check(
        "SML506",
        Severity.WARNING,
        "Security headers are weakened",
        "Browsers may run a script that is injected into a response, or guess its content type.",
        'SECURE_ML_HEADERS = "page", and scripts in files of their own',
        weaker_headers,
    ),
)
