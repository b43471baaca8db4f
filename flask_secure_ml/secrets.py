"""Secrets by reference: the configuration has the location of a secret, never its value."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from .describing import is_described_only
from .principal import Clock, SystemClock
from .refresh import Attempt, Outage, Refreshed, WatchedFile

MINIMUM_BYTES = 32
MINIMUM_CLIENT_BYTES = 16
MAXIMUM_RING = 4
"""The maximum number of secrets in a rotation; each unknown key or token may be tried with all of them."""

MINIMUM_BITS = 96
"""The minimum entropy of a secret in bits, by the frequency of its bytes; 32 random hex digits have about 115."""

_EXAMPLES = (b"your-256-bit-secret", b"your-384-bit-secret", b"your-512-bit-secret", b"a-string-secret-at-least-")
_SCHEMES = ("env", "file", "vault")

NO_LITERAL = 'must be a reference such as "env:NAME" or "file:/path", never the secret itself'


class SecretUnavailable(ValueError):
    """The source of a secret is down; the reference may be right."""


class Secret:
    """A reference to a secret: ``env:NAME``, ``file:/path`` or ``vault:mount/path#field``; read when it is used.

    A file is read again when it changes, as Kubernetes and Docker secrets do, and Vault every minute. Any other string
    is the secret itself: ``literal`` is true, and only apps in debug or testing mode accept it.

    :param minimum: the minimum length of the value in bytes.
    :param random: reject a value that does not look random: a human-chosen one can be guessed from one hash or one
        token (RFC 8725bis section 3.5).
    :raises ValueError: the reference is incomplete.
    """

    def __init__(self, reference: str, minimum: int = MINIMUM_BYTES, *, random: bool = False) -> None:
        scheme, _, rest = reference.partition(":")
        if scheme in _SCHEMES and not rest:
            raise ValueError(f'requires a name after "{scheme}:"')
        if scheme == "vault" and find_spec("hvac") is None:
            raise ValueError(f"{reference} requires the package hvac: pip install 'flask-secure-ml[vault]'")
        self.literal: bool = scheme not in _SCHEMES
        self.reference: str = "a literal secret" if self.literal else reference
        self._minimum = minimum
        self._random = random
        self._fetch = self._source(reference, scheme, rest)
        self._checked: bytes | None = None
        self._failing = False
        self._outage = Outage(f"{self.reference} cannot be used", f"{self.reference} can be used again")

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def read(self) -> bytes:
        """Return the bytes of the secret, without trailing newlines of a file.

        If a secret can no longer be used, that is logged once.

        :raises ValueError: it is missing, too short or not random; the message contains only the reference.
        :raises SecretUnavailable: Vault does not respond.
        """
        try:
            value = self._read()
        except ValueError as error:
            if self._checked is not None:
                self._failing = True
                self._outage.failed(str(error))
            raise
        if self._failing:
            self._failing = False
            self._outage.ended()
        return value

    def _read(self) -> bytes:
        try:
            value = self._fetch()
        except VaultError as error:
            kind = SecretUnavailable if error.temporary else ValueError
            raise kind(f"{self.reference} cannot be read: {error.reason}") from None
        except OSError as error:
            raise ValueError(f"{self.reference} cannot be read: {error.strerror}") from None
        if value != self._checked:
            self._check(value)
            self._checked = value
        return value

    def _check(self, value: bytes) -> None:
        if self.literal and len(value) < self._minimum:
            raise ValueError(f"{NO_LITERAL}; a literal secret must have at least {self._minimum} bytes")
        if len(value) < self._minimum:
            raise ValueError(f"{self.reference} must have at least {self._minimum} bytes and has {len(value)}")
        if self._random and not _looks_random(value):
            if self.literal:
                raise ValueError(f"{NO_LITERAL}; this one does not look random")
            raise ValueError(
                f"{self.reference} does not look random; generate one with: "
                "python -c 'import secrets; print(secrets.token_hex(32))'"
            )

    def _source(self, reference: str, scheme: str, rest: str) -> Callable[[], bytes]:
        if self.literal:
            return reference.encode
        if scheme == "env":
            return lambda: _environment(rest)
        if scheme == "vault":
            return VaultValue(rest).read
        return WatchedFile(rest, lambda content: content.rstrip(b"\r\n")).read


def _environment(name: str) -> bytes:
    # As bytes, because strings would be encoded for each request.
    try:
        return os.environb[name.encode()]
    except KeyError:
        raise ValueError(f"environment variable {name} is not set") from None


class SecretRing:
    """The secrets of one rotation, newest first: the first signs and hashes, all of them verify."""

    def __init__(self, *secrets: Secret) -> None:
        self._secrets = secrets

    def __repr__(self) -> str:
        return f"SecretRing{self._secrets!r}"

    @property
    def literal(self) -> bool:
        """Whether one of the secrets is in the configuration itself."""
        return any(each.literal for each in self._secrets)

    def newest(self) -> bytes:
        """Return the secret to sign and hash with.

        :raises ValueError: it cannot be read.
        """
        return self._secrets[0].read()

    def read(self) -> tuple[bytes, ...]:
        """Return all secrets, newest first.

        :raises ValueError: one of them cannot be read.
        """
        return tuple([each.read() for each in self._secrets])

    def check(self) -> tuple[bytes, ...]:
        """Check the secrets at start-up, and return those that can be read.

        If Vault is down, its secrets are checked once it responds. For an app that is only described, none are read.

        :raises ValueError: one of them is missing, too short or not random.
        """
        if is_described_only():
            return ()
        found = []
        for each in self._secrets:
            try:
                found.append(each.read())
            except SecretUnavailable:
                continue
        return tuple(found)


def secret_ring(value: Any) -> SecretRing:
    """Return the ring for one or several references to secrets of this app.

    No message contains a value.

    :raises ValueError: it is neither one nor a list, or a secret is missing, shorter than 32 bytes or not random.
    """
    return _ring(value, MINIMUM_BYTES, random=True)


def client_secret_ring(value: Any) -> SecretRing:
    """Return the ring for one or several references to secrets of another party.

    OAuth2 client secrets are such secrets.

    :raises ValueError: it is neither one nor a list, or a secret is missing or shorter than 16 bytes.
    """
    return _ring(value, MINIMUM_CLIENT_BYTES, random=False)


def public_token_ring(value: Any) -> SecretRing:
    """Return the ring for one reference to a value that may be short.

    Such a value is stored like a secret, for example a DSN.

    :raises ValueError: it is not one reference, or the value is missing or empty.
    """
    if not isinstance(value, str):
        raise ValueError('must be one reference such as "env:NAME" or "file:/path"')
    return _ring(value, 1, random=False)


def _ring(value: Any, minimum: int, *, random: bool) -> SecretRing:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError('must be a reference such as "env:NAME" or "file:/path", or a list of them, newest first')
    if not 0 < len(entries) <= MAXIMUM_RING:
        raise ValueError(f"must be one reference or a list of at most {MAXIMUM_RING}")
    ring = SecretRing(*(Secret(entry, minimum, random=random) for entry in entries))
    ring.check()
    return ring


def _looks_random(value: bytes) -> bool:
    bits = -sum(count * math.log2(count / len(value)) for count in Counter(value).values())
    return bits >= MINIMUM_BITS and not _repeats_itself(value) and not value.startswith(_EXAMPLES)


def _repeats_itself(value: bytes) -> bool:
    """Return True if more than a quarter of all 4-byte sequences are repetitions; random secrets have almost none."""
    runs = [value[start : start + 4] for start in range(len(value) - 3)]
    return 4 * len(set(runs)) < 3 * len(runs)


FRESH = 60.0
"""Seconds after which a secret in Vault is read again."""

LAST_GOOD = 3600.0
"""Seconds for which the last value is used while Vault does not respond."""

TIMEOUT = 2
"""Seconds for a request to Vault."""

_PAUSE = 10.0
_PROMISED = FRESH + 2 * TIMEOUT
# By name, because the client is an extra. Its other errors mean that the reference or the token is wrong.
_TEMPORARY = frozenset({"BadGateway", "InternalServerError", "RateLimitExceeded", "VaultDown"})


class VaultError(OSError):
    """A secret in Vault cannot be read, and there is no cached value from the last hour.

    :param temporary: True if Vault is down, False if it has no such secret for this app.
    """

    def __init__(self, reason: str, *, temporary: bool) -> None:
        super().__init__(0, reason)
        self.reason = reason
        self.temporary = temporary


class VaultValue:
    """One field of a secret in the key-value engine, version 2.

    :param reference: the part after ``vault:``: the mount, the path, ``#`` and the field.
    :raises ValueError: the reference lacks one of them.
    """

    def __init__(
        self, reference: str, clock: Clock | None = None, read: Callable[[str, str, str], str] | None = None
    ) -> None:
        location, _, self._field = reference.partition("#")
        self._mount, _, self._path = location.partition("/")
        if not (self._mount and self._path and self._field):
            raise ValueError('must have mount, path and field, such as "vault:secret/model#pepper"')
        self._read = read or read_vault
        self._fault = VaultError("Vault does not respond", temporary=True)
        self._value: Refreshed[bytes] = Refreshed(
            self._fetch,
            clock or SystemClock(),
            name=f"the secrets at vault:{location}",
            fresh=FRESH,
            timeout=TIMEOUT,
            promised=_PROMISED,
            keep=LAST_GOOD,
            pause=_PAUSE,
            errors=(VaultError,),
            unavailable=lambda _: VaultError(self._fault.reason, temporary=self._fault.temporary),
        )

    def read(self) -> bytes:
        """Return the value.

        :raises VaultError: Vault does not respond or has no such secret, and there is no cached value from the last
            hour.
        """
        return self._value.get()

    def _fetch(self, _value: bytes | None, _attempt: Attempt) -> bytes:
        try:
            return self._read(self._mount, self._path, self._field).encode()
        except Exception as error:  # noqa: BLE001  the client raises errors from three packages
            self._fault = _vault_error(error)
            raise self._fault from None


def _vault_error(error: Exception) -> VaultError:
    # The messages of the client may quote the response.
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return VaultError('it requires: pip install "flask-secure-ml[vault]"', temporary=False)
    if kind in _TEMPORARY or (isinstance(error, OSError) and not isinstance(error, ValueError)):
        return VaultError(f"Vault does not respond ({kind})", temporary=True)
    return VaultError(f"Vault has no such secret for this app ({kind})", temporary=False)


def read_vault(mount: str, path: str, field: str) -> str:
    """Read one field of a secret from Vault.

    :raises Exception: any error of the client, and KeyError for a field that does not exist.
    """
    # The client is an extra, and only this kind of reference needs it.
    import hvac

    client = hvac.Client(timeout=TIMEOUT)
    found = client.secrets.kv.v2.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True)
    return str(found["data"]["data"][field])
