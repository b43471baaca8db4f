"""nginx: TLS, client certificates, limits per route, error responses, a cache of public responses and a log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .. import web
from ..facts import Facts
from ..target import Target

_TLS = "tls"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_VARIABLES = {
    "X-SSL-Client-Cert": "$escaped_certificate",
    "X-Forwarded-Client-Cert": "'Cert=\"$escaped_certificate\"'",
}


def quoted(value: str) -> str:
    """Return a value in double quotes, as one nginx argument.

    A dollar sign is not changed: nginx expands it in some arguments, and has no escape for it.
    """
    return '"' + "".join(_ESCAPED.get(character, character) for character in value) + '"'


def matches(location: web.Location) -> list[str]:
    """Return the matchers of a location: a path with and without its trailing slash, or a regular expression."""
    if location.literal is None:
        return [f"~ {quoted(location.pattern)}"]
    return [f"= {quoted(path)}" for path in dict.fromkeys((location.literal, location.literal.rstrip("/"))) if path]


def make(facts: Facts) -> Mapping[str, str]:
    """Return the configuration, the error responses and, with ``waf``, the rules of ModSecurity."""
    options, settings = facts.options, facts.settings
    problems = web.problems(facts, "$request_id")
    # A rule with a control character cannot be written in one line; such a route is treated as an unknown URL.
    found = [each for each in web.locations(facts) if not _CONTROL.search(each.rule)]
    private = [f"$http_{name.lower().replace('-', '_')}" for name in web.CREDENTIAL_HEADERS]
    content = TARGET.render(
        "nginx.conf",
        facts,
        q=quoted,
        matches=matches,
        directory=f"{options.proxy_directory}/{options.name}",
        locations=found,
        cached=any(each.cache_seconds for each in found),
        private=[*private, "$client_certificate", "$is_odd_path"],
        problems=problems,
        certificate_value=_VARIABLES.get(settings.client_certificate_header or "", '""'),
        scheme="https" if options.upstream_ca else "http",
        **web.common_values(facts),
    )
    common = {name: value for name, value in problems["500"].headers.items() if name not in _OF_ONE_STATUS}
    statuses = sorted(name for name in problems if name != _TLS)
    files = {
        "nginx.conf": content,
        "problems.conf": TARGET.render(
            "problems.conf",
            facts,
            q=quoted,
            problems=problems,
            common=common,
            statuses=statuses,
            **web.common_values(facts),
        ),
    }
    if options.waf:
        methods = sorted(
            {method for route in facts.routes for method in route.methods} | {"GET", "HEAD", "OPTIONS", "POST"}
        )
        files["modsecurity.conf"] = TARGET.render("modsecurity.conf", facts, methods=methods)
    return files


_OF_ONE_STATUS = {"Content-Type", "X-Error-Code"}


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    yield from web.warnings(facts)
    header = facts.settings.client_certificate_header
    if header is not None and header not in _VARIABLES and facts.options.client_certificates != "off":
        yield f"nginx does not support {header}: set SECURE_ML_CLIENT_CERTIFICATE_HEADER to X-SSL-Client-Cert"


TARGET = Target(
    name="nginx",
    summary="a reverse proxy with TLS, limits per route, error responses and a cache of public responses",
    overlay="overlay/http*.conf and overlay/server*.conf",
    make=make,
    advice=(
        "nginx: check with  nginx -t -c {absolute}/nginx.conf",
        "nginx: copy the files into /etc/nginx, and reload",
    ),
    warn=warn,
)
