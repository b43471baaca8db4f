"""HAProxy: TLS, client certificates, limits per route, health checks, error responses, a cache and a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from .. import web
from ..facts import Facts
from ..target import Target

# The errors that HAProxy generates itself; other statuses are not allowed here.
_OWN_STATUSES = frozenset({"400", "403", "404", "405", "408", "413", "429", "500", "501", "502", "503", "504"})
_ESCAPED = "-----BEGIN CERTIFICATE-----%%0A%[ssl_c_der,base64,url_enc]%%0A-----END CERTIFICATE-----%%0A"
_CERTIFICATES = {
    "Client-Cert": "':%[ssl_c_der,base64]:'",
    "X-SSL-Client-Cert": f"'{_ESCAPED}'",
    "X-Forwarded-Client-Cert": f"'Cert=\"{_ESCAPED}\"'",
}
_LOG = {
    "time": "%[date,utime(%Y-%m-%dT%H:%M:%SZ)]",
    "request_id": "%[unique-id]",
    "client": "%[src]",
    "method": "%[var(txn.method),json(utf8s)]",
    "host": "%[var(txn.host),json(utf8s)]",
    "path": "%[var(txn.path),json(utf8s)]",
    "status": "%ST",
    "request_bytes": "%U",
    "response_bytes": "%B",
    "milliseconds": "%Ta",
    "upstream": "%s",
    "upstream_milliseconds": "%Tr",
    "ended": "%tsc",
    "tls": "%sslv",
    "cipher": "%sslc",
}


def quoted(value: str) -> str:
    """Return a string as one argument without expansion."""
    return "'" + value.replace("'", "'\\''") + "'"


def log_string(value: str) -> str:
    """Return a string as one log format argument, with ``%`` escaped."""
    return quoted(value.replace("%", "%%"))


def matched(location: web.Location, sample: str) -> str:
    """Return the match expression for the paths of a location."""
    if location.literal is None:
        return f"{sample} -m reg -- {quoted(location.pattern)}"
    paths = dict.fromkeys((location.literal, location.literal.rstrip("/") or "/"))
    return f"{sample} -m str -- {' '.join(map(quoted, paths))}"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the configuration."""
    options, settings = facts.options, facts.settings
    problems = web.problems(facts, "REQUEST-ID")
    found = web.printable_locations(facts)
    content = TARGET.render(
        "haproxy.cfg",
        facts,
        lf=_document,
        returned=lambda name: _returned(problems[name]),
        matched=matched,
        problems=problems,
        own_statuses=_OWN_STATUSES,
        sized=[each for each in found if each.max_body_bytes != settings.max_body_bytes],
        cached=[each for each in found if each.cache_seconds and not each.stream],
        exact_hosts=[host for host in options.hosts if not host.startswith("*")],
        wild_hosts=[host[1:] for host in options.hosts if host.startswith("*")],
        certificate_value=_CERTIFICATES.get(settings.client_certificate_header or ""),
        log_format=_log_format(),
        **web.common_values(facts),
    )
    return {"haproxy.cfg": content}


def _document(value: str) -> str:
    return log_string(value).replace("REQUEST-ID", "%[unique-id]")


def _returned(problem: web.Problem) -> str:
    """Return the arguments of ``http-request return`` for an error response of HAProxy."""
    kind = f"status {problem.status} content-type {problem.headers['Content-Type']}"
    headers = (f"hdr {name} {log_string(value)}" for name, value in problem.headers.items() if name != "Content-Type")
    return " ".join((kind, "lf-string", _document(problem.document), *headers, "hdr X-Request-ID %[unique-id]"))


def _log_format() -> str:
    members = ",".join(f'"{name}":"{value}"' for name, value in _LOG.items())
    return quoted("{" + members + "}")


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    yield from web.warnings(facts)
    options = facts.options
    certificate = PurePosixPath(options.certificate)
    if certificate.suffix != ".crt" or PurePosixPath(options.certificate_key) != certificate.with_suffix(".key"):
        yield "HAProxy 2.6 requires the key of a certificate X.crt in X.key: rename 'certificate' and its key"
    yield from web.without_effect(facts, "HAProxy", "waf")


TARGET = Target(
    name="haproxy",
    summary="a reverse proxy with TLS, limits per route, health checks, error responses and a cache",
    overlay="overlay.cfg, with a second -f on the command line",
    make=make,
    advice=(
        "haproxy: check with  haproxy -c -f {folder}/haproxy.cfg",
        "haproxy: install as /etc/haproxy/haproxy.cfg, and reload with  systemctl reload haproxy",
    ),
    warn=warn,
)
