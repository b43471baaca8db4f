"""The record of an API key, how it is written down, and what every store of records can do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from ..exchange import Principal
from ..policy import SCOPE_TOKEN
from ..strictjson import loads

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
