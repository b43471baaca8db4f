"""Apache httpd: TLS, client certificates, limits per route, health checks, error responses, a cache and a log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from .. import web
from ..facts import Facts
from ..target import Target

_ID = "%{reqenv:UNIQUE_ID}"
_MODULES = (
    "mpm_event",
    "alias",
    "asis",
    "authz_core",
    "authz_host",
    "buffer",
    "headers",
    "http2",
    "include",
    "lbmethod_bybusyness",
    "proxy",
    "proxy_balancer",
    "proxy_hcheck",
    "proxy_http",
    "reqtimeout",
    "rewrite",
    "setenvif",
    "slotmem_shm",
    "socache_shmcb",
    "ssl",
    "status",
    "unique_id",
)
_CERTIFICATES = {
    "Client-Cert": "%{SSL_CLIENT_CERT}s",
    "X-SSL-Client-Cert": "expr=%{escape:%{SSL_CLIENT_CERT}}",
    "X-Forwarded-Client-Cert": 'expr=Cert="%{escape:%{SSL_CLIENT_CERT}}"',
}
_SUBDOMAINS = "[a-z0-9.-]+"
_SHARED = (
    "%{REQUEST_METHOD} == 'GET'",
    "%{SSL_CLIENT_VERIFY} == 'NONE'",
    "%{THE_REQUEST} !~ m#^\\S+ [^? ]*(%|//|/\\.)#",
)
# Expressions remove characters that JSON would escape from request lines and headers of clients.
_LOG = {
    "time": "%{%Y-%m-%dT%H:%M:%S%z}t",
    "request_id": "%<{UNIQUE_ID}e",
    "client": "%a",
    "method": "%<m",
    "host": "%<{logged_host}e",
    "path": "%<{logged_path}e",
    "protocol": "%H",
    "status": "%>s",
    "request_bytes": "%I",
    "response_bytes": "%B",
    "microseconds": "%D",
    "upstream": "%<{BALANCER_WORKER_NAME}e",
    "tls": "%{SSL_PROTOCOL}x",
    "cipher": "%{SSL_CIPHER}x",
    "client_certificate": "%{SSL_CLIENT_VERIFY}x",
}


def quoted(value: str) -> str:
    """Return a string as one argument without variable expansion."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("${", "${DOLLAR}{") + '"'


def rewritten(pattern: str) -> str:
    """Return a regular expression as one argument of mod_rewrite, which keeps backslashes."""
    escaped = re.sub(r'(\\[^"])|\\?"', lambda match: match[1] or r"\x22", pattern)
    return '"' + escaped.replace("${", "${DOLLAR}{") + '"'


def header_value(value: str) -> str:
    """Return a string as one argument for a header format, with ``%`` escaped."""
    return quoted(value.replace("%", "%%"))


def make(facts: Facts) -> Mapping[str, str]:
    """Return the configuration."""
    options, settings = facts.options, facts.settings
    # The last matching section takes precedence, and literal paths are first.
    found = web.printable_locations(facts)[::-1]
    cached = [each for each in found if each.cache_seconds and not each.stream]
    header = settings.client_certificate_header if options.client_certificates != "off" else None
    content = TARGET.render(
        "apache2.conf",
        facts,
        q=quoted,
        rq=rewritten,
        hv=header_value,
        modules=sorted(_modules(facts, bool(cached)), key=lambda name: name != "mpm_event"),
        problems=web.problems(facts, _ID),
        sized=[each for each in found if each.max_body_bytes != settings.max_body_bytes],
        cached=cached,
        shared=" && ".join((*_SHARED, *(f"-z req_novary('{name}')" for name in (*web.CREDENTIAL_HEADERS, "Origin")))),
        names=_names(facts),
        served="|".join(map(_host_pattern, options.hosts)),
        origin_patterns="|".join(map(re.escape, web.error_origins(facts))),
        upstreams=[_upstream(facts, number) for number in range(len(options.upstreams))],
        health_path=facts.health_path,
        certificate_value=_CERTIFICATES.get(header or ""),
        error_log=str(PurePosixPath(options.access_log).with_name("error.log")),
        log_format="{" + ",".join(f'"{name}":"{value}"' for name, value in _LOG.items()) + "}",
        **(
            web.common_values(facts)
            | {"certificate_header": header, "hop_headers": (*web.HOP_HEADERS, "Keep-Alive", "TE", "Upgrade")}
        ),
    )
    files = {"apache2.conf": content}
    # httpd decides by the first character whether a document is inline text, so both statuses of a 502 have a file.
    documents = web.problems(facts, "<!--#echo encoding='none' var='REDIRECT_UNIQUE_ID' -->")
    return files | {
        f"problems/{name}.asis": TARGET.render("problem.asis", facts, problem=documents[name])
        for name in ("502", "504")
    }


def _modules(facts: Facts, cached: bool) -> Iterator[str]:
    yield from _MODULES
    if cached:
        yield from ("cache", "cache_socache")
    if facts.options.front_proxies:
        yield "remoteip"
    if facts.options.acme_email:
        yield "md"


def _names(facts: Facts) -> list[str]:
    """Return the hosts, starting with one without a wildcard: the server name; the others are aliases."""
    return sorted(facts.options.hosts, key=lambda host: host.startswith("*"))


def _host_pattern(host: str) -> str:
    return _SUBDOMAINS + re.escape(host[1:]) if host.startswith("*") else re.escape(host)


def _upstream(facts: Facts, number: int) -> str:
    server = facts.options.upstreams[number]
    scheme = "https" if facts.options.upstream_ca else "http"
    if server.startswith("unix:"):
        # The name makes the member unique, and must be in the certificate.
        return f"{server}|{scheme}://{facts.upstream_name if facts.options.upstream_ca else f'app{number + 1}'}"
    return f"{scheme}://{server}"


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    yield from web.warnings(facts)
    options = facts.options
    if options.address_rate is not None or options.address_connections is not None:
        yield "Apache cannot limit addresses without mod_qos, so address_rate and address_connections have no effect"
    yield from web.without_effect(facts, "Apache", "waf")
    if options.access_log.startswith("/var/log/nginx/"):
        yield "access_log is in the log directory of nginx: set it to /var/log/apache2/access.log"
    if options.acme_email and any(host.startswith("*") for host in options.hosts):
        yield "ACME requires DNS challenges for wildcards: set MDChallengeDns01 of mod_md in the overlay"
    hosts = {each.rpartition(":")[0] for each in options.upstreams} - {"unix", facts.upstream_name}
    if options.upstream_ca and hosts:
        yield f"Apache verifies the host in the server URL: use its certificate's name, not {', '.join(sorted(hosts))}"


TARGET = Target(
    name="apache",
    summary="a reverse proxy with TLS, limits per route, health checks, error responses and a cache",
    overlay="overlay/server*.conf and overlay/site*.conf",
    make=make,
    advice=(
        "apache: check with  apache2ctl -t -f {absolute}/apache2.conf",
        "apache: install as /etc/apache2/apache2.conf, and restart with  systemctl restart apache2",
    ),
    warn=warn,
)
