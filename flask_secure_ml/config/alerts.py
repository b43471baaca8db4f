"""The settings of alerts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marshmallow import ValidationError

from ..policy.fields import StrictField
from ..policy.schema import Problem
from ..secrets import SecretRing, secret_ring
from .fields import SecretReference, setting

if TYPE_CHECKING:
    from . import Settings


@dataclass(frozen=True)
class WebhookAddress:
    """The destination of alerts.

    :param url: may contain a secret, so the representation omits it.
    :param private_network: the host may resolve to a private IP address.
    """

    url: str = field(repr=False)
    private_network: bool = False


class WebhookField(StrictField):
    """An absolute URL, over TLS or on loopback; it may contain a secret, so messages do not repeat it."""

    def __init__(self) -> None:
        super().__init__("'https://host/path', 'https+private://host/path' or 'http://127.0.0.1:port/path'")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> WebhookAddress:
        try:
            found = _address(value) if isinstance(value, str) and value.isascii() and value.isprintable() else None
        except ValueError:
            found = None
        if found is None or " " in value:
            raise ValidationError(f"must be {self.takes}, without a user and a fragment")
        return found


def _address(value: str) -> WebhookAddress | None:
    parts = urlsplit(value)
    if not parts.hostname or parts.port == 0 or parts.username is not None or parts.fragment:
        return None
    if parts.scheme in {"https", "https+private"}:
        return WebhookAddress(f"https:{value.partition(':')[2]}", parts.scheme != "https")
    if parts.scheme == "http" and (parts.hostname == "localhost" or ip_address(parts.hostname).is_loopback):
        return WebhookAddress(value)
    return None


@dataclass(frozen=True)
class AlertSettings:
    """Alerts that are posted to an operator, in addition to the metrics."""

    alert_webhook: WebhookAddress | None = setting(
        WebhookField(),
        None,
        """The URL to which blocks of networks, penalties and blocks of callers, anomalies, and outages of the limit
        store and the audit log are posted as signed JSON, such as ``https://alerts.example.com/model``. Use
        ``https+private:`` for a host with a private IP address. See :doc:`/howto/alerts`.""",
        secret=True,
    )
    alert_webhook_secret: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to the secret that signs alerts, at least 32 bytes; or a list, whose first secret signs. Required
        for ``SECURE_ML_ALERT_WEBHOOK``.""",
    )


def check_alerts(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if alerts cannot be signed."""
    if settings.alert_webhook is not None and settings.alert_webhook_secret is None:
        yield ("alert_webhook_secret",), "is required for SECURE_ML_ALERT_WEBHOOK; receivers verify alerts with it"


def check_alert_secret(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if a secret is set without a webhook."""
    if settings.alert_webhook is None and settings.alert_webhook_secret is not None:
        yield (
            ("alert_webhook",),
            "is required with SECURE_ML_ALERT_WEBHOOK_SECRET, which signs the alerts that are posted there",
        )
