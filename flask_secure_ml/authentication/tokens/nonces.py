"""Nonces for DPoP proofs (RFC 9449 sections 8 and 9), created and checked without a store."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from ...errors import DependencyUnavailable
from ...principal import Clock
from ...secrets import SecretRing

PERIOD = 300
_LENGTH = 27
"""The length of a nonce in characters: 162 bits, unpredictable without the secret."""


class Nonces:
    """Derives nonces from a secret and the time; each is valid in its own period and the next.

    They need no store, and all workers and machines with the same secret accept each other's nonces.

    :param secret: the newest secret creates nonces; nonces of every secret are accepted.
    :param period: seconds between two nonces; each is valid for at least that long, and at most twice as long.
    """

    def __init__(self, secret: SecretRing, clock: Clock, period: int = PERIOD) -> None:
        self._secret = secret
        self._clock = clock
        self._period = period

    def current(self) -> str:
        """Return the current nonce.

        :raises DependencyUnavailable: the secret cannot be read.
        """
        return _nonce(self._secrets()[0], self._window())

    def accepts(self, nonce: str) -> bool:
        """Return True if a nonce is from this server and from the current or the previous period.

        :raises DependencyUnavailable: the secret cannot be read.
        """
        window = self._window()
        valid = [_nonce(secret, number) for secret in self._secrets() for number in (window, window - 1)]
        # compare_digest accepts ASCII strings only, and every nonce of this server is ASCII.
        return nonce.isascii() and True in [hmac.compare_digest(nonce, each) for each in valid]

    def _window(self) -> int:
        return int(self._clock.now() // self._period)

    def _secrets(self) -> tuple[bytes, ...]:
        try:
            return self._secret.read()
        except ValueError as error:
            raise DependencyUnavailable(
                f"no secret for DPoP nonces: {error}", headers=(("Retry-After", "60"),)
            ) from None


def _nonce(secret: bytes, window: int) -> str:
    digest = hmac.digest(secret, f"dpop-nonce {window}".encode(), hashlib.sha256)
    return urlsafe_b64encode(digest)[:_LENGTH].decode()
