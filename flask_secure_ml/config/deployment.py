"""The setting of ``flask secure-ml deploy``: facts about the deployment that the app does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import ClassVar

from marshmallow import ValidationError

from ..policy.fields import Boolean, Choice, Integer, Options, String, Strings
from ..policy.schema import Check, Problem, option
from .fields import setting

_IMPORT_NAME = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*(\([A-Za-z0-9_=, \"'.-]*\))?)?")
_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_FILE = re.compile(r"/[A-Za-z0-9._/@+-]+")
_RELATIVE_FILE = re.compile(r"[A-Za-z0-9._@+-]+(/[A-Za-z0-9._@+-]+)*")
_IMAGE = re.compile(r"[a-z0-9.:_/-]+(@sha256:[0-9a-f]{64})?")
_BIND = re.compile(r"(unix:/[A-Za-z0-9._/@+-]+|(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5})")
_EMAIL = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HIGHEST_PORT = 65_535


def host_name(entry: str) -> str:
    """Return a valid host name in lower case.

    :raises ValidationError: it is not one.
    """
    if not _HOST_NAME.fullmatch(entry.lower()):
        raise ValidationError(f"{entry!r} is not a host name such as 'models.example.com'")
    return entry.lower()


def upstream(entry: str) -> str:
    """Return a valid upstream: ``host:port``, ``[::1]:port`` or ``unix:/path``.

    :raises ValidationError: it is none of these.
    """
    if entry.startswith("unix:") and _FILE.fullmatch(entry.removeprefix("unix:")):
        return entry
    host, _, port = entry.rpartition(":")
    if not (_is_host(host) and port.isascii() and port.isdigit() and 0 < int(port) <= _HIGHEST_PORT):
        raise ValidationError(f"{entry!r} is not 'host:port', '[::1]:port' or 'unix:/path'")
    return entry.lower()


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            return isinstance(ip_address(host[1:-1]), IPv6Address)
        except ValueError:
            return False
    return _HOST_NAME.fullmatch(host.lower()) is not None


def listen_address(entry: str) -> str:
    """Return a valid IP address to listen on, with IPv6 in brackets.

    :raises ValidationError: it is not one.
    """
    try:
        address = ip_address(entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry)
    except ValueError:
        raise ValidationError(f"{entry!r} is not an IP address such as '192.0.2.7' or '[::]'") from None
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


def network(entry: str) -> str:
    """Return a valid network of IP addresses.

    :raises ValidationError: it is not one, or it covers all addresses.
    """
    try:
        found = ip_network(entry)
    except ValueError:
        raise ValidationError(f"{entry!r} is not a network such as '10.0.0.0/24'") from None
    if found.prefixlen == 0:
        raise ValidationError(f"{entry!r} covers all addresses, so any client could forge its IP address")
    return str(found)


def check_client_certificates(options: DeployOptions) -> Iterator[Problem]:
    """Yield a problem if client certificates are requested without an authority to verify them."""
    if options.client_certificates != "off" and options.client_ca is None:
        yield ("client_ca",), "is required with client_certificates: the authorities that issue the certificates"


def check_upstream_certificate(options: DeployOptions) -> Iterator[Problem]:
    """Yield a problem if only one of certificate and key is set for TLS behind a proxy."""
    if (options.upstream_certificate is None) != (options.upstream_key is None):
        yield ("upstream_key",), "and upstream_certificate must be set together"


@dataclass(frozen=True)
class DeployOptions:
    """Options of a deployment."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_client_certificates, check_upstream_certificate)

    app: str = option(
        String("an import name such as 'app:create_app()'", _IMPORT_NAME),
        "app:create_app()",
        "The import name of the app for gunicorn.",
    )
    name: str = option(
        String("lower-case letters, digits and hyphens, 40 at most", _DNS_LABEL),
        "model-api",
        "The name of services, images and systemd units.",
    )
    hosts: tuple[str, ...] = option(
        Strings("models.example.com", host_name, minimum=1), ("models.example.com",), "The public names of the service."
    )
    port: int = option(Integer(1, _HIGHEST_PORT), 443, "The HTTPS port of the proxy.")
    listen: tuple[str, ...] = option(
        Strings("192.0.2.7", listen_address, minimum=1),
        ("0.0.0.0", "[::]"),  # noqa: S104 - a proxy serves the internet
        "The IP addresses that the proxy listens on; IPv6 addresses in brackets.",
    )
    clear_text_port: int = option(
        Integer(0, _HIGHEST_PORT),
        80,
        "The port where the proxy rejects clear text with 403 ``tls_required``; 0 closes it.",
    )
    status_port: int = option(
        Integer(1, _HIGHEST_PORT), 8404, "The port on ``127.0.0.1`` with the metrics of the proxy."
    )
    front_proxies: tuple[str, ...] = option(
        Strings("10.0.0.0/24", network),
        (),
        "The networks of load balancers in front of the proxy, whose ``X-Forwarded-For`` it trusts.",
    )
    address_rate: int | None = option(
        Integer(1),
        None,
        """Maximum number of requests per second from one IP address at the proxy; 20 times the highest rate of a plan,
        and at least 500, by default. Many callers can share one address.""",
    )
    address_connections: int | None = option(
        Integer(1),
        None,
        """Maximum number of connections from one IP address at the proxy; 16 times the highest ``in_flight`` of a plan,
        and at least 256, by default.""",
    )
    waf: bool = option(
        Boolean(), False, "Inspect requests with ModSecurity and the OWASP Core Rule Set, if the proxy supports it."
    )
    proxy_user: str = option(String("the name of a user", _USER), "www-data", "The user of the proxy's processes.")
    proxy_directory: str = option(
        String("an absolute path", _FILE),
        "/var/lib/nginx",
        "An existing directory for the cache, the temporary files and the ACME challenges of the proxy.",
    )
    access_log: str = option(
        String("an absolute path", _FILE), "/var/log/nginx/access.log", "The file of the proxy's request log."
    )
    upstreams: tuple[str, ...] = option(
        Strings("127.0.0.1:8000", upstream, minimum=1),
        ("127.0.0.1:8000",),
        "The app servers that the proxy connects to: ``host:port`` or ``unix:/path``.",
    )
    bind: str | None = option(
        String("'host:port' or 'unix:/path'", _BIND),
        None,
        "The address that gunicorn binds to; the first of ``upstreams`` by default.",
    )
    upstream_ca: str | None = option(
        String("an absolute path", _FILE),
        None,
        "The certificate authorities of the app servers: if set, the proxy connects over TLS and verifies their "
        "certificates.",
    )
    upstream_name: str | None = option(
        String("a host name", _HOST_NAME), None, "The name in the app servers' certificates; the first host by default."
    )
    upstream_certificate: str | None = option(
        String("an absolute path", _FILE), None, "The certificate of gunicorn behind the proxy, for ``upstream_ca``."
    )
    upstream_key: str | None = option(String("an absolute path", _FILE), None, "Its private key.")
    certificate: str = option(
        String("an absolute path", _FILE), "/etc/model-api/tls.crt", "The certificate of the service with its chain."
    )
    certificate_key: str = option(String("an absolute path", _FILE), "/etc/model-api/tls.key", "Its private key.")
    client_certificates: str = option(
        Choice("off", "optional", "required"), "off", "Whether the proxy requests client certificates (mTLS)."
    )
    client_ca: str | None = option(
        String("an absolute path", _FILE), None, "The certificate authorities of client certificates."
    )
    acme_email: str | None = option(
        String("an email address", _EMAIL),
        None,
        "The contact of an ACME account; if set, proxies with ACME support obtain certificates.",
    )
    request_timeout: int = option(
        Integer(1, 3_600, unit="seconds"), 60, "The maximum duration of a prediction; all layers use this timeout."
    )
    streams: tuple[str, ...] = option(
        Strings("/v1/stream"), (), "URL rules with streamed responses, which the proxy does not buffer."
    )
    workers: int = option(Integer(1, 256), 2, "The number of worker processes of each server.")
    measured_rate: int | None = option(
        Integer(1),
        None,
        """The number of requests per second that all servers together served in a load test; ``flask secure-ml check``
        compares the limits with it.""",
    )
    requirements: str = option(
        String("a relative path", _RELATIVE_FILE),
        "requirements.txt",
        "The requirements file of the app, for images and CI.",
    )
    model: str | None = option(
        String("a relative path", _RELATIVE_FILE), None, "The model file or directory, which CI signs."
    )
    image: str = option(
        String("a reference such as 'registry.example.com/model-api:1.0'", _IMAGE),
        "registry.example.com/model-api:latest",
        "The image of the app.",
    )
    base_image: str = option(
        String("a reference such as 'docker.io/library/python:3.12-slim-bookworm'", _IMAGE),
        "docker.io/library/python:3.12-slim-bookworm",
        "The base image; pin it by digest.",
    )
    namespace: str = option(
        String("lower-case letters, digits and hyphens, 40 at most", _DNS_LABEL),
        "model-api",
        "The Kubernetes namespace.",
    )
    replicas: int = option(Integer(1, 1_000), 2, "The number of pods in Kubernetes.")


class DeploySetting(Options):
    """The options of a deployment."""

    def __init__(self) -> None:
        super().__init__(DeployOptions)
        self.takes = 'an object such as {"hosts": ["models.example.com"]}'


@dataclass(frozen=True)
class DeploymentSettings:
    """Deployment options. Only the commands ``deploy`` and ``check`` read them."""

    deploy: DeployOptions | None = setting(
        DeploySetting(),
        None,
        """Facts that ``flask secure-ml deploy`` cannot read from the app, such as ``{"hosts": ["models.example.com"],
        "upstreams": ["10.0.3.9:8000"]}``. See :doc:`/howto/deploy`.""",
    )
