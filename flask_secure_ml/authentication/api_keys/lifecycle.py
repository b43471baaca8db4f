"""The lifecycle of an API key: issue, disable, enable, rotate, revoke; and the time of its last use.

The last use is recorded to the minute, so that it costs most requests only a dictionary lookup.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ...errors import DependencyUnavailable
from ...policy.options import SCOPE_TOKEN
from ...refresh import process_lock
from ...secrets import SecretRing
from .key import ACTIVE, DISABLED, LATEST, REVOKED, KeyRecord, KeyStore, hash_key, id_part, new_key

MAX_CLIENT = 200
MAX_OVERLAP = 31_536_000


def issue_key(
    store: KeyStore,
    pepper: SecretRing,
    *,
    client: str,
    scopes: Iterable[str],
    now: float,
    plan: str = "default",
    expires: float | None = None,
    endpoints: Iterable[str] | None = None,
) -> tuple[str, KeyRecord]:
    """Create a key, store its record, and return both.

    :param now: seconds since the epoch.
    :param expires: seconds since the epoch, or None for a key that does not expire.
    :param endpoints: the endpoints or URL rules that the key is valid for, or None for all.
    :raises ValueError: a client name, a scope or an endpoint has characters that are not allowed, there is no usable
        pepper, or the expiry is after the year 9999.
    :raises DependencyUnavailable: the store cannot be changed.
    """
    if not client.isprintable() or not client.strip() or len(client) > MAX_CLIENT:
        raise ValueError(f"the client name must be 1 to {MAX_CLIENT} printable characters")
    if expires is not None and not expires <= LATEST:
        raise ValueError("a key must expire before the year 10000")
    key = new_key()
    record = KeyRecord(
        id_part(key),
        hash_key(key, pepper.newest()),
        client,
        _scopes(scopes),
        plan,
        int(now),
        None if expires is None else int(expires),
        endpoints=None if endpoints is None else _endpoints(endpoints),
    )
    store.add(record)
    return key, record


def rotate_key(
    store: KeyStore, pepper: SecretRing, key_id: str, *, now: float, overlap: float
) -> tuple[str, KeyRecord]:
    """Create the successor of a key, store its record, and return both.

    The successor has the same client, scopes, plan, endpoints and lifetime. The old key stays valid for ``overlap``
    seconds, but never beyond its own expiry.

    :param now: seconds since the epoch.
    :param overlap: at most a year; 0 expires the old key at once.
    :raises KeyError: there is no such key.
    :raises ValueError: the key is disabled, revoked, expired or replaced already, or there is no usable pepper.
    :raises DependencyUnavailable: the store cannot be changed.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ValueError(f"the overlap must be 0 to {MAX_OVERLAP} seconds")
    old = _replaceable(_known(store, key_id), now)
    key, successor = issue_key(
        store,
        pepper,
        client=old.client,
        scopes=old.scopes,
        now=now,
        plan=old.plan,
        expires=None if old.expires is None else now + (old.expires - old.created),
        endpoints=old.endpoints,
    )
    try:
        store.update(key_id, lambda record: _replaced(_replaceable(record, now), successor.id, now + overlap))
    except Exception:
        # The old key may have been revoked or rotated meanwhile. The new key is not returned, so revoke it.
        store.revoke(successor.id)
        raise
    return key, successor


def revoke_key(store: KeyStore, key_id: str) -> KeyRecord:
    """Revoke a key for good, and return its record.

    :raises KeyError: there is no such key.
    """
    store.revoke(key_id)
    return _known(store, key_id)


def disable_key(store: KeyStore, key_id: str) -> KeyRecord:
    """Disable a key until it is enabled again, and return its record.

    :raises KeyError: there is no such key.
    :raises ValueError: it is revoked.
    """
    return store.update(key_id, _to(DISABLED))


def enable_key(store: KeyStore, key_id: str) -> KeyRecord:
    """Accept a disabled key again, and return its record.

    :raises KeyError: there is no such key.
    :raises ValueError: it is revoked.
    """
    return store.update(key_id, _to(ACTIVE))


def _to(status: str) -> Callable[[KeyRecord], KeyRecord]:
    def change(record: KeyRecord) -> KeyRecord:
        if record.status == REVOKED:
            raise ValueError(f"the key {record.id} is revoked permanently")
        return replace(record, status=status)

    return change


def _known(store: KeyStore, key_id: str) -> KeyRecord:
    """Return a record from the store, not from the cache of this process."""
    found = [record for record in store.list() if record.id == key_id]
    if not found:
        raise KeyError(key_id)
    return found[0]


def _replaceable(record: KeyRecord, now: float) -> KeyRecord:
    if record.status != ACTIVE:
        raise ValueError(f"the key {record.id} is {record.status}; create a new one instead")
    if record.expired(now):
        raise ValueError(f"the key {record.id} has expired; create a new one instead")
    if record.replaced_by is not None:
        raise ValueError(f"the key {record.id} was already replaced by {record.replaced_by}")
    return record


def _replaced(record: KeyRecord, successor: str, end: float) -> KeyRecord:
    last = int(end) if record.expires is None else min(record.expires, int(end))
    return replace(record, expires=last, replaced_by=successor)


def _scopes(scopes: Iterable[str]) -> frozenset[str]:
    found = _set_of(scopes, "scopes")
    if not all(SCOPE_TOKEN.fullmatch(scope) for scope in found):
        raise ValueError("a scope must be printable ASCII without spaces, quotes and backslashes (RFC 6749)")
    return found


def _endpoints(endpoints: Iterable[str]) -> frozenset[str]:
    found = _set_of(endpoints, "endpoints")
    if not found or not all(name.isprintable() and name.strip() for name in found):
        raise ValueError("endpoints must be at least one endpoint name or URL rule; omit them to allow all")
    return found


def _set_of(values: Iterable[str], what: str) -> frozenset[str]:
    # A single string is iterable too: each of its characters would become a scope.
    if isinstance(values, str):
        raise ValueError(f"{what} must be a list of strings, not one string")
    return frozenset(values)


log: logging.Logger = logging.getLogger(__name__)

RESOLUTION = 60
_BETWEEN_WRITES = 1
Uses = Mapping[str, int]


class Rarely:
    """Rate-limits events to one of each kind per minute.

    The kinds are never evicted, so there must be few of them: ids of existing keys, never values from requests.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, kind: str, now: float) -> bool:
        """Return True, and record the event, if an event of this kind is due.

        It is due a minute after the last one that was due.
        """
        # The absolute difference: a clock that was set back must not suppress a kind for years.
        if abs(now - self._last.get(kind, -math.inf)) < RESOLUTION:
            return False
        self._last[kind] = now
        return True


class LastUse:
    """Collects the uses of keys in this process, and writes them in batches at most once a second.

    :param write: stores times, in seconds since the epoch, by key id. If it raises BlockingIOError, because another
        process is writing, it is retried after a second; after any other error, after a minute. The same error is
        logged only once, since a key file may be read-only on purpose.
    """

    def __init__(self, write: Callable[[Uses], None]) -> None:
        self._write = write
        self._rarely = Rarely()
        self._lock = process_lock()
        self._waiting: dict[str, int] = {}
        self._asked = -math.inf
        self._pause = 0.0
        self._complaint = ""

    def used(self, key_id: str, when: float) -> None:
        """Record one use; never raises."""
        due = self._rarely.due(key_id, when)
        if due or self._waiting:
            self._record({key_id: int(when)} if due else {}, when)

    def _record(self, use: Uses, when: float) -> None:
        with self._lock.get():
            self._waiting |= use
            if abs(when - self._asked) < self._pause:
                return
            self._asked, self._pause = when, _BETWEEN_WRITES
            waiting, self._waiting = self._waiting, {}
        # Outside the lock, so that other threads do not wait for the disk or the network.
        self._write_all(waiting)

    def _write_all(self, waiting: dict[str, int]) -> None:
        try:
            self._write(waiting)
            self._complaint = ""
        except BlockingIOError:
            self._keep(waiting, _BETWEEN_WRITES)
        except (OSError, ValueError, DependencyUnavailable) as error:
            self._keep(waiting, RESOLUTION)
            self._complain(error.reason if isinstance(error, DependencyUnavailable) else str(error))

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.warning("the last use of API keys cannot be recorded: %s", complaint)
        self._complaint = complaint

    def _keep(self, waiting: dict[str, int], pause: float) -> None:
        with self._lock.get():
            self._waiting = waiting | self._waiting
            self._pause = pause


def parse_uses(entries: Mapping[str, object]) -> dict[str, int]:
    """Return times by id that were read from a store, validated.

    :raises ValueError: one of them is not a whole number of seconds.
    """
    if not all(type(when) is int and when >= 0 for when in entries.values()):
        raise ValueError("a time of last use is not a whole number of seconds")
    return {key_id: when for key_id, when in entries.items() if isinstance(when, int)}


def merged(known: Uses, new: Uses) -> dict[str, int]:
    """Return the later of the two times for each key."""
    return {**known, **{key_id: max(when, known.get(key_id, 0)) for key_id, when in new.items()}}
