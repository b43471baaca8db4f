"""The headers of every response: the policy of Flask-Talisman, set for an API, and what Talisman does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flask import Flask, Response
from flask_talisman import Talisman
from werkzeug.test import create_environ, run_wsgi_app

from ..exchange import Exchange

_BEYOND_TALISMAN = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
)
_OF_THE_BODY = frozenset({"content-type", "content-length"})
_HIDDEN = frozenset({"server", "x-powered-by"})
_HSTS = "strict-transport-security"
_FOR_EVERYONE = frozenset({_HSTS, "x-content-type-options"})


class HeaderFilter:
    """Sets the headers that the view has not set, and removes those that expose the server.

    HSTS is sent over TLS only (RFC 6797 section 7.2). ``Server`` and ``X-Powered-By`` are removed (RFC 9110 section
    10.2.4).

    :param hsts_max_age: for how many seconds browsers use HTTPS only.
    :param exposed: headers that scripts of other origins may read, where CORS allows these origins.
    :param subdomains: HSTS holds for the subdomains of the host too.
    """

    def __init__(self, hsts_max_age: int, exposed: Sequence[str] = (), *, subdomains: bool = True) -> None:
        policy = [*_BEYOND_TALISMAN, *_talisman_policy(hsts_max_age, subdomains=subdomains)]
        if exposed:
            policy.append(("Access-Control-Expose-Headers", ", ".join(exposed)))
        self._secure = tuple((name, name.lower(), value) for name, value in policy)
        self._clear = tuple(header for header in self._secure if header[1] != _HSTS)

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Set the headers in place."""
        headers = response.headers
        for name, value in exchange.reply_headers.items():
            headers[name] = value
        # One pass over the names: Werkzeug's own lookup walks the whole list for each header.
        present = {name.lower() for name, _ in headers}
        for name in _HIDDEN & present:
            headers.remove(name)
        for name, lower, value in self._secure if exchange.secure else self._clear:
            if lower not in present:
                headers.add(name, value)
        headers["X-Request-ID"] = exchange.request_id


class ForeignHeaders:
    """Completes the headers of a response that does not come from Flask, with those that break no page.

    :param hsts_max_age: as for :class:`HeaderFilter`.
    :param subdomains: as for :class:`HeaderFilter`.
    """

    def __init__(self, hsts_max_age: int, *, subdomains: bool = True) -> None:
        whole = _talisman_policy(hsts_max_age, subdomains=subdomains)
        policy = [header for header in whole if header[0].lower() in _FOR_EVERYONE]
        self._secure = tuple(policy)
        self._clear = tuple(header for header in policy if header[0].lower() != _HSTS)

    def completed(self, exchange: Exchange, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to send."""
        own = {**exchange.reply_headers, "X-Request-ID": exchange.request_id}
        replaced = {name.lower() for name in own}
        kept = [header for header in headers if header[0].lower() not in replaced | _HIDDEN]
        present = {name.lower() for name, _ in kept}
        added = [each for each in (self._secure if exchange.secure else self._clear) if each[0].lower() not in present]
        return [*kept, *added, *own.items()]


def _talisman_policy(hsts_max_age: int, *, subdomains: bool) -> Iterator[tuple[str, str]]:
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
        content_security_policy={"default-src": "'none'", "frame-ancestors": "'none'"},
        referrer_policy="no-referrer",
        permissions_policy={"geolocation": "()", "camera": "()", "microphone": "()"},
        x_xss_protection=False,
    )
    # Not its test client, which imports the debugger and more of what no server needs.
    _, _, headers = run_wsgi_app(app, create_environ(base_url="https://localhost"), buffered=True)
    for name, value in headers:
        if name.lower() not in _OF_THE_BODY:
            yield name, value
