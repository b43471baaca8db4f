"""The authenticator for API keys."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import replace
from hashlib import blake2b

from flask import Request

from ...errors import DependencyUnavailable, MalformedRequest, NotAuthenticated, UnusableCredential
from ...exchange import Exchange
from ...principal import Clock, Principal
from ...secrets import SecretRing
from ..guard import authorization, single_value
from .key import ACTIVE, NO_HASH, NOBODY, KeyHasher, KeyRecord, KeyStore, checksum, has_form, id_part
from .lifecycle import Rarely

log: logging.Logger = logging.getLogger(__name__)

MOST_ACCEPTED = 10_000
"""The maximum number of accepted keys that one process caches."""


class ApiKeyAuthenticator:
    """Accepts ``Authorization: ApiKey <key>`` or ``X-API-Key: <key>``, never a key in the URL.

    Every string costs one lookup and, for each secret of the pepper, one HMAC and one comparison of digests of fixed
    length, regardless of whether it is a key and whether its id exists. Every rejection has the same response.

    A key that was hashed under an older secret of the pepper is hashed again under the newest when it is used.

    An accepted key is cached as a digest, keyed with a random key of this process. While the hash in its record and the
    pepper are unchanged, the HMAC need not be computed again. The rest of the record is checked for each request. A
    store may have a method ``recent``, which returns the record of a cached key as it was a moment ago; any other
    string is looked up in the current content of the store.

    :param store: stores the records.
    :param pepper: the references to the secrets that key the hash, newest first.
    :param clock: decides whether a key has expired.
    :param headers: which of the two are accepted: ``x-api-key``, ``apikey``.
    :param reserved: the schemes of ``Authorization``, in lower case, that carry credentials of this app; any other
        scheme is left to the view, and may be sent together with ``X-API-Key``.
    """

    name = "api_key"
    challenge = "ApiKey"

    def __init__(
        self,
        store: KeyStore,
        pepper: SecretRing,
        clock: Clock,
        headers: Collection[str] = ("x-api-key", "apikey"),
        reserved: Collection[str] = ("apikey", "bearer", "dpop"),
    ) -> None:
        self._own = "x-api-key" in headers
        self._standard = "apikey" in headers
        self._reserved = frozenset(reserved)
        self._store = store
        self._recent: Callable[[str], KeyRecord | None] = getattr(store, "recent", store.get)
        self._pepper = pepper
        self._hasher = KeyHasher(pepper)
        self._salt = secrets.token_bytes(32)
        self._accepted: dict[bytes, tuple[tuple[bytes, ...], str]] = {}
        self._clock = clock
        self._rehashing = Rarely()

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the key.

        :raises MalformedRequest: both headers have a key, one has two, or another credential of this app is sent too.
        """
        own: str = request.environ.get("HTTP_X_API_KEY", "") if self._own else ""
        standard = None
        if request.environ.get("HTTP_AUTHORIZATION"):
            standard = single_value(request, "apikey") if self._standard else None
            if own and (beside := authorization(request)) is not None and beside[0] in self._reserved:
                raise MalformedRequest("two credentials: Authorization and X-API-Key")
        if "," in own:
            raise MalformedRequest("two X-API-Key headers")
        return standard or own or None

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the principal of the key.

        :raises UnusableCredential: the key is disabled, revoked or expired.
        :raises NotAuthenticated: the key is unknown.
        :raises DependencyUnavailable: the store or the pepper cannot be read.
        """
        key = credential if has_form(credential) else NOBODY
        digest = blake2b(key.encode(), key=self._salt).digest()
        accepted = self._accepted.get(digest)
        record = None if accepted is None else self._recent(id_part(key))
        try:
            pepper = self._pepper.read()
        except ValueError as error:
            raise _no_pepper(error) from None
        if record is None or accepted != (pepper, record.hash):
            record = self._verified(key, digest, pepper)
        now = self._clock.now()
        if record.status != ACTIVE:
            raise UnusableCredential(f"the API key {record.id} is {record.status}")
        if record.expires is not None and record.expired(now):
            raise UnusableCredential(f"the API key {record.id} has expired")
        self._store.used(record.id, now)
        return record.principal

    def _verified(self, key: str, digest: bytes, pepper: tuple[bytes, ...]) -> KeyRecord:
        """Return the record of a key whose hash matches.

        :raises NotAuthenticated: the key is unknown or wrong.
        """
        record = self._record(key)
        hashes = self._hashes(key)
        expected = NO_HASH if record is None else record.hash
        matches = [hmac.compare_digest(each, expected) for each in hashes]
        if record is None or True not in matches:
            raise _wrong(key, record)
        if matches[0]:
            if len(self._accepted) >= MOST_ACCEPTED:
                self._accepted.clear()
            if self._hasher.used == pepper:
                self._accepted[digest] = (pepper, record.hash)
        elif record.status == ACTIVE and not record.expired(now := self._clock.now()):
            self._rehash(record, hashes[0], now)
        return record

    def _record(self, key: str) -> KeyRecord | None:
        try:
            return self._store.get(id_part(key))
        except DependencyUnavailable:
            if key != NOBODY:
                raise
            return None  # not a key, so the store is not needed

    def _hashes(self, key: str) -> list[str]:
        try:
            return self._hasher.hashes(key)
        except ValueError as error:
            raise _no_pepper(error) from None

    def _rehash(self, old: KeyRecord, newest: str, now: float) -> None:
        """Store the hash under the newest secret, so that older secrets can be removed eventually."""
        if not self._rehashing.due(old.id, now):
            return
        try:
            self._store.update(
                old.id, lambda record: replace(record, hash=newest) if record.hash == old.hash else record
            )
        except (OSError, ValueError, KeyError, DependencyUnavailable) as error:
            reason = error.reason if isinstance(error, DependencyUnavailable) else error
            log.warning("the API key %s could not be rehashed: %s", old.id, reason)


def _no_pepper(error: ValueError) -> DependencyUnavailable:
    return DependencyUnavailable(f"no pepper: {error}", headers=(("Retry-After", "60"),))


def _wrong(key: str, record: KeyRecord | None) -> NotAuthenticated:
    intact = checksum(key[:-6]) == key[-6:]
    if key == NOBODY:
        return NotAuthenticated("not in the format of an API key")
    if record is None:
        why = f"no API key has the id {id_part(key)}" if intact else "not in the format of an API key"
        return _invalid(why, id_part(key))
    return _invalid(f"wrong {'secret' if intact else 'checksum'} for the API key {record.id}", record.id)


def _invalid(reason: str, claimed: str) -> NotAuthenticated:
    """Return the error for a wrong key with the id that it claims.

    The id is set even if it does not exist, so that clients cannot find out which ids exist.
    """
    error = NotAuthenticated(reason)
    error.claimed = claimed
    return error
