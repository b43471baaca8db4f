"""API keys in a store that is shared by workers and machines."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ...errors import DependencyUnavailable
from ...principal import Clock
from ...stores import SharedStore
from ...stores.snapshot import Snapshot
from .key import REVOKED, Change, KeyRecord, dump_record, parse_record
from .lifecycle import LastUse, Uses, parse_uses

KEYS = "keys"
USES = "keys-used"
LOCKS = "keys-lock"
HELD = 10.0
"""Seconds after which a lock expires, in case the process that holds it has died."""

_RETRY_AFTER = (("Retry-After", "60"),)


class SharedKeyStore:
    """API keys in a shared store, cached in memory.

    A change takes effect in every worker within a second. While the store is down, the cached content is used for a
    minute; after that every key is rejected.

    :param store: stores the records, each under its id.
    :param clock: measures the age of the cache.
    """

    def __init__(self, store: SharedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._snapshot = Snapshot(store, KEYS, parse_record, clock, dict[str, KeyRecord])
        self._last_use = LastUse(self._write_uses)

    def poll(self) -> None:
        """Refresh the cache if it is due; never raises."""
        self._snapshot.poll()

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None.

        :raises DependencyUnavailable: the store is down for longer than a minute, or damaged.
        """
        try:
            record = self._snapshot.read().get(key_id)
        except ValueError as error:
            raise _damaged(error) from None
        return None if record is None else _named(record, key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first.

        :raises DependencyUnavailable: the store is down or damaged.
        """
        with _damage():
            items = self._store.items(KEYS).items()
            records = [_named(parse_record(raw), key_id) for key_id, raw in items]
        return tuple(sorted(records, key=lambda record: (record.created, record.id)))

    def cached(self) -> Collection[KeyRecord]:
        """Return every record, at most a second old unless the store is down.

        :raises DependencyUnavailable: the store is down for longer than a minute, or damaged.
        """
        with _damage():
            # A copy, because another thread may change them.
            return [*self._snapshot.read().values()]

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken, or :func:`parse_record` would reject the record.
        :raises DependencyUnavailable: the store is down.
        """
        if not self._store.put(KEYS, record.id, dump_record(record), new=True):
            raise ValueError("a key with this id exists already")
        self._snapshot.invalidate()

    def update(self, key_id: str, change: Change) -> KeyRecord:
        """Replace a record with the return value of ``change``, and return the new record.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: the store is down or damaged, or another process is changing this record.
        """
        with self._locked(key_id):
            started = self._clock.monotonic()
            record = change(self._stored(key_id))
            raw = dump_record(record)
            if self._clock.monotonic() - started > HELD / 2:
                raise DependencyUnavailable(f"changing the API key {key_id} took too long; try again")
            self._store.put(KEYS, key_id, raw)
        self._snapshot.invalidate()
        return record

    def revoke(self, key_id: str) -> None:
        """Revoke a key; its record stays.

        :raises KeyError: there is no such key.
        :raises DependencyUnavailable: as for :meth:`update`.
        """
        self.update(key_id, lambda record: replace(record, status=REVOKED))

    def used(self, key_id: str, when: float) -> None:
        """Record that a key was used, in seconds since the epoch, to the minute."""
        self._last_use.used(key_id, when)

    def last_used(self) -> Uses:
        """Return when each key was last used.

        :raises DependencyUnavailable: the store is down or damaged.
        """
        with _damage():
            return parse_uses({key_id: int(raw) for key_id, raw in self._store.items(USES).items()})

    def _write_uses(self, uses: Uses) -> None:
        for key_id, when in uses.items():
            self._store.put(USES, key_id, str(when).encode())

    def _stored(self, key_id: str) -> KeyRecord:
        raw = self._store.get(KEYS, key_id)
        if raw is None:
            raise KeyError(key_id)
        with _damage():
            return _named(parse_record(raw), key_id)

    @contextmanager
    def _locked(self, key_id: str) -> Iterator[None]:
        """Lock a record: a concurrent read-modify-write could revert a revocation."""
        if not self._store.put(LOCKS, key_id, b"", seconds=HELD, new=True):
            raise DependencyUnavailable(f"the API key {key_id} is being changed by another process; try again")
        try:
            yield
        finally:
            # If the store fails now, the lock expires by itself.
            with suppress(DependencyUnavailable):
                self._store.delete(LOCKS, key_id)


def _named(record: KeyRecord, key_id: str) -> KeyRecord:
    if record.id != key_id:
        raise _damaged(f"{key_id} has the record of {record.id}")
    return record


def _damaged(fault: object) -> DependencyUnavailable:
    return DependencyUnavailable(f"the API keys in the store are damaged: {fault}", headers=_RETRY_AFTER)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _damaged(error) from None
