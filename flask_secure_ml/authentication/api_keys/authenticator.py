"""The authenticator for API keys."""

from __future__ import annotations

import hmac
import logging
from dataclasses import replace

from flask import Request

from ...errors import DependencyUnavailable, MalformedRequest, NotAuthenticated
from ...exchange import Exchange
from ...principal import Clock, Principal
from ...secrets import SecretRing
from ..credentials import authorization, single_word
from .file_store import FileKeyStore
from .key import (
    ACTIVE,
    NO_HASH,
    NOBODY,
    KeyHasher,
    KeyRecord,
    KeyStore,
    checksum,
    has_form,
    hash_key,
    id_part,
    key_id,
    new_key,
)
from .last_use import Rarely
from .lifecycle import issue_key, rotate_key

__all__ = [
    "ApiKeyAuthenticator",
    "FileKeyStore",
    "KeyRecord",
    "KeyStore",
    "hash_key",
    "issue_key",
    "key_id",
    "new_key",
    "rotate_key",
]

log: logging.Logger = logging.getLogger(__name__)


class ApiKeyAuthenticator:
    """Accepts ``Authorization: ApiKey <key>`` or ``X-API-Key: <key>``, never a key in the URL.

    Every text costs one look-up and, for each secret of the pepper, one HMAC and one comparison over digests of fixed
    length: whether it is a key or not, and its id known or not. Every refusal gets the same answer.

    A key that was hashed under an older secret of the pepper is hashed anew under the newest when it is used.

    :param store: where the records are.
    :param pepper: the references to the secrets that key the hash, newest first.
    :param clock: tells when a key has expired.
    """

    name = "api_key"
    challenge = "ApiKey"

    def __init__(self, store: KeyStore, pepper: SecretRing, clock: Clock) -> None:
        self._store = store
        self._hasher = KeyHasher(pepper)
        self._clock = clock
        self._rehashing = Rarely()

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the text of the key.

        :raises MalformedRequest: a key in both headers, or two in one.
        """
        own: str = request.environ.get("HTTP_X_API_KEY", "")
        standard = single_word(request, "apikey")
        if own and authorization(request):
            raise MalformedRequest("two credentials: Authorization and X-API-Key")
        if "," in own:
            raise MalformedRequest("two X-API-Key headers")
        return standard or own or None

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the principal whose key it is.

        :raises NotAuthenticated: the key is not known, disabled, revoked or expired.
        :raises DependencyUnavailable: the store or the pepper cannot be read.
        """
        text = credential if has_form(credential) else NOBODY
        record = self._record(text)
        hashes = self._hashes(text)
        expected = NO_HASH if record is None else record.hash
        matches = [hmac.compare_digest(each, expected) for each in hashes]
        if record is None or True not in matches:
            raise _wrong(text, record)
        now = self._clock.now()
        _check_usable(record, now)
        if not matches[0]:
            self._rehash(record, hashes[0], now)
        self._store.used(record.id, now)
        return record.principal

    def _record(self, text: str) -> KeyRecord | None:
        try:
            return self._store.get(id_part(text))
        except DependencyUnavailable:
            if text != NOBODY:
                raise
            return None  # it is no key, whatever the store holds

    def _hashes(self, text: str) -> list[str]:
        try:
            return self._hasher.hashes(text)
        except ValueError as error:
            raise DependencyUnavailable(f"no pepper: {error}", headers=(("Retry-After", "60"),)) from None

    def _rehash(self, old: KeyRecord, newest: str, now: float) -> None:
        """Store the hash under the newest secret, so that the older ones can be taken away one day."""
        if not self._rehashing.due(old.id, now):
            return
        try:
            self._store.update(
                old.id, lambda record: replace(record, hash=newest) if record.hash == old.hash else record
            )
        except (OSError, ValueError, KeyError, DependencyUnavailable) as error:
            told = error.reason if isinstance(error, DependencyUnavailable) else error
            log.warning("the API key %s could not be hashed anew: %s", old.id, told)


def _check_usable(record: KeyRecord, now: float) -> None:
    if record.status != ACTIVE:
        raise _invalid(f"the API key {record.id} is {record.status}", record.id)
    if record.expired(now):
        raise _invalid(f"the API key {record.id} has expired", record.id)


def _wrong(text: str, record: KeyRecord | None) -> NotAuthenticated:
    intact = checksum(text[:-6]) == text[-6:]
    if text == NOBODY:
        return NotAuthenticated("not in the form of an API key")
    if record is None:
        why = f"no API key has the id {id_part(text)}" if intact else "not in the form of an API key"
        return _invalid(why, id_part(text))
    return _invalid(f"wrong {'secret' if intact else 'checksum'} for the API key {record.id}", record.id)


def _invalid(reason: str, claimed: str) -> NotAuthenticated:
    """Say which key was meant, whether there is one or not: answers that differ would tell which ids exist."""
    error = NotAuthenticated(reason)
    error.claimed = claimed
    return error
