"""The headers of every response: the policy of Flask-Talisman, in two presets, and what Talisman does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from flask import Flask, Response
from flask_talisman import Talisman
from werkzeug.test import create_environ, run_wsgi_app

from ..errors import PROBLEM_JSON
from ..exchange import Exchange
from ..policy.headers import API_HEADERS, HeaderOptions

_BEYOND_TALISMAN = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
)
_PAGE_CONTENT = {
    "default-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
_PRESETS: Mapping[str, Mapping[str, object]] = {
    "api": {
        "content_security_policy": {"default-src": "'none'", "frame-ancestors": "'none'"},
        "referrer_policy": "no-referrer",
    },
    # Checks against forged forms, such as that of Flask-WTF, need the Referer of requests to the same origin.
    "page": {"content_security_policy": _PAGE_CONTENT, "referrer_policy": "same-origin"},
}
_OF_THE_BODY = frozenset({"content-type", "content-length"})
_HIDDEN = frozenset({"server", "x-powered-by"})
_HSTS = "strict-transport-security"
_CACHE = "cache-control"
_SHARED = frozenset({"public", "s-maxage", "private"})
_FOR_EVERYONE = frozenset({_HSTS, "x-content-type-options"})

Table = tuple[tuple[str, str, str], ...]
"""Headers to add: the name, the name in lower case, and the value."""


class HeaderTables:
    """The headers of each preset, over TLS and in clear text, found once for all requests.

    HSTS is sent over TLS only (RFC 6797 section 7.2).

    :param hsts_max_age: for how many seconds browsers use HTTPS only.
    :param subdomains: HSTS holds for the subdomains of the host too.
    """

    def __init__(self, hsts_max_age: int, *, subdomains: bool = True) -> None:
        self._presets = {
            name: [*_BEYOND_TALISMAN, *_talisman_policy(hsts_max_age, preset, subdomains=subdomains)]
            for name, preset in _PRESETS.items()
        }
        self._found: dict[HeaderOptions, tuple[Table, Table]] = {}

    def of(self, options: HeaderOptions, *, secure: bool) -> Table:
        """Return the headers under some options."""
        found = self._found.get(options)
        if found is None:
            # As many as there are policies.
            found = self._found[options] = self._made(options)
        return found[0] if secure else found[1]

    def _made(self, options: HeaderOptions) -> tuple[Table, Table]:
        values: dict[str, str | None] = {**dict(self._presets[options.preset]), **dict(options.values)}
        whole = tuple((name, name.lower(), value) for name, value in values.items() if value is not None)
        return whole, tuple(header for header in whole if header[1] != _HSTS)


class HeaderFilter:
    """Sets the headers that the view has not set, and removes those that expose the server.

    ``Server`` and ``X-Powered-By`` are removed (RFC 9110 section 10.2.4).

    :param tables: the headers of each preset.
    :param default: the options of routes whose policy has none.
    :param exposed: headers that scripts of other origins may read, where CORS allows these origins.
    """

    def __init__(self, tables: HeaderTables, default: HeaderOptions, exposed: Sequence[str] = ()) -> None:
        self._tables = tables
        self._default = default
        self._secure = tables.of(default, secure=True)
        self._clear = tables.of(default, secure=False)
        self._exposed = ", ".join(exposed)

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Set the headers in place."""
        headers = response.headers
        for name, value in exchange.reply_headers.items():
            headers[name] = value
        # One pass over the names: Werkzeug's own lookup walks the whole list for each header.
        present = {name.lower() for name, _ in headers}
        for name in _HIDDEN & present:
            headers.remove(name)
        closed = not _is_open(exchange)
        for name, lower, value in self._table(response, exchange):
            if lower not in present:
                headers.add(name, private(value) if closed and lower == _CACHE else value)
        if closed and _CACHE in present:
            headers["Cache-Control"] = private(", ".join(headers.getlist("Cache-Control")))
        if self._exposed and "access-control-expose-headers" not in present:
            headers.add("Access-Control-Expose-Headers", self._exposed)
        headers["X-Request-ID"] = exchange.request_id

    def _table(self, response: Response, exchange: Exchange) -> Table:
        policy = exchange.policy
        if policy is not None and policy.headers is not None and (policy.public or not _is_hidden(response, exchange)):
            return self._tables.of(policy.headers, secure=exchange.secure)
        return self._secure if exchange.secure else self._clear


def private(caching: str) -> str:
    """Return a ``Cache-Control`` that keeps a response out of shared caches (RFC 9111 section 5.2.2.7).

    These store no response to a request with ``Authorization`` by themselves (section 3.5), but know nothing of keys in
    ``X-API-Key``, of sessions and of certificates; and Flask says ``public`` for static files, whatever their policy.
    """
    if caching == "no-store":
        return caching
    directives = [each.strip() for each in caching.split(",") if each.strip()]
    names = [each.partition("=")[0].rstrip().lower() for each in directives]
    if "no-store" in names:
        return caching
    return ", ".join(["private", *(each for each, name in zip(directives, names, strict=True) if name not in _SHARED)])


def _values(lower: str, headers: Sequence[tuple[str, str]]) -> list[str]:
    return [value for name, value in headers if name.lower() == lower]


def _is_open(exchange: Exchange) -> bool:
    # A caller beside a public policy: an enclosing app, or the policy of the path, required a credential.
    return exchange.policy is not None and exchange.policy.public and exchange.principal is None


def _is_hidden(response: Response, exchange: Exchange) -> bool:
    """Return True for a response from which an anonymous caller must not learn whether there is a route."""
    if exchange.preflight is not None:
        return True
    return exchange.principal is None and exchange.rejected is not None and response.mimetype == PROBLEM_JSON


class ForeignFilter(Protocol):
    """Completes the headers of a response that does not come from Flask."""

    def completed(self, exchange: Exchange, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to send."""


class ForeignHeaders:
    """Completes the headers of a response that does not come from Flask.

    These are the headers that break no page, or those that the policy of its path names.

    :param tables: the headers of each preset.
    """

    def __init__(self, tables: HeaderTables) -> None:
        self._tables = tables
        whole = tables.of(API_HEADERS, secure=True)
        self._secure = tuple(header for header in whole if header[1] in _FOR_EVERYONE)
        self._clear = tuple(header for header in self._secure if header[1] != _HSTS)

    def completed(self, exchange: Exchange, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to send."""
        own = {**exchange.reply_headers, "X-Request-ID": exchange.request_id}
        replaced = {name.lower() for name in own}
        kept = [header for header in headers if header[0].lower() not in replaced | _HIDDEN]
        present = {name.lower() for name, _ in kept}
        added = [(name, value) for name, lower, value in self._table(exchange) if lower not in present]
        if not _is_open(exchange) and (caching := _values(_CACHE, [*kept, *added])):
            kept, added = ([each for each in some if each[0].lower() != _CACHE] for some in (kept, added))
            added.append(("Cache-Control", private(", ".join(caching))))
        return [*kept, *added, *own.items()]

    def _table(self, exchange: Exchange) -> Table:
        policy = exchange.policy
        if policy is not None and policy.headers is not None:
            return self._tables.of(policy.headers, secure=exchange.secure)
        return self._secure if exchange.secure else self._clear


def _talisman_policy(hsts_max_age: int, preset: Mapping[str, object], *, subdomains: bool) -> Iterator[tuple[str, str]]:
    """Yield the headers that Flask-Talisman sets (OWASP REST security cheat sheet), once, on an app of its own.

    As a hook of the user's app, Talisman would redirect clear text or trust ``X-Forwarded-Proto`` of any client, share
    its options between apps, and compute the same headers for every response.
    """
    app = Flask("flask_secure_ml.transport")
    Talisman(
        app,
        force_https=False,
        frame_options="DENY",
        strict_transport_security_max_age=hsts_max_age,
        strict_transport_security_include_subdomains=subdomains,
        permissions_policy={"geolocation": "()", "camera": "()", "microphone": "()"},
        x_xss_protection=False,
        **preset,
    )
    # Not its test client, which imports the debugger and more of what no server needs.
    _, _, headers = run_wsgi_app(app, create_environ(base_url="https://localhost"), buffered=True)
    for name, value in headers:
        if name.lower() not in _OF_THE_BODY:
            yield name, value
