"""The servers that an app connects to, as far as its configuration contains them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..config import Settings
from ..config.audit import OFF
from ..limits.setup import limit_store_uri

_STORE_PORT = 6379
_HTTPS_PORT = 443


@dataclass(frozen=True)
class Destination:
    """A server that the app connects to.

    :param host: empty if only a secret contains it.
    :param purpose: ``store``, ``limits``, ``issuer``, ``alerts``, ``checkpoints`` or ``errors``.
    :param private: its name resolves to a private IP address; None if that is unknown.
    :param protocol: ``TCP`` or ``UDP``.
    """

    host: str
    port: int
    purpose: str
    private: bool | None = False
    protocol: str = "TCP"


def destinations_of(config: Mapping[str, Any], settings: Settings, *, own_limiter: bool) -> tuple[Destination, ...]:
    """Return the servers that the app connects to, sorted.

    :param own_limiter: the app has its own Flask-Limiter.
    """
    found = {*_stores(config, settings, own_limiter=own_limiter), *_issuers(settings), *_receivers(settings)}
    return tuple(sorted(found, key=lambda each: (each.host, each.port, each.purpose, each.protocol)))


def _stores(config: Mapping[str, Any], settings: Settings, *, own_limiter: bool) -> Iterator[Destination]:
    yield from _nodes(settings.store_uri, "store")
    limits = limit_store_uri(config, settings, own_limiter=own_limiter)
    if limits != settings.store_uri:
        yield from _nodes(limits, "limits")


def _nodes(uri: str, purpose: str) -> Iterator[Destination]:
    if not uri.startswith(("redis", "valkey")):
        return
    # Sentinels and cluster nodes are separated by commas.
    for place in urlsplit(uri).netloc.rpartition("@")[2].split(","):
        host, _, port = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "")
        if host:
            yield Destination(host.strip("[]"), int(port or _STORE_PORT), purpose, private=True)


def _issuers(settings: Settings) -> Iterator[Destination]:
    for issuer in settings.token_issuers:
        urls = (issuer.jwks_uri, issuer.introspection_uri, issuer.issuer if issuer.discover else None)
        for url in filter(None, urls):
            if issuer.proxy:
                # The proxy connects to the issuer.
                yield _server(issuer.proxy, "issuer", private=None)
            else:
                yield _server(url, "issuer", private=issuer.private_network)


def _receivers(settings: Settings) -> Iterator[Destination]:
    """Yield the servers that get alerts, checkpoints and errors."""
    if settings.alert_webhook is not None:
        yield _server(settings.alert_webhook.url, "alerts", private=settings.alert_webhook.private_network)
    for sink in settings.audit_checkpoint_sinks if settings.audit_log != OFF else ():
        if sink.kind == "https":
            yield _server(sink.target, "checkpoints", private=sink.private_network)
        elif sink.host:
            protocol = "UDP" if sink.kind == "syslog+udp" else "TCP"
            yield Destination(sink.host, sink.port, "checkpoints", None, protocol)
    if settings.sentry_dsn is not None:
        yield Destination("", _HTTPS_PORT, "errors", None)


def _server(url: str, purpose: str, *, private: bool | None) -> Destination:
    parts = urlsplit(url)
    port = parts.port or (_HTTPS_PORT if parts.scheme == "https" else 80)
    return Destination(parts.hostname or "", port, purpose, private)
