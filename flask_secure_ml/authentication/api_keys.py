"""API keys: their form, how one is issued, and the authenticator.

A key reads ``sml_<id>_<secret><checksum>``: 12 characters that name it, 43 random ones (256 bits) and 6 that
hold a CRC-32 of all before, so that a scanner for leaked secrets can tell a key from noise. All are base62.
Only an HMAC-SHA-256 of the whole text under the pepper is stored; a slow hash would add nothing against 256
random bits and cost each request 100 ms.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable

from flask import Request

from ..errors import DependencyUnavailable, MalformedRequest, NotAuthenticated
from ..exchange import Clock, Exchange, Principal
from ..policy import SCOPE_TOKEN
from ..secrets import Secret
from .base import authorization, single_word
from .key_store import ACTIVE, FileKeyStore, KeyRecord, KeyStore

__all__ = [
    "ApiKeyAuthenticator",
    "FileKeyStore",
    "KeyRecord",
    "KeyStore",
    "hash_key",
    "issue_key",
    "key_id",
    "new_key",
]

ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(r"sml_([0-9A-Za-z]{12})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
MAX_CLIENT = 200
_LENGTH = 66
_NO_HASH = "hmac-sha256:" + "0" * 64


def new_key() -> str:
    """Return the text of a new key; it is nowhere else, so hand it out or lose it."""
    body = f"sml_{_random(12)}_{_random(43)}"
    return body + _checksum(body)


def key_id(text: str) -> str | None:
    """Return the id of a key, or None for a text that is not in the form of a key."""
    form = _FORM.fullmatch(text)
    return form[1] if form and _checksum(text[:-6]) == form[2] else None


def hash_key(text: str, pepper: bytes) -> str:
    """Return what is stored of a key."""
    return "hmac-sha256:" + hmac.digest(pepper, text.encode(), "sha256").hex()


def issue_key(
    store: KeyStore,
    pepper: Secret,
    *,
    client: str,
    scopes: Iterable[str],
    now: float,
    plan: str = "default",
    expires: float | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key, store its record, and return both.

    :param now: seconds since the epoch.
    :param expires: seconds since the epoch, or None for a key that does not expire.
    :raises ValueError: a client name or a scope with characters that are not allowed, or no usable pepper.
    """
    if not client.isprintable() or not client.strip() or len(client) > MAX_CLIENT:
        raise ValueError(f"the client name must be 1 to {MAX_CLIENT} printable characters")
    if not all(SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise ValueError("a scope must be printable ASCII without spaces, quotes and backslashes (RFC 6749)")
    text = new_key()
    until = None if expires is None else int(expires)
    hashed = hash_key(text, pepper.read())
    record = KeyRecord(text[4:16], hashed, client, frozenset(scopes), plan, int(now), until)
    store.add(record)
    return text, record


class ApiKeyAuthenticator:
    """Accepts ``Authorization: ApiKey <key>`` or ``X-API-Key: <key>``.

    Every invalid key costs one HMAC and one comparison over digests of fixed length, whether its id is known or
    not, and gets the same answer.

    :param store: where the records are.
    :param pepper: the reference to the secret that keys the hash.
    :param clock: tells when a key has expired.
    """

    name = "api_key"
    challenge = "ApiKey"

    def __init__(self, store: KeyStore, pepper: Secret, clock: Clock) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock

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

        :raises NotAuthenticated: the key is not known, revoked or expired.
        :raises DependencyUnavailable: the store or the pepper cannot be read.
        """
        record = self._record(credential)
        if record.status != ACTIVE:
            raise NotAuthenticated(f"the API key {record.id} is {record.status}")
        if record.expires is not None and record.expires <= self._clock.now():
            raise NotAuthenticated(f"the API key {record.id} has expired")
        return Principal("api_key", record.id, scopes=record.scopes, plan=record.plan, client_id=record.client)

    def _record(self, text: str) -> KeyRecord:
        named = key_id(text)
        record = self._store.get(named) if named else None
        # The slice bounds the work for a text of any length; only a text of exactly this length has an id.
        hashed = hash_key(text[:_LENGTH], self._read_pepper())
        same = hmac.compare_digest(hashed, record.hash if record else _NO_HASH)
        if record is None or not same:
            raise NotAuthenticated(_why(named, record))
        return record

    def _read_pepper(self) -> bytes:
        try:
            return self._pepper.read()
        except ValueError as error:
            raise DependencyUnavailable(f"no pepper: {error}", headers=(("Retry-After", "60"),)) from None


def _why(named: str | None, record: KeyRecord | None) -> str:
    if named is None:
        return "not in the form of an API key"
    return f"no API key has the id {named}" if record is None else f"wrong secret for the API key {named}"


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits
