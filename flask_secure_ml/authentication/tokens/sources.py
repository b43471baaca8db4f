"""The sources of an issuer's keys: its configuration, a secret, a file or a URL."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_ssh_public_key
from cryptography.x509 import load_der_x509_certificate
from joserfc.jwk import OctKey

from ...config import Settings
from ...config.issuers import HMAC_BYTES, IssuerConfig
from ...describing import is_described_only
from ...errors import DependencyUnavailable
from ...principal import Clock
from ...refresh import Outage, WatchedFile
from ...secrets import SecretRing, SecretUnavailable
from ..throttle import UNLIMITED, Calls
from .connection import IssuerConnection
from .jwks import Discovery, HttpKeys
from .key_set import KeySetError, PublishedKeys, VerificationKey, VerificationKeys, no_usable_keys, parse_key_set


class KeySource(Protocol):
    """Finds the keys that may verify a token of one issuer."""

    def candidates(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> tuple[VerificationKey, ...]:
        """Return the keys to try: at most one public key, or every HMAC secret.

        :param calls: decides whether an unknown ``kid`` may cause a fetch.
        :raises DependencyUnavailable: the issuer's keys are not known.
        """


Refreshes = Callable[[str, bool], object]
"""Called after each attempt to fetch a key set, with the issuer, and True if the set can be used."""


def key_source(
    issuer: IssuerConfig, settings: Settings, clock: Clock, refreshed: Refreshes = lambda _issuer, _usable: None
) -> KeySource:
    """Return the source of a configured issuer's keys.

    :param refreshed: called after each fetch over HTTP.
    :raises ValueError: keys in the configuration, in a file or in a secret are invalid.
    """
    if issuer.secret is not None:
        return SecretKeys(issuer.secret, issuer.algorithms)
    if issuer.jwks is not None:
        return InlineKeys(issuer.jwks, issuer.algorithms)
    if issuer.jwks_file is not None:
        keys = FileKeys(issuer.jwks_file, issuer.algorithms, clock)
        if not is_described_only():
            keys.check()
        return keys
    return _http_keys(issuer, settings, clock, partial(refreshed, issuer.issuer))


def _http_keys(issuer: IssuerConfig, settings: Settings, clock: Clock, refreshed: Callable[[bool], object]) -> HttpKeys:
    connection = IssuerConnection(issuer)
    return HttpKeys(
        issuer.jwks_uri or issuer.issuer,
        issuer.algorithms,
        clock,
        max_age=settings.jwks_cache_seconds,
        cooldown=settings.jwks_cooldown,
        get=Discovery(issuer.issuer, connection.send, clear_text=issuer.insecure_http).key_set
        if issuer.discover
        else connection.key_set,
        refreshed=refreshed,
    )


class InlineKeys(PublishedKeys):
    """Public keys in the configuration itself.

    :raises ValueError: a key is secret, weak or damaged, or no key is usable.
    """

    def __init__(self, key_set: Mapping[str, Any], algorithms: Sequence[str]) -> None:
        try:
            raw = json.dumps(key_set).encode()
        except (TypeError, RecursionError):
            raise KeySetError("it is not a JSON value") from None
        self._keys = _sound(raw, algorithms)

    def find(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> VerificationKey | None:
        """Return the key, or None if there is none with this ``kid`` for this algorithm."""
        return self._keys.find(kid, algorithm)


class SecretKeys:
    """HMAC secrets, newest first.

    They are read again for every token, so that a changed file takes effect at once. The ``kid`` of a token is ignored:
    there are few secrets, and each is tried.

    :param ring: the secrets.
    :param algorithms: the one algorithm that they are used with (RFC 8725bis section 3.1).
    :raises ValueError: there are several algorithms, or a secret is missing, too short for the algorithm, or a public
        key.
    """

    def __init__(self, ring: SecretRing, algorithms: Sequence[str]) -> None:
        if len(set(algorithms)) != 1:
            raise ValueError("a secret is for one algorithm; name one of HS256, HS384 and HS512")
        self._ring = ring
        self._algorithm = algorithms[0]
        self._imported: tuple[tuple[bytes, ...], tuple[VerificationKey, ...]] = ((), ())
        if not is_described_only():
            # If Vault is down at start-up, tokens are rejected until it responds.
            with suppress(SecretUnavailable):
                self._current()

    def candidates(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> tuple[VerificationKey, ...]:
        """Return the secrets as keys, newest first; none for another algorithm.

        :raises DependencyUnavailable: a secret cannot be read or used.
        """
        if algorithm != self._algorithm:
            return ()
        try:
            return self._current()
        except ValueError as error:
            raise DependencyUnavailable(f"no HMAC secret: {error}", headers=[("Retry-After", "60")]) from None

    def _current(self) -> tuple[VerificationKey, ...]:
        secrets, keys = self._imported
        current = self._ring.read()
        if secrets != current:
            keys = tuple(_secret_key(each, self._algorithm) for each in current)
            self._imported = (current, keys)
        return keys


def _secret_key(secret: bytes, algorithm: str) -> VerificationKey:
    if len(secret) < HMAC_BYTES[algorithm]:
        raise ValueError(f"a secret for {algorithm} must have at least {HMAC_BYTES[algorithm]} bytes")
    if _is_public(secret):
        raise ValueError("a secret is a public key or a certificate, which is not secret")
    return VerificationKey(OctKey.import_key(secret), algorithm, None)


def _is_public(secret: bytes) -> bool:
    """Return True if a secret is a public key or a certificate; before 1.8, joserfc only warns about these."""
    if b"-----BEGIN " in secret:
        return True
    loaders: tuple[Callable[[bytes], object], ...] = (
        load_der_public_key,
        load_ssh_public_key,
        load_der_x509_certificate,
    )
    for load in loaders:
        with suppress(ValueError, UnsupportedAlgorithm):
            load(secret)
            return True
    return False


def _sound(raw: bytes, algorithms: Sequence[str]) -> VerificationKeys:
    keys = parse_key_set(raw, algorithms, strict=True)
    if not keys:
        raise KeySetError("it has no usable key")
    return keys


class FileKeys(PublishedKeys):
    """Keys in a file, which is read again when it changes.

    :param path: the path of a JWK Set.
    :param algorithms: the algorithms that the issuer may sign with.
    :param clock: measures the 100 ms within which a removed key is rejected; without a clock, it is rejected at once.
    """

    def __init__(self, path: str, algorithms: Sequence[str], clock: Clock | None = None) -> None:
        self._file = WatchedFile(path, partial(parse_key_set, algorithms=algorithms), clock)
        self._algorithms = tuple(algorithms)
        self._outage = Outage(f"the key set file {path} cannot be used", f"the key set file {path} can be used again")

    def check(self) -> None:
        """Check the file at start-up as strictly as the configuration.

        :raises ValueError: it cannot be read, a key in it is secret, weak or damaged, or no key is usable.
        """
        try:
            _sound(self._file.path.read_bytes(), self._algorithms)
        except OSError as error:
            raise ValueError(f"{self._file.path} cannot be read: {error.strerror}") from None

    def find(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> VerificationKey | None:
        """Return the key, or None if the file has none with this ``kid`` for this algorithm.

        :raises DependencyUnavailable: the file is missing, damaged or without a usable key.
        """
        found = self._find(self._file.recent, kid, algorithm)
        # The token may be signed with a key that was just added to the file.
        return self._find(self._file.read, kid, algorithm) if found is None else found

    def _find(self, read: Callable[[], VerificationKeys], kid: str | None, algorithm: str) -> VerificationKey | None:
        try:
            keys = read()
        except (OSError, ValueError) as error:
            self._outage.failed(str(error))
            raise no_usable_keys("the key set file", 60) from None
        self._outage.ended()
        if not keys:
            raise no_usable_keys("the key set file", 60)
        return keys.find(kid, algorithm)
