"""Secrets by reference: the configuration says where a secret is, never what it is."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from .vault import VaultValue
from .watched import WatchedFile

MINIMUM_BYTES = 32
MINIMUM_CLIENT_BYTES = 16
MAXIMUM_RING = 4
"""The most secrets of one rotation; each unknown key or token may cost one try with each."""

MINIMUM_BITS = 96
"""The least information in a secret, by the frequency of its bytes; 32 random hexadecimal digits have about 115."""

_EXAMPLES = (b"your-256-bit-secret", b"your-384-bit-secret", b"your-512-bit-secret", b"a-string-secret-at-least-")
_SCHEMES = ("env", "file", "vault")


class Secret:
    """A reference to a secret: ``env:NAME``, ``file:/path`` or ``vault:mount/path#field``; read when it is used.

    A file is read again when it changes, as Kubernetes and Docker secrets do, and Vault every minute. Any other text
    is the secret itself: ``literal`` is true, and only apps in debug or testing accept it.

    :param minimum: the fewest bytes that the value must have.
    :raises ValueError: the reference is not complete.
    """

    def __init__(self, reference: str, minimum: int = MINIMUM_BYTES) -> None:
        scheme, _, rest = reference.partition(":")
        if scheme in _SCHEMES and not rest:
            raise ValueError(f'must say what follows "{scheme}:"')
        self.literal = scheme not in _SCHEMES
        self.reference = "a literal secret" if self.literal else reference
        self._minimum = minimum
        self._fetch = self._source(reference, scheme, rest)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def read(self) -> bytes:
        """Return the secret's bytes, without the line end that editors leave in files.

        :raises ValueError: it is missing or too short; the text names the reference only.
        """
        try:
            value = self._fetch()
        except OSError as error:
            raise ValueError(f"{self.reference} cannot be read: {error.strerror}") from None
        if len(value) < self._minimum:
            raise ValueError(f"{self.reference} must hold at least {self._minimum} bytes and holds {len(value)}")
        return value

    def _source(self, reference: str, scheme: str, rest: str) -> Callable[[], bytes]:
        if self.literal:
            return reference.encode
        if scheme == "env":
            return lambda: os.environ.get(rest, "").encode()
        if scheme == "vault":
            return VaultValue(rest).read
        return WatchedFile(rest, lambda content: content.rstrip(b"\r\n")).read


class SecretRing:
    """The secrets of one rotation, newest first: the first one signs and hashes, all of them verify."""

    def __init__(self, *secrets: Secret) -> None:
        self._secrets = secrets

    def __repr__(self) -> str:
        return f"SecretRing{self._secrets!r}"

    @property
    def literal(self) -> bool:
        """Whether the configuration holds one of the secrets itself."""
        return any(each.literal for each in self._secrets)

    def newest(self) -> bytes:
        """Return the secret to use for new things.

        :raises ValueError: it cannot be read.
        """
        return self._secrets[0].read()

    def read(self) -> tuple[bytes, ...]:
        """Return every secret, newest first.

        :raises ValueError: one cannot be read.
        """
        return tuple([each.read() for each in self._secrets])


def secret_ring(value: Any) -> SecretRing:
    """Accept a reference to a secret of ours or a list of them; no value is ever repeated in the message.

    :raises ValueError: it is not that, or a secret is missing, shorter than 32 bytes or no random one.
    """
    secrets = _secrets(value, MINIMUM_BYTES)
    for each in secrets:
        _check_random(each)
    return SecretRing(*secrets)


def client_secret_ring(value: Any) -> SecretRing:
    """Accept a reference to a secret that another party chose, such as an OAuth2 client's, or a list of them.

    :raises ValueError: it is not that, or a secret is missing or shorter than 16 bytes.
    """
    secrets = _secrets(value, MINIMUM_CLIENT_BYTES)
    for each in secrets:
        each.read()
    return SecretRing(*secrets)


def _secrets(value: Any, minimum: int) -> list[Secret]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError('must be a reference such as "env:NAME" or "file:/path", or a list of them, newest first')
    if not 0 < len(entries) <= MAXIMUM_RING:
        raise ValueError(f"must be one reference or a list of at most {MAXIMUM_RING}")
    return [Secret(entry, minimum) for entry in entries]


def _check_random(secret: Secret) -> None:
    """Refuse what a person typed (RFC 8725bis section 3.5): it can be guessed from one hash or one token."""
    value = secret.read()
    bits = -sum(count * math.log2(count / len(value)) for count in Counter(value).values())
    if bits < MINIMUM_BITS or _repeats_itself(value) or value.startswith(_EXAMPLES):
        raise ValueError(
            f"{secret.reference} does not look random; make one with: "
            "python -c 'import secrets; print(secrets.token_hex(32))'"
        )


def _repeats_itself(value: bytes) -> bool:
    """Tell whether more than a quarter of the runs of four bytes are there twice; in a random secret almost none is."""
    runs = [value[start : start + 4] for start in range(len(value) - 3)]
    return 4 * len(set(runs)) < 3 * len(runs)
