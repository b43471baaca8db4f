"""Envoy: TLS, client certificates, limits per route, JWTs, health checks, error responses and a log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ...config.issuers import IssuerConfig
from .. import web
from ..facts import Facts
from ..openssl import CIPHERS
from ..target import Target, quoted

_XFCC = "X-Forwarded-Client-Cert"
_ESCAPED_PEM = "X-SSL-Client-Cert"
# Envoy matches raw paths, and rules are decoded: for other characters, the two may differ.
_PLAIN = re.compile(r"[A-Za-z0-9/_.~:@!$&'()*+,;=<>-]*")
_ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"})
_SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
_UPLOAD_SECONDS = 300
_LEAST_BUFFER = 8 * 1024 * 1024
_OF_THE_CONNECTION = ("TE", "Keep-Alive", "X-Envoy-External-Address")
FAILURES = ("Jwt verification fails", "Jwt is expired")
"""Errors for which Envoy rejects a JWT itself, because no later key and no other issuer can make it valid."""


@dataclass(frozen=True)
class _Provider:
    """An issuer whose JWTs Envoy verifies, and the server of its keys."""

    name: str
    issuer: str
    uri: str
    host: str
    port: int
    san_type: str
    ca_file: str


def make(facts: Facts) -> Mapping[str, str]:
    """Return the configuration, and a script that starts Envoy with it and the overlay."""
    found = web.locations(facts)
    plain = [each for each in found if _PLAIN.fullmatch(each.rule)]
    others = [each.max_body_bytes for each in found if each not in plain]
    header = facts.settings.client_certificate_header
    certificates = facts.options.client_certificates != "off"
    kept = header if certificates and header in {_XFCC, _ESCAPED_PEM} else None
    content = TARGET.render(
        "envoy.yaml",
        facts,
        matches=_matches,
        endpoint=_endpoint,
        locations=plain,
        fallback_bytes=max(facts.settings.max_body_bytes, *others, 1),
        buffer_bytes=_LEAST_BUFFER,
        problems=web.problems(facts, "%REQ(X-REQUEST-ID)%"),
        providers=list(_providers(facts.settings.token_issuers)),
        # RE2 limits repetitions to 1,000.
        long_path=".{1000}" * (web.LINE_BYTES // 1000),
        failures=FAILURES,
        challenge=f'Bearer realm="{facts.settings.realm}", error="invalid_token"',
        origin_pattern="|".join(map(re.escape, web.error_origins(facts))),
        xfcc=kept == _XFCC,
        # Envoy removes headers before it adds them, and sets X-Forwarded-Client-Cert before the route is selected.
        removed=[name for name in (*web.HOP_HEADERS, *web.CERTIFICATE_HEADERS, *_OF_THE_CONNECTION) if name != _XFCC],
        upload_seconds=_UPLOAD_SECONDS,
        **(
            web.common_values(facts)
            | {"certificate_header": kept if kept == _ESCAPED_PEM else None, "ciphers": CIPHERS}
        ),
    )
    return {"envoy.yaml": content, "run.sh": TARGET.render("run.sh", facts)}


def _matches(location: web.Location) -> list[str]:
    """Return the matchers of a location: a path with and without its trailing slash, or a regular expression."""
    if location.literal is None:
        return [f"{{safe_regex: {{regex: {quoted(location.pattern)}}}}}"]
    paths = dict.fromkeys((location.literal, location.literal.rstrip("/")))
    return [f"{{path: {quoted(path)}}}" for path in paths if path]


def _endpoint(server: str) -> str:
    if server.startswith("unix:"):
        return f"{{pipe: {{path: {quoted(server.removeprefix('unix:'))}}}}}"
    host, _, port = server.rpartition(":")
    return f"{{socket_address: {{address: {quoted(host.strip('[]'))}, port_value: {port}}}}}"


def _providers(issuers: tuple[IssuerConfig, ...]) -> Iterator[_Provider]:
    """Yield the issuers whose keys Envoy can fetch and whose algorithms it supports."""
    for number, each in enumerate(issuers, 1):
        if each.jwks_uri is None or each.jwks_token is not None or each.proxy is not None or "{" in each.issuer:
            continue
        parts = urlsplit(each.jwks_uri)
        if parts.scheme != "https" or parts.hostname is None or not _ALGORITHMS.issuperset(each.algorithms):
            continue
        yield _Provider(
            name=f"issuer_{number}",
            issuer=each.issuer,
            uri=each.jwks_uri,
            host=parts.hostname,
            port=parts.port or 443,
            san_type="IP_ADDRESS" if _is_address(parts.hostname) else "DNS",
            ca_file=each.ca_file or _SYSTEM_CA,
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    yield from web.warnings(facts)
    yield from web.without_effect(facts, "Envoy", "address_connections", "waf", "acme_email")
    header = facts.settings.client_certificate_header
    if facts.options.client_certificates != "off" and header not in {None, _XFCC, _ESCAPED_PEM}:
        yield f"Envoy does not support {header}: set SECURE_ML_CLIENT_CERTIFICATE_HEADER to X-Forwarded-Client-Cert"


TARGET = Target(
    name="envoy",
    summary="a reverse proxy with TLS, limits per route, JWTs, health checks and error responses",
    overlay="overlay.yaml",
    make=make,
    advice=(
        "envoy: check with  {folder}/run.sh --mode validate",
        "envoy: start with  {folder}/run.sh",
    ),
    warn=warn,
)
