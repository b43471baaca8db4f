"""The lifecycle of an API key: issued, disabled and enabled, replaced by rotation, revoked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ...policy.options import SCOPE_TOKEN
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
    :param endpoints: the endpoints or URL rules that the key is for, or None for every one.
    :raises ValueError: a client name, a scope or an endpoint with characters that are not allowed, no usable pepper,
        or an expiry after the year 9999.
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
    """Create a successor with the same client, scopes, plan, endpoints and lifetime; return it and its record.

    The old key is accepted for a while longer, never beyond its own expiry.

    :param now: seconds since the epoch.
    :param overlap: seconds for which the old key is still accepted, a year at most; 0 expires it at once.
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
        # It may have been revoked or rotated a moment ago; then nobody gets the new key, and it must not stay behind.
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
            raise ValueError(f"the key {record.id} is revoked, and stays so")
        return replace(record, status=status)

    return change


def _known(store: KeyStore, key_id: str) -> KeyRecord:
    """Return a record as it is stored, not as this process cached it."""
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
        raise ValueError(f"the key {record.id} was replaced by {record.replaced_by} already")
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
        raise ValueError("endpoints must be names of endpoints or URL rules, at least one; leave them out for all")
    return found


def _set_of(values: Iterable[str], what: str) -> frozenset[str]:
    # A single string is an iterable too: each of its letters would become a scope.
    if isinstance(values, str):
        raise ValueError(f"{what} must be a list of strings, not one string")
    return frozenset(values)
