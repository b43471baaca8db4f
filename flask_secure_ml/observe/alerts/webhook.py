"""Signed posts, and their verification by receivers."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...fetch import Response, send
from ...principal import Clock
from ...secrets import SecretRing

if TYPE_CHECKING:
    from ...config.alerts import WebhookAddress

TIMESTAMP = "X-Secure-ML-Timestamp"
SIGNATURE = "X-Secure-ML-Signature"
TOLERANCE = 300
"""Maximum age of a timestamp in seconds."""

_MAX_RESPONSE = 65_536


class Webhook:
    """Posts signed JSON.

    :param secret: read for each post; the newest secret signs.
    :param clock: provides the timestamp.
    """

    def __init__(self, address: WebhookAddress, secret: SecretRing, clock: Clock) -> None:
        self._address = address
        self._secret = secret
        self._clock = clock

    def post(self, body: bytes) -> Response:
        """Post a body.

        :raises FetchError: there is no response, see :func:`~flask_secure_ml.fetch.send`.
        :raises ValueError: the secret cannot be read.
        """
        timestamp = str(int(self._clock.now()))
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            SIGNATURE: f"v1={signature_of(self._secret.newest(), timestamp, body)}",
        }
        address = self._address
        return send(
            address.url, body=body, headers=headers, private_network=address.private_network, max_bytes=_MAX_RESPONSE
        )


def signature_of(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a timestamp, a dot and a body, in hexadecimal."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify_alert(secret: bytes, headers: Mapping[str, str], body: bytes, now: float | None = None) -> bool:
    """Return True if a post was signed with the secret within the last five minutes; for receivers.

    A post can be replayed within that time, so receivers should also ignore an ``id`` that they have seen.

    :param headers: the headers of the post; names are case-insensitive.
    :param body: the raw body.
    :param now: seconds since the epoch; the system time if None.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp = given.get(TIMESTAMP.lower(), "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= len("253402300799")):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE:
        return False
    expected = f"v1={signature_of(secret, timestamp, body)}"
    return hmac.compare_digest(expected.encode(), given.get(SIGNATURE.lower(), "").encode("utf-8", "surrogatepass"))
