"""The settings of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from ..policy.fields import StrictField, String
from ..policy.schema import Problem
from ..secrets import SecretRing, secret_ring
from .fields import SecretReference, UrlPath, setting

if TYPE_CHECKING:
    from . import Settings

_HIGHEST_PORT = 65_535


@dataclass(frozen=True)
class ListenAddress:
    """An IP address and a port of this machine."""

    host: IPv4Address | IPv6Address
    port: int

    @property
    def is_local(self) -> bool:
        """Return True if other machines cannot connect to it."""
        return self.host.is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"  # noqa: PLR2004


class ListenField(StrictField):
    """An IP address and a port; host names are not accepted, as they may resolve to several addresses."""

    def __init__(self) -> None:
        super().__init__("an IP address and a port such as '127.0.0.1:9100' or '[::1]:9100'")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ListenAddress:
        try:
            return listen_address(value)
        except ValueError:
            raise self.wrong(value) from None


def listen_address(value: Any) -> ListenAddress:
    """Parse an IP address and a port.

    :raises ValueError: the value is not one.
    """
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bracketed = host.startswith("[") and host.endswith("]")
    found = ip_address(host[1:-1] if bracketed else host)
    known = colon and bracketed == (found.version == 6)  # noqa: PLR2004
    if not known or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _HIGHEST_PORT):
        raise ValueError("not an IP address and port")
    return ListenAddress(found, int(port))


@dataclass(frozen=True)
class MetricsSettings:
    """Metrics in the Prometheus format (extra ``[metrics]``): on a route, on a separate port, or both."""

    metrics: str | None = setting(
        UrlPath("/metrics"),
        None,
        """The path that serves metrics to callers with the scope ``metrics``, such as ``/metrics``. See
        :doc:`/howto/metrics`.""",
    )
    metrics_listen: ListenAddress | None = setting(
        ListenField(),
        None,
        """The IP address and port that serve only ``/metrics``, in clear text, such as ``127.0.0.1:9100``: one listener
        for all workers of a server. An address that other machines can connect to requires
        ``SECURE_ML_METRICS_TOKEN``.""",
    )
    metrics_token: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to the bearer token that ``SECURE_ML_METRICS_LISTEN`` requires, at least 32 bytes; or a list,
        whose tokens are all accepted.""",
    )
    server_certificate: str | None = setting(
        String("the path of a file"),
        None,
        """The certificate of the server in PEM; metrics report its expiry. With the gunicorn configuration of this
        package, the default is its ``certfile``.""",
    )


def check_metrics_token(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if a token is missing for a public listener, or is set without a listener."""
    listen, token = settings.metrics_listen, settings.metrics_token
    if listen is not None and token is None and not listen.is_local:
        yield ("metrics_token",), "is required for SECURE_ML_METRICS_LISTEN with an address that is not loopback"
    if listen is None and token is not None:
        yield ("metrics_listen",), "is required with SECURE_ML_METRICS_TOKEN, which protects the metrics there"


def check_server_certificate(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if a certificate is set without metrics."""
    if settings.server_certificate is not None and settings.metrics is None and settings.metrics_listen is None:
        yield ("metrics",), "or SECURE_ML_METRICS_LISTEN is required with SECURE_ML_SERVER_CERTIFICATE"
