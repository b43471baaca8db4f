"""The text of an API key: how it is made, told from noise, and hashed.

A key reads ``sml_<id>_<secret><checksum>``: 12 characters that name it, 43 random ones (256 bits) and 6 that
hold a CRC-32 of all before, so that a scanner for leaked secrets can tell a key from noise. All are base62.
Only an HMAC-SHA-256 of the whole text under the pepper is stored; a slow hash would add nothing against 256
random bits and cost each request 100 ms.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import string
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from ...policy.options import SCOPE_TOKEN
from ...principal import Principal
from ...secrets import SecretRing
from ...strictjson import loads

ALPHABET = string.digits + string.ascii_letters
NOBODY = f"sml_{'-' * 12}_{'0' * 49}"
"""Takes the place of a text that is no key, so that it costs as much as one; no key has such an id."""

_FORM = re.compile(r"sml_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
_SCHEME = "hmac-sha256:"
NO_HASH = _SCHEME + "0" * 64


def new_key() -> str:
    """Return the text of a new key; it is nowhere else, so hand it out or lose it."""
    body = f"sml_{_random(12)}_{_random(43)}"
    return body + checksum(body)


def has_form(text: str) -> bool:
    """Tell whether a text is as long as a key and has its characters; the checksum is not looked at."""
    return _FORM.fullmatch(text) is not None


def key_id(text: str) -> str | None:
    """Return the id of a key, or None for a text that is not in the form of a key or has a wrong checksum."""
    return id_part(text) if has_form(text) and checksum(text[:-6]) == text[-6:] else None


def id_part(text: str) -> str:
    """Return what is the id in a text that has the form of a key."""
    return text[4:16]


def checksum(body: str) -> str:
    """Return the CRC-32 of a key without its last six characters, in base62."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def hash_key(text: str, pepper: bytes) -> str:
    """Return what is stored of a key."""
    return _SCHEME + hmac.digest(pepper, text.encode(), "sha256").hex()


class KeyHasher:
    """Hashes keys under every secret of a ring.

    The secrets are read for every key, so a changed file counts at once. What is kept is the HMAC after it has taken
    in the secret: setting that up would be more than half of the work.

    :param pepper: the secrets, newest first.
    """

    def __init__(self, pepper: SecretRing) -> None:
        self._pepper = pepper
        self._keyed: tuple[tuple[bytes, ...], list[hmac.HMAC]] = ((), [])

    def hashes(self, text: str) -> list[str]:
        """Return :func:`hash_key` of a text under each secret, newest first, always under all of them.

        :raises ValueError: a secret cannot be read.
        """
        secrets_now = self._pepper.read()
        read, keyed = self._keyed
        if read != secrets_now:
            keyed = [hmac.new(secret, digestmod="sha256") for secret in secrets_now]
            self._keyed = (secrets_now, keyed)
        raw = text.encode()
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
"""The last second of the year 9999, which is the last one that can be shown as a date."""

_HASH = re.compile(r"hmac-sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class KeyRecord:
    """What is stored of one API key.

    :param id: the public part of the key, which names it in logs.
    :param hash: ``hmac-sha256:`` and the hex digest of the whole key under the pepper.
    :param client: who the key was given to.
    :param scopes: what it allows.
    :param plan: the plan in ``SECURE_ML_PLANS`` that limits its caller.
    :param created: seconds since the epoch.
    :param expires: seconds since the epoch, or None for a key that does not expire.
    :param status: ``active``, ``disabled`` (until it is enabled again) or ``revoked`` (for good).
    :param endpoints: the endpoints or URL rules that it is for; None for every one.
    :param replaced_by: the id of the key that took its place by rotation.
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
        """Who a request with this key speaks for."""
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
        """Tell whether the key is past its time, in seconds since the epoch."""
        return self.expires is not None and self.expires <= now


Records = Mapping[str, KeyRecord]
Change = Callable[[KeyRecord], KeyRecord]


class KeyStore(Protocol):
    """Where records of API keys are found."""

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None; called for every request, for texts that are no id too.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def update(self, key_id: str, change: Change) -> KeyRecord:
        """Put what ``change`` makes of a record in its place, with no other change in between, and return it.

        Whatever ``change`` raises is passed on, and the record stays.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on and for good; its record stays.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: the store cannot be changed.
        """

    def used(self, key_id: str, when: float) -> None:
        """Note that a key was accepted, in seconds since the epoch, to the minute; called for every request.

        It never raises: a use that cannot be noted is logged.
        """

    def last_used(self) -> Mapping[str, int]:
        """Return when each key was last used, in seconds since the epoch; keys that never were are missing.

        :raises DependencyUnavailable: the store cannot be read.
        """


def to_members(record: KeyRecord) -> dict[str, Any]:
    """Return a record as the members of a JSON object."""
    endpoints = None if record.endpoints is None else sorted(record.endpoints)
    return {**asdict(record), "scopes": sorted(record.scopes), "endpoints": endpoints}


def from_members(entry: Any) -> KeyRecord:
    """Return the record that was written as the members of a JSON object.

    :raises ValueError: members are missing, unknown or have values that no record has.
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
    """Write one record as JSON.

    :raises ValueError: :func:`parse_record` would not read it back.
    """
    raw = json.dumps({"version": VERSION, **to_members(record)}).encode()
    parse_record(raw)
    return raw


def parse_record(raw: bytes) -> KeyRecord:
    """Read one record.

    :raises ValueError: it is not version 1, or not a complete record.
    """
    document = loads(raw)
    if not isinstance(document, dict) or not is_version(document.pop("version", None)):
        raise ValueError(f"a record is not an object with version {VERSION}")
    return from_members(document)


def is_version(value: Any) -> bool:
    """Tell whether a value is the version of the format; true is not 1."""
    return type(value) is int and value == VERSION


def _sound(entry: Mapping[str, Any]) -> bool:
    endpoints = entry["endpoints"]
    return (
        all(_is_text(entry[name]) for name in ("id", "hash", "client", "plan"))
        and _HASH.fullmatch(entry["hash"]) is not None
        and isinstance(entry["scopes"], list)
        and all(isinstance(scope, str) and SCOPE_TOKEN.fullmatch(scope) for scope in entry["scopes"])
        and (endpoints is None or (isinstance(endpoints, list) and all(map(_is_text, endpoints))))
        and _is_instant(entry["created"])
        and (entry["expires"] is None or _is_instant(entry["expires"]))
        and entry["status"] in STATUSES
        and (entry["replaced_by"] is None or _is_text(entry["replaced_by"]))
    )


def _is_text(value: Any) -> bool:
    # What is not printable could forge a line of a log or of a table in a terminal.
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_instant(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LATEST
