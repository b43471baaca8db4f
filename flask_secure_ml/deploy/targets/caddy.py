"""Caddy: TLS with ACME certificates, client certificates, limits per route, health checks and a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .. import web
from ..facts import Facts
from ..target import Target

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
"""Go's names of the ciphers in :data:`~flask_secure_ml.deploy.openssl.CIPHERS`."""

_HEADER = "Client-Cert"


def quoted(value: str) -> str:
    """Return a string as one Caddyfile token, in which only the quotation mark can be escaped."""
    return '"' + value.replace('"', '\\"') + '"'


def pattern(value: str) -> str:
    """Return a regular expression as one token, with ``{$`` escaped.

    Caddy replaces ``{$NAME}`` by an environment variable, even in a string.
    """
    return quoted(value.replace("{$", "{(?:$)"))


def make(facts: Facts) -> Mapping[str, str]:
    """Return the Caddyfile."""
    options, settings = facts.options, facts.settings
    found = web.printable_locations(facts)
    content = TARGET.render(
        "Caddyfile",
        facts,
        q=quoted,
        pattern=pattern,
        problems=web.problems(facts, "{http.request.uuid}"),
        special=[each for each in found if each.stream or each.max_body_bytes != settings.max_body_bytes],
        max_body_bytes=max([settings.max_body_bytes, *(each.max_body_bytes for each in found)]),
        sites=[f"https://{host}" for host in options.hosts],
        upstreams=[each.replace("unix:", "unix/") for each in options.upstreams],
        too_large=_too_large,
        body_seconds=max(web.CLIENT_SECONDS, options.request_timeout),
        **(web.common_values(facts) | {"ciphers": _CIPHERS}),
    )
    return {"Caddyfile": content}


def _too_large(limit: int) -> str:
    length = "{http.request.header.Content-Length}"
    return f'`{length} != "" && int({length}) > {limit}`'


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    yield from web.warnings(facts)
    yield from web.without_effect(facts, "Caddy without plugins", "address_rate", "address_connections", "waf")
    header = facts.settings.client_certificate_header
    if header not in {None, _HEADER} and facts.options.client_certificates != "off":
        yield f"Caddy does not support {header}: set SECURE_ML_CLIENT_CERTIFICATE_HEADER to {_HEADER}"
    if facts.health_path is None and len(facts.options.upstreams) > 1:
        yield "without a health check path, Caddy does not detect a server that is down: set SECURE_ML_PROBES"
    if facts.options.front_proxies:
        yield "Caddy forwards the whole X-Forwarded-For chain: also add front_proxies to SECURE_ML_TRUSTED_PROXIES"


TARGET = Target(
    name="caddy",
    summary="a reverse proxy with ACME certificates, limits per route, health checks and error responses",
    overlay="overlay.caddy",
    make=make,
    advice=(
        "caddy: check with  caddy validate --config {folder}/Caddyfile --adapter caddyfile",
        "caddy: install as /etc/caddy/Caddyfile, and restart with  systemctl restart caddy",
    ),
    warn=warn,
)
