"""Probes of conditions that cause later failures: certificates, clocks, eviction, unreachable receivers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificates

from ...errors import DependencyUnavailable
from ..finding import Check, Found, Severity, Where, setting
from .subject import Online

SOON = 14
"""A certificate is reported this many days before it expires."""


def _ends(online: Online) -> Iterator[tuple[Where, str, datetime]]:
    """Yield the certificates of files and servers, and when each expires."""
    settings = online.setup.settings
    files = [settings.mtls_ca_file, *(each.ca_file for each in settings.token_issuers), online.setup.server_certificate]
    for file in dict.fromkeys(filter(None, files)):
        try:
            found = load_pem_x509_certificates((online.setup.folder / file).read_bytes())
        except (OSError, ValueError):
            continue
        for certificate in found:
            name = certificate.subject.rfc4514_string()
            yield Where("file", str(file)), f"the certificate {name} in {file}", certificate.not_valid_after_utc
    for place, ends in online.certificates.items():
        if isinstance(ends, datetime):
            yield Where("url", f"https://{place}"), f"the certificate of {place}", ends
    for (name, host, port), ends in online.receivers.items():
        if isinstance(ends, datetime):
            yield Where("setting", name), f"the certificate of {host}:{port}", ends


def expired(online: Online) -> Iterator[Found]:
    """Yield the certificates that have expired."""
    for where, name, ends in _ends(online):
        if _days(ends) < 0:
            yield Found(where, f"{name} expired on {ends.date()}")


def ending(online: Online) -> Iterator[Found]:
    """Yield the certificates that expire soon."""
    for where, name, ends in _ends(online):
        if 0 <= _days(ends) < SOON:
            yield Found(where, f"{name} expires on {ends.date()}")


def _days(ends: datetime) -> int:
    return (ends - datetime.now(UTC)).days


def no_server_certificate(online: Online) -> Iterator[Found]:
    """Yield the configured server certificate if it cannot be read."""
    path = online.setup.server_certificate
    if path:
        try:
            load_pem_x509_certificates((online.setup.folder / path).read_bytes())
        except (OSError, ValueError) as error:
            yield Found(Where("file", path), f"the server's certificate {path} cannot be used: {type(error).__name__}")


def skewed_clocks(online: Online) -> Iterator[Found]:
    """Yield the clocks that differ from this machine's clock by more than the leeway of tokens."""
    leeway = online.setup.settings.token_leeway
    for probe in online.issuers:
        # The header Date has a resolution of one second.
        if probe.skew is not None and abs(probe.skew) > leeway + 1:
            what = f"the clock of {probe.config.issuer} differs by {abs(probe.skew):.0f} seconds"
            yield Found(Where("issuer", probe.config.issuer), what)
    for server in _servers(online):
        skew = server.now - datetime.now(UTC).timestamp()
        if abs(skew) > max(leeway, 1):
            yield Found(setting("store_uri"), f"the clock of the store differs by {abs(skew):.0f} seconds")


def _servers(online: Online) -> list[Any]:
    """Return the states of the servers of the store; empty for a store without servers."""
    servers = getattr(online.setup.state.store, "servers", None)
    try:
        return [] if servers is None else list(servers())
    except DependencyUnavailable:
        # Another check reports an outage of the store.
        return []


def eviction(online: Online) -> Iterator[Found]:
    """Yield stores that evict records when they run out of memory."""
    for policy in sorted({each.evicts for each in _servers(online)} - {"", "noeviction"}):
        yield Found(setting("store_uri"), f"the store evicts records when it runs out of memory ({policy})")


def receivers(online: Online) -> Iterator[Found]:
    """Yield the receivers that cannot be reached: Sentry, the alert webhook, checkpoint sinks."""
    for sink in online.setup.settings.audit_checkpoint_sinks:
        if sink.kind == "file" and not Path(sink.target).parent.is_dir():
            where = Where("setting", "SECURE_ML_AUDIT_CHECKPOINT_SINKS")
            yield Found(where, f"{Path(sink.target).parent} is not a directory here")
    for (name, host, port), fault in online.receivers.items():
        if fault and isinstance(fault, str):
            yield Found(Where("setting", name), f"{host}:{port} cannot be reached: {fault}")


CHECKS = (
    Check(
        "SML811",
        Severity.ERROR,
        "A certificate has expired",
        "Clients that verify it no longer connect.",
        "certbot renew, or a new certificate from its certificate authority",
        expired,
    ),
    Check(
        "SML812",
        Severity.WARNING,
        "A certificate expires soon",
        "After that, clients that verify it no longer connect.",
        "certbot renew, or a new certificate from its certificate authority",
        ending,
    ),
    Check(
        "SML813",
        Severity.ERROR,
        "The server's certificate cannot be read",
        "gunicorn cannot start with it.",
        'certfile = "/etc/model/server.pem"',
        no_server_certificate,
    ),
    Check(
        "SML814",
        Severity.WARNING,
        "Clocks differ",
        "Tokens are rejected as expired or not yet valid, and records expire too early or too late.",
        "timedatectl set-ntp true, on both machines",
        skewed_clocks,
    ),
    Check(
        "SML815",
        Severity.WARNING,
        "The store evicts records",
        "An evicted revocation or counter is no longer enforced.",
        "maxmemory-policy noeviction",
        eviction,
    ),
    Check(
        "SML816",
        Severity.WARNING,
        "A receiver of events cannot be reached",
        "Errors, alerts or checkpoints are not delivered.",
        "the URL of a server that is reachable from here, in the setting of the finding",
        receivers,
    ),
)
