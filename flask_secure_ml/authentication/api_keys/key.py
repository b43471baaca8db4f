"""The format of an API key, its hash, and its record in a store.

A key reads ``sml_<id>_<secret><checksum>``: 12 characters of its id, 43 random ones (256 bits) and 6 with
a CRC-32 of all before, so that a scanner for leaked secrets can distinguish a key from noise. All are base62. Only an
HMAC-SHA-256 of the whole key under the pepper is stored; a slow hash would add nothing to 256 random bits and cost each
request 100 ms.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import string
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from ...policy.options import SCOPE_TOKEN
from ...principal import Principal
from ...secrets import SecretRing
from ...strictjson import loads

ALPHABET = string.digits + string.ascii_letters
PREFIX = "sml_"
"""The prefix of every key; a string without it is never accepted as a key."""

NOBODY = f"sml_{'-' * 12}_{'0' * 49}"
"""Verified in place of a string that is not a key, so that both cost the same; no key has such an id."""

_FORM = re.compile(r"sml_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
_SCHEME = "hmac-sha256:"
NO_HASH = _SCHEME + "0" * 64


def new_key() -> str:
    """Return a new key; it is not stored anywhere."""
    body = f"sml_{_random(12)}_{_random(43)}"
    return body + checksum(body)


def has_form(key: str) -> bool:
    """Return True if a string has the length and alphabet of a key.

    The checksum is not verified.
    """
    return _FORM.fullmatch(key) is not None


def key_id(key: str) -> str | None:
    """Return the id of a key, or None if the string has another format or a wrong checksum."""
    return id_part(key) if has_form(key) and checksum(key[:-6]) == key[-6:] else None


def id_part(key: str) -> str:
    """Return the id in a string that has the format of a key."""
    return key[4:16]


def checksum(body: str) -> str:
    """Return the CRC-32 of a key without its last six characters, in base62."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def hash_key(key: str, pepper: bytes) -> str:
    """Return the hash of a key, in the form in which it is stored."""
    return _SCHEME + hmac.digest(pepper, key.encode(), "sha256").hex()


class KeyHasher:
    """Hashes keys under every secret of a ring.

    The secrets are read for every key, so that a changed file takes effect at once. The keyed HMACs are cached, because
    keying one is more than half of the work.

    :param pepper: the secrets, newest first.
    """

    def __init__(self, pepper: SecretRing) -> None:
        self._pepper = pepper
        self._keyed: tuple[tuple[bytes, ...], list[hmac.HMAC]] = ((), [])

    @property
    def used(self) -> tuple[bytes, ...]:
        """The secrets that were used for the last hashes."""
        return self._keyed[0]

    def hashes(self, key: str) -> list[str]:
        """Return :func:`hash_key` of a string under every secret, newest first.

        :raises ValueError: a secret cannot be read.
        """
        current = self._pepper.read()
        known, keyed = self._keyed
        if known != current:
            keyed = [hmac.new(secret, digestmod="sha256") for secret in current]
            self._keyed = (current, keyed)
        raw = key.encode()
        return [_finish(each.copy(), raw) for each in keyed]


def _finish(keyed: hmac.HMAC, raw: bytes) -> str:
    keyed.update(raw)
    return _SCHEME + keyed.hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


VERSION = 1
ACTIVE = "active"
DISABLED = "disabled"
REVOKED = "revoked"
STATUSES = (ACTIVE, DISABLED, REVOKED)
LATEST = 253_402_300_799
"""The last second of the year 9999, the last one that Python can format as a date."""

_HASH = re.compile(r"hmac-sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class KeyRecord:
    """The stored record of one API key.

    :param id: the public part of the key, its name in logs.
    :param hash: ``hmac-sha256:`` and the hex digest of the whole key under the pepper.
    :param client: the client that the key was issued to.
    :param scopes: the scopes that it grants.
    :param plan: the plan in ``SECURE_ML_PLANS`` that limits its caller.
    :param created: seconds since the epoch.
    :param expires: seconds since the epoch, or None for a key that does not expire.
    :param status: ``active``, ``disabled`` (until it is enabled again) or ``revoked`` (for good).
    :param endpoints: the endpoints or URL rules that it is valid for; None for all.
    :param replaced_by: the id of its successor after a rotation.
    """

    id: str
    hash: str
    client: str
    scopes: frozenset[str]
    plan: str
    created: int
    expires: int | None = None
    status: str = ACTIVE
    endpoints: frozenset[str] | None = None
    replaced_by: str | None = None

    @cached_property
    def principal(self) -> Principal:
        """The principal of a request with this key."""
        return Principal(
            "api_key",
            self.id,
            scopes=self.scopes,
            plan=self.plan,
            client_id=self.client,
            endpoints=self.endpoints,
            issued=self.created,
        )

    def expired(self, now: float) -> bool:
        """Return True if the key has expired.

        :param now: seconds since the epoch.
        """
        return self.expires is not None and self.expires <= now


Records = Mapping[str, KeyRecord]
Change = Callable[[KeyRecord], KeyRecord]


class KeyStore(Protocol):
    """Stores the records of API keys."""

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None.

        It is called for every request, also with strings that are not ids.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def cached(self) -> Collection[KeyRecord]:
        """Return every record from the cache of this process.

        The records are at most a second old unless the store is down.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def update(self, key_id: str, change: Change) -> KeyRecord:
        """Replace a record with the return value of ``change``, atomically, and return the new record.

        An exception of ``change`` propagates, and leaves the record unchanged.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def revoke(self, key_id: str) -> None:
        """Revoke a key for good; its record stays.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def used(self, key_id: str, when: float) -> None:
        """Record that a key was used, in seconds since the epoch, to the minute.

        It is called for every request. It never raises; failures are logged.
        """

    def last_used(self) -> Mapping[str, int]:
        """Return when each key was last used, in seconds since the epoch.

        Keys that were never used are absent.

        :raises DependencyUnavailable: the store cannot be read.
        """


def to_members(record: KeyRecord) -> dict[str, Any]:
    """Return a record as the members of a JSON object."""
    endpoints = None if record.endpoints is None else sorted(record.endpoints)
    return {**asdict(record), "scopes": sorted(record.scopes), "endpoints": endpoints}


def from_members(entry: Any) -> KeyRecord:
    """Return the record from the members of a JSON object.

    :raises ValueError: members are missing, unknown or invalid.
    """
    names = {each.name for each in fields(KeyRecord)}
    if not isinstance(entry, dict) or entry.keys() != names or not _sound(entry):
        raise ValueError("a record has missing, unknown or wrong members")
    endpoints = entry["endpoints"]
    return KeyRecord(
        **{
            **entry,
            "scopes": frozenset(entry["scopes"]),
            "endpoints": None if endpoints is None else frozenset(endpoints),
        }
    )


def dump_record(record: KeyRecord) -> bytes:
    """Return one record as JSON.

    :raises ValueError: :func:`parse_record` would reject it.
    """
    raw = json.dumps({"version": VERSION, **to_members(record)}).encode()
    parse_record(raw)
    return raw


def parse_record(raw: bytes) -> KeyRecord:
    """Parse one record.

    :raises ValueError: it is not version 1, or not a complete record.
    """
    document = loads(raw)
    if not isinstance(document, dict) or not is_version(document.pop("version", None)):
        raise ValueError(f"a record is not an object with version {VERSION}")
    return from_members(document)


def is_version(value: Any) -> bool:
    """Return True if a value is the version of the format; JSON ``true`` does not count as 1."""
    return type(value) is int and value == VERSION


def _sound(entry: Mapping[str, Any]) -> bool:
    endpoints = entry["endpoints"]
    return (
        all(_is_name(entry[name]) for name in ("id", "hash", "client", "plan"))
        and _HASH.fullmatch(entry["hash"]) is not None
        and isinstance(entry["scopes"], list)
        and all(isinstance(scope, str) and SCOPE_TOKEN.fullmatch(scope) for scope in entry["scopes"])
        and (endpoints is None or (isinstance(endpoints, list) and all(map(_is_name, endpoints))))
        and _is_instant(entry["created"])
        and (entry["expires"] is None or _is_instant(entry["expires"]))
        and entry["status"] in STATUSES
        and (entry["replaced_by"] is None or _is_name(entry["replaced_by"]))
    )


def _is_name(value: Any) -> bool:
    # An unprintable character could forge a log line or a table row in a terminal.
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_instant(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LATEST
