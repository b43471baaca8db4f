"""Where the keys of an issuer are found, by its configuration."""

from __future__ import annotations

import json
import logging
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
from ...errors import DependencyUnavailable
from ...fetch import exchange_with, fetch
from ...principal import Clock
from ...refresh import WatchedFile
from ...secrets import SecretRing
from .jwks import Discovery, HttpKeys
from .key_set import KeySetError, PublishedKeys, VerificationKey, VerificationKeys, parse_key_set, usable


class KeySource(Protocol):
    """Finds the keys that may verify a token of one issuer."""

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys to try: at most one public key, or every HMAC secret; none when there is none.

        :raises DependencyUnavailable: the issuer's keys are not known.
        """


def key_source(issuer: IssuerConfig, settings: Settings, clock: Clock) -> KeySource:
    """Return where the keys of a configured issuer are found.

    :raises ValueError: they are configured in place, in a file or as a secret, and not sound.
    """
    if issuer.secret is not None:
        return SecretKeys(issuer.secret, issuer.algorithms)
    if issuer.jwks is not None:
        return InlineKeys(issuer.jwks, issuer.algorithms)
    if issuer.jwks_file is not None:
        keys = FileKeys(issuer.jwks_file, issuer.algorithms)
        keys.check()
        return keys
    return _http_keys(issuer, settings, clock)


def _http_keys(issuer: IssuerConfig, settings: Settings, clock: Clock) -> HttpKeys:
    return HttpKeys(
        issuer.jwks_uri or issuer.issuer,
        issuer.algorithms,
        clock,
        max_age=settings.jwks_cache_seconds,
        cooldown=settings.jwks_cooldown,
        get=_discovery(issuer).key_set if issuer.discover else partial(fetch, private_network=issuer.private_network),
    )


def _discovery(issuer: IssuerConfig) -> Discovery:
    ask = partial(exchange_with, private_network=issuer.private_network)
    return Discovery(issuer.issuer, ask, clear_text=issuer.insecure_http)


log: logging.Logger = logging.getLogger(__name__)


class InlineKeys(PublishedKeys):
    """Public keys in the configuration itself.

    :raises ValueError: a key is secret, weak or damaged, or none is left.
    """

    def __init__(self, key_set: Mapping[str, Any], algorithms: Sequence[str]) -> None:
        try:
            raw = json.dumps(key_set).encode()
        except (TypeError, RecursionError):
            raise KeySetError("it is no JSON value") from None
        self._keys = _sound(raw, algorithms)

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key, or None when there is none with this name for this algorithm."""
        return self._keys.find(kid, algorithm)


class SecretKeys:
    """HMAC secrets, newest first, read anew for every token, so a changed file counts at once.

    A token's ``kid`` is not looked at: there are a few secrets, and each is tried.

    :param ring: the secrets.
    :param algorithms: the one algorithm that they verify (RFC 8725bis section 3.1).
    :raises ValueError: several algorithms, or a secret that is missing, too short for its algorithm or a public key.
    """

    def __init__(self, ring: SecretRing, algorithms: Sequence[str]) -> None:
        if len(set(algorithms)) != 1:
            raise ValueError("a secret is for one algorithm; name one of HS256, HS384 and HS512")
        self._ring = ring
        self._algorithm = algorithms[0]
        self._made: tuple[tuple[bytes, ...], tuple[VerificationKey, ...]] = ((), ())
        self._current()

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
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
        secrets, keys = self._made
        now = self._ring.read()
        if secrets != now:
            keys = tuple(_secret_key(each, self._algorithm) for each in now)
            self._made = (now, keys)
        return keys


def _secret_key(secret: bytes, algorithm: str) -> VerificationKey:
    if len(secret) < HMAC_BYTES[algorithm]:
        raise ValueError(f"a secret for {algorithm} must hold at least {HMAC_BYTES[algorithm]} bytes")
    if _is_public(secret):
        raise ValueError("a secret is a public key or a certificate, which everybody knows")
    return VerificationKey(OctKey.import_key(secret), algorithm, None)


def _is_public(secret: bytes) -> bool:
    """Tell what a mixed-up configuration gives; joserfc only warns of it before its release 1.8."""
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
        raise KeySetError("no key in it can be used")
    return keys


class FileKeys(PublishedKeys):
    """Keys in a file, read again when it changes.

    :param path: a JWK Set.
    :param algorithms: what the issuer may sign with.
    """

    def __init__(self, path: str, algorithms: Sequence[str]) -> None:
        self._file = WatchedFile(path, partial(parse_key_set, algorithms=algorithms))
        self._algorithms = tuple(algorithms)

    def check(self) -> None:
        """Hold the file at start to what a configuration must be.

        :raises ValueError: it cannot be read, a key in it is secret, weak or damaged, or none can be used.
        """
        try:
            _sound(self._file.path.read_bytes(), self._algorithms)
        except OSError as error:
            raise ValueError(f"{self._file.path} cannot be read: {error.strerror}") from None

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key, or None when the file has none with this name for this algorithm.

        :raises DependencyUnavailable: the file is missing, damaged or without a usable key.
        """
        return usable(self._read(), "the key set file", 60).find(kid, algorithm)

    def _read(self) -> VerificationKeys | None:
        try:
            return self._file.read()
        except (OSError, ValueError) as error:
            log.warning("the key set file %s cannot be used: %s", self._file.path, error)
            return None
