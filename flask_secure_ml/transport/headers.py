"""The headers of every response: the policy of Flask-Talisman, in two presets, with additions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from flask import Flask
from flask_talisman import Talisman
from werkzeug.test import create_environ, run_wsgi_app

from ..errors import PROBLEM_JSON
from ..exchange import Exchange
from ..policy.headers import API_HEADERS, HeaderOptions
from .outgoing import NOT_IN_HEADERS
from .site import Headers

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
    # CSRF checks, such as that of Flask-WTF, need the Referer of requests to the same origin.
    "page": {"content_security_policy": _PAGE_CONTENT, "referrer_policy": "same-origin"},
}
_OF_THE_BODY = frozenset({"content-type", "content-length"})
_HIDDEN = frozenset({"server", "x-powered-by"})
_HSTS = "strict-transport-security"
_CACHE = "cache-control"
_NOT_STORED = "no-store"
_COOKIE = "set-cookie"
_ERRORS = 400
_SHARED = frozenset({"public", "s-maxage", "private"})
_FOR_EVERYONE = frozenset({_HSTS, "x-content-type-options"})

# Headers that are replaced, changed or removed if the view or middleware has set them.
_DECIDED = frozenset(
    {"x-request-id", "access-control-expose-headers", "ratelimit", "ratelimit-policy", _CACHE, _COOKIE, *_HIDDEN}
)


class HeaderCompletion(Protocol):
    """Completes the headers of a response before it is sent."""

    def completed(self, exchange: Exchange, headers: Headers) -> Headers:
        """Return the headers to send."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headers to add unless the view has set them.

    :param headers: the name, the name in lower case, and the value of each.
    :param to_anyone: names and values for responses of public routes.
    :param to_caller: names and values for all other responses, which shared caches must not store.
    :param of_error: names and values for error responses, which caches must not store.
    :param names: the names in lower case, including those of headers that are replaced, changed or removed.
    """

    headers: tuple[tuple[str, str, str], ...]
    to_anyone: tuple[tuple[str, str], ...]
    to_caller: tuple[tuple[str, str], ...]
    of_error: tuple[tuple[str, str], ...]
    names: frozenset[str]

    @classmethod
    def of(cls, headers: Sequence[tuple[str, str, str]]) -> Table:
        """Return a table with these headers."""
        return cls(
            tuple(headers),
            tuple((name, value) for name, _, value in headers),
            tuple((name, private(value) if lower == _CACHE else value) for name, lower, value in headers),
            tuple((name, _NOT_STORED if lower == _CACHE else value) for name, lower, value in headers),
            _DECIDED.union(lower for _, lower, _ in headers),
        )

    def only(self, keep: Callable[[str], bool]) -> Table:
        """Return a table with the headers whose lower-case names ``keep`` accepts."""
        return self.of([header for header in self.headers if keep(header[1])])


class HeaderTables:
    """The headers of each preset, over TLS and in clear text, computed once for all requests.

    HSTS is sent over TLS only (RFC 6797 section 7.2).

    :param hsts_max_age: for how many seconds browsers use HTTPS only.
    :param subdomains: whether HSTS applies to subdomains of the host too.
    """

    def __init__(self, hsts_max_age: int, *, subdomains: bool = True) -> None:
        self._presets = {
            name: [*_BEYOND_TALISMAN, *_talisman_policy(name, hsts_max_age, subdomains=subdomains)] for name in _PRESETS
        }
        self._found: dict[HeaderOptions, tuple[Table, Table]] = {}

    def of(self, options: HeaderOptions, *, secure: bool) -> Table:
        """Return the headers for some options."""
        found = self._found.get(options)
        if found is None:
            # As many as there are policies.
            found = self._found[options] = self._made(options)
        return found[0] if secure else found[1]

    def _made(self, options: HeaderOptions) -> tuple[Table, Table]:
        values: dict[str, str | None] = {**dict(self._presets[options.preset]), **dict(options.values)}
        whole = Table.of([(name, name.lower(), value) for name, value in values.items() if value is not None])
        return whole, whole.only(lambda name: name != _HSTS)


class FlaskHeaders:
    """Completes the headers of a response from Flask.

    :param tables: the headers of each preset.
    :param default: the options of routes whose policy has none.
    :param exposed: headers that scripts of other origins may read if CORS allows these origins.
    :param limits: returns the rate-limit headers.
    """

    def __init__(
        self,
        tables: HeaderTables,
        default: HeaderOptions,
        exposed: Sequence[str] = (),
        limits: Callable[[Exchange], Headers] | None = None,
    ) -> None:
        self._tables = tables
        self._secure = tables.of(default, secure=True)
        self._clear = tables.of(default, secure=False)
        self._exposed = [("Access-Control-Expose-Headers", ", ".join(exposed))] if exposed else []
        self._limits = limits

    def completed(self, exchange: Exchange, headers: Headers) -> Headers:
        """Return the headers to send."""
        own = [] if self._limits is None or exchange.limits is None else self._limits(exchange)
        policy = exchange.policy
        if policy is not None and policy.headers is not None and (policy.public or not _is_hidden(headers, exchange)):
            table = self._tables.of(policy.headers, secure=exchange.secure)
        else:
            table = self._secure if exchange.secure else self._clear
        return _completed(exchange, headers, table, own, self._exposed)


class ForeignHeaders:
    """Completes the headers of a response that does not come from Flask.

    Only headers that cannot break a page are added, or those that the policy of its path has.

    :param tables: the headers of each preset.
    """

    def __init__(self, tables: HeaderTables) -> None:
        self._tables = tables
        self._secure = tables.of(API_HEADERS, secure=True).only(_FOR_EVERYONE.__contains__)
        self._clear = self._secure.only(lambda name: name != _HSTS)

    def completed(self, exchange: Exchange, headers: Headers) -> Headers:
        """Return the headers to send."""
        policy = exchange.policy
        if policy is not None and policy.headers is not None:
            table = self._tables.of(policy.headers, secure=exchange.secure)
        else:
            table = self._secure if exchange.secure else self._clear
        return _completed(exchange, headers, table, [], [])


def _completed(exchange: Exchange, headers: Headers, table: Table, own: Headers, further: Headers) -> Headers:
    """Return the headers with those of a table, and without those that expose the server.

    ``Server`` and ``X-Powered-By`` are removed (RFC 9110 section 10.2.4). This works on the WSGI list, because
    Werkzeug's methods iterate over that list and validate the value again for each header that is set or copied.

    A policy declares the age of successful responses. A cache that stored the 406 of one caller, the 429 of one network
    or the cookie of one visitor would serve it to other clients.

    :param own: headers that replace others of the same name.
    :param further: headers to add unless there is one of the same name.
    """
    closed = exchange.principal is not None or exchange.policy is None or not exchange.policy.public
    identified = ("X-Request-ID", exchange.request_id)
    present = {name.lower() for name, _ in headers}
    failed = exchange.status >= _ERRORS
    if not exchange.reply_headers and present.isdisjoint(table.names):
        chosen = table.of_error if failed else table.to_caller if closed else table.to_anyone
        return [*headers, *chosen, *further, *own, identified]
    own = [*_checked(exchange.reply_headers), *own, identified]
    left_out = {name.lower() for name, _ in own} | _HIDDEN
    kept = [header for header in headers if header[0].lower() not in left_out]
    present = {name.lower() for name, _ in kept} | left_out
    wanted = table.of_error if failed else table.to_anyone
    added = [header for (_, lower, _), header in zip(table.headers, wanted, strict=True) if lower not in present]
    added += [header for header in further if header[0].lower() not in present]
    if (closed or _COOKIE in present) and (
        caching := [value for name, value in (*kept, *added) if name.lower() == _CACHE]
    ):
        kept, added = ([each for each in some if each[0].lower() != _CACHE] for some in (kept, added))
        added.append(("Cache-Control", private(", ".join(caching))))
    return [*kept, *added, *own]


def _checked(headers: Mapping[str, str]) -> Headers:
    """Return the headers that guards add to the response.

    :raises ValueError: a value has a character that HTTP forbids.
    """
    if any(NOT_IN_HEADERS.search(value) for value in headers.values()):
        raise ValueError("a guard set a header with an invalid character")
    return [*headers.items()]


def _is_hidden(headers: Headers, exchange: Exchange) -> bool:
    """Return True if the response must not reveal to an anonymous caller whether there is a route."""
    if exchange.preflight is not None:
        return True
    if exchange.principal is not None or exchange.rejected is None:
        return False
    kinds = [value for name, value in headers if name.lower() == "content-type"]
    return any(kind.partition(";")[0].strip().lower() == PROBLEM_JSON for kind in kinds)


def private(caching: str) -> str:
    """Return a ``Cache-Control`` that keeps a response out of shared caches (RFC 9111 section 5.2.2.7).

    By themselves, they do not store responses to requests with ``Authorization`` (section 3.5), but they do not
    recognize keys in ``X-API-Key``, sessions and certificates, and Flask sets ``public`` for static files regardless of
    their policy.
    """
    if caching == "no-store":
        return caching
    directives = [each.strip() for each in caching.split(",") if each.strip()]
    names = [each.partition("=")[0].rstrip().lower() for each in directives]
    if "no-store" in names:
        return caching
    return ", ".join(["private", *(each for each, name in zip(directives, names, strict=True) if name not in _SHARED)])


@cache
def _talisman_policy(preset: str, hsts_max_age: int, *, subdomains: bool) -> tuple[tuple[str, str], ...]:
    """Return the headers that Flask-Talisman sets (OWASP REST security cheat sheet), computed once on a separate app.

    As a hook of the user's app, Talisman would redirect clear text or trust ``X-Forwarded-Proto`` from any client,
    share its options between apps, and compute the same headers for every response.
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
        **_PRESETS[preset],
    )
    # Not the test client, which imports the debugger and other modules that servers do not need.
    _, _, headers = run_wsgi_app(app, create_environ(base_url="https://localhost"), buffered=True)
    return tuple((name, value) for name, value in headers if name.lower() not in _OF_THE_BODY)
