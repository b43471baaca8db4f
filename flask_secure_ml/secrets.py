"""Secrets by reference: the configuration says where a secret is, never what it is."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from .principal import Clock, SystemClock
from .refresh import WatchedFile

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
        self.literal: bool = scheme not in _SCHEMES
        self.reference: str = "a literal secret" if self.literal else reference
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


log: logging.Logger = logging.getLogger(__name__)

KEPT = 60.0
"""Seconds after which the secret is read again."""

LAST_GOOD = 3600.0
"""Seconds for which the last value serves while Vault does not answer."""

TIMEOUT = 2
"""Seconds to wait for Vault."""


class VaultValue:
    """One field of a secret of the key-value engine, version 2.

    One thread reads at a time; the others go on with the last value.

    :param reference: what follows ``vault:``: the mount, the path, ``#`` and the field.
    :raises ValueError: the reference lacks one of them.
    """

    def __init__(
        self, reference: str, clock: Clock | None = None, read: Callable[[str, str, str], str] | None = None
    ) -> None:
        place, _, self._field = reference.partition("#")
        self._mount, _, self._path = place.partition("/")
        if not (self._mount and self._path and self._field):
            raise ValueError('must name mount, path and field, such as "vault:secret/model#pepper"')
        self._clock = clock or SystemClock()
        self._read = read or read_vault
        self._lock = threading.Lock()
        self._value: bytes | None = None
        self._fetched = self._due = -math.inf

    def read(self) -> bytes:
        """Return the value.

        :raises OSError: Vault does not answer, or has no such secret, and there is no value of the last hour.
        """
        now = self._clock.monotonic()
        if now >= self._due and self._lock.acquire(blocking=self._too_old(now)):
            try:
                self._refresh()
            finally:
                self._lock.release()
        if self._value is None or self._too_old(now):
            raise OSError(0, "Vault does not answer with this secret; see the log")
        return self._value

    def _too_old(self, now: float) -> bool:
        return now >= self._fetched + LAST_GOOD

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now < self._due:
            return
        try:
            self._value = self._read(self._mount, self._path, self._field).encode()
            self._fetched = now
        except Exception as error:  # noqa: BLE001  the client raises errors of three packages
            # Their texts may quote the answer.
            log.error("the secret at vault:%s/%s could not be read: %s", self._mount, self._path, type(error).__name__)
        finally:
            # Last: a thread that has no good value waits for this one until then.
            self._due = now + KEPT


def read_vault(mount: str, path: str, field: str) -> str:
    """Ask Vault once.

    :raises Exception: whatever the client raises, and KeyError for a field that is not there.
    """
    # The client is an extra, and only this kind of reference needs it.
    import hvac

    client = hvac.Client(timeout=TIMEOUT)
    found = client.secrets.kv.v2.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True)
    return str(found["data"]["data"][field])
