"""The subject of online checks: the setup, and the cached responses of its dependencies."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from ... import strictjson
from ...authentication.tokens.connection import IssuerConnection
from ...authentication.tokens.introspection_client import IntrospectionClient
from ...authentication.tokens.jwks import Discovery
from ...authentication.tokens.key_set import KeySetError, parse_key_set
from ...config.issuers import IssuerConfig
from ...errors import DependencyUnavailable
from ...fetch import MAX_BYTES, FetchError, Response
from ...principal import SystemClock
from ...refresh import Attempt
from ..setup import Setup

TIMEOUT = 3.0
"""Seconds for one exchange with a dependency."""

_READS = 4
_STORE_PORT = 6379
_WITH_TLS = ("rediss", "valkeys", "rediss+cluster", "valkeys+cluster")


@dataclass
class IssuerProbe:
    """The responses of an issuer.

    :param keys: why its keys cannot be used; empty if they can, or if none are configured.
    :param introspection: why tokens cannot be introspected; empty if they can, or if it does not introspect.
    :param skew: by how many seconds its clock is ahead of this one; None if it sent no date.
    :param urls: the URLs that were used.
    """

    config: IssuerConfig
    keys: str = ""
    introspection: str = ""
    skew: float | None = None
    urls: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Online:
    """The setup, and the probes of its issuers."""

    setup: Setup

    @cached_property
    def issuers(self) -> list[IssuerProbe]:
        """Probes of all issuers: each fetches the keys and introspects an invalid token."""
        return [_probed(each, self.setup) for each in self.setup.settings.token_issuers]

    @cached_property
    def certificates(self) -> dict[str, datetime | str]:
        """Expiry of each HTTPS server's certificate, or why there is none, by host and port."""
        found: dict[str, datetime | str] = {}
        for probe in self.issuers:
            for url in probe.urls:
                parts = urlsplit(url)
                if parts.scheme == "https" and probe.config.proxy is None and parts.netloc not in found:
                    context = ssl.create_default_context(cafile=probe.config.ca_file)
                    found[parts.netloc] = certificate_end(parts.hostname or "", parts.port or 443, context)
        for place, host, port, ca_file in _stores(self.setup):
            with suppress(OSError):
                found[place] = certificate_end(host, port, ssl.create_default_context(cafile=ca_file))
        return found

    @cached_property
    def receivers(self) -> dict[tuple[str, str, int], datetime | str]:
        """Expiry of each receiver's certificate, or why it cannot be reached, by setting, host and port.

        It is an empty string for a receiver without TLS that can be reached.
        """
        return {(name, host, port): _reached(host, port, tls=tls) for name, host, port, tls in _receivers(self.setup)}


def _stores(setup: Setup) -> Iterator[tuple[str, str, int, str | None]]:
    """Yield the stores that are reached with TLS: host and port, and the certificate authorities."""
    for uri in dict.fromkeys((setup.settings.store_uri, setup.limit_store)):
        parts = urlsplit(uri)
        (ca_file,) = parse_qs(parts.query).get("ssl_ca_certs", [None])[:1]
        for place in parts.netloc.rpartition("@")[2].split(",") if parts.scheme in _WITH_TLS else ():
            node = urlsplit(f"//{place}")
            port = node.port or _STORE_PORT
            yield f"{node.hostname}:{port}", node.hostname or "", port, ca_file


def _receivers(setup: Setup) -> Iterator[tuple[str, str, int, bool]]:
    """Yield the servers that get errors, alerts and checkpoints: setting, host, port and whether they use TLS."""
    settings = setup.settings
    if settings.sentry_dsn is not None:
        # Another check reports secrets that cannot be read.
        with suppress(ValueError):
            yield _of_url("SECURE_ML_SENTRY_DSN", settings.sentry_dsn.newest().decode("utf-8", "replace"))
    if settings.alert_webhook is not None:
        yield _of_url("SECURE_ML_ALERT_WEBHOOK", settings.alert_webhook.url)
    for sink in settings.audit_checkpoint_sinks:
        if sink.kind == "https":
            yield _of_url("SECURE_ML_AUDIT_CHECKPOINT_SINKS", sink.target)
        elif sink.kind == "syslog+tcp":
            yield "SECURE_ML_AUDIT_CHECKPOINT_SINKS", sink.host, sink.port, False


def _of_url(name: str, url: str) -> tuple[str, str, int, bool]:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return name, parts.hostname or "", parts.port or (443 if tls else 80), tls


def _reached(host: str, port: int, *, tls: bool) -> datetime | str:
    """Connect to a receiver; only a TLS handshake is sent."""
    if tls:
        return certificate_end(host, port, ssl.create_default_context())
    try:
        with closing(socket.create_connection((host, port), TIMEOUT)):
            return ""
    except OSError as error:
        return type(error).__name__


class _Recording(IssuerConnection):
    """A connection that records the URLs and the clock of the server."""

    def __init__(self, probe: IssuerProbe) -> None:
        super().__init__(probe.config)
        self._probe = probe

    def send(
        self,
        uri: str,
        *,
        timeout: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Response:
        """Send a request as the app does."""
        response = super().send(uri, timeout=timeout, body=body, headers=headers, max_bytes=max_bytes)
        self._probe.urls.append(uri)
        with suppress(ValueError, TypeError):
            self._probe.skew = parsedate_to_datetime(response.date).timestamp() - datetime.now(UTC).timestamp()
        return response

    def post(self, uri: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a form, for the introspection client."""
        response = self.send(uri, timeout=TIMEOUT, body=body, headers=headers)
        return response.status, response.body


def _probed(config: IssuerConfig, setup: Setup) -> IssuerProbe:
    probe = IssuerProbe(config)
    connection = _Recording(probe)
    if config.jwks_uri is not None or config.discover:
        probe.keys = _fault_of_keys(config, connection)
    if config.introspection_uri is not None:
        probe.introspection = _fault_of_introspection(config, connection, setup)
    return probe


def _fault_of_keys(config: IssuerConfig, connection: _Recording) -> str:
    attempt = Attempt(SystemClock(), TIMEOUT, _READS * TIMEOUT, TIMEOUT, None)
    try:
        if config.discover:
            metadata = Discovery(config.issuer, connection.send, clear_text=config.insecure_http)
            raw = metadata.key_set(config.issuer, attempt)
        else:
            raw = connection.key_set(config.jwks_uri or "", attempt)
        return "" if parse_key_set(raw, config.algorithms) else "no usable key for " + ", ".join(config.algorithms)
    except (FetchError, KeySetError, ValueError) as error:
        return str(error)


def _fault_of_introspection(config: IssuerConfig, connection: _Recording, setup: Setup) -> str:
    client = IntrospectionClient(config, setup.state.clock, connection.post)
    try:
        status, body = client.introspect(f"check-{secrets.token_urlsafe(24)}")
    except DependencyUnavailable as error:
        return error.reason
    if status != HTTPStatus.OK:
        return f"the introspection endpoint responded with status {status}"
    try:
        active = strictjson.loads(body)["active"]
    except (ValueError, LookupError, TypeError):
        return "the response of the introspection endpoint has no member active (RFC 7662 section 2.2)"
    return "" if active is False else "the introspection endpoint reports an invalid token as active"


def certificate_end(host: str, port: int, context: ssl.SSLContext) -> datetime | str:
    """Return when a server's certificate expires, or why it cannot be verified."""
    try:
        with (
            closing(socket.create_connection((host, port), TIMEOUT)) as plain,
            context.wrap_socket(plain, server_hostname=host) as channel,
        ):
            ends = (channel.getpeercert() or {}).get("notAfter")
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError as error:
        return type(error).__name__
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), UTC)
