"""The protocol of a store of shared state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..errors import DependencyUnavailable

PAGE = 250
"""The maximum number of records in one page of ``changes``, so that each call is short even on a busy machine."""

KEPT_CHANGES = 10_000
"""The number of changes of a space that a store keeps; a reader that missed more reads all records again."""


class Record(NamedTuple):
    """A record from ``changes``.

    :param seconds: the time until it expires; None if it does not expire.
    """

    value: bytes
    seconds: float | None = None


class Cursor(NamedTuple):
    """The position of a reader.

    :param version: the last change that it has read.
    :param after: while it reads all records in pages, the key of the last one; None once it has all.
    """

    version: str
    after: str | None = None


class Changes(NamedTuple):
    """One page of changed records.

    :param records: by key; None for a record that was deleted or has expired.
    :param cursor: where the next page begins.
    :param more: whether there is another page now.
    :param whole: whether this is the first page of all records, so that the reader must discard earlier ones.
    """

    records: Mapping[str, Record | None]
    cursor: Cursor
    more: bool
    whole: bool


class SharedStore(Protocol):
    """Small records by space and key.

    A space is one use of the store, such as ``revocations``. Every method raises
    :class:`~flask_secure_ml.errors.DependencyUnavailable` if the store cannot be reached.
    """

    @property
    def shared(self) -> bool:
        """Whether processes share the state."""

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Store a key for some seconds; return False if it is already stored.

        This is atomic, also across machines.
        """

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; with ``new``, return False without storing it if the key is taken.

        :param seconds: the time until it expires; None for never.
        """

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""

    def delete(self, space: str, key: str) -> bool:
        """Delete a record; return False if there is none."""

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, sorted by key."""

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return the records that changed since a cursor, or the first page of all records.

        Each change has a number and a random tag, which together are its version. If the history of the store lacks the
        version of the cursor (because it lost a change, was restored or replaced, or has deleted old changes), it
        returns all records. An expiry is not a change.

        :param cursor: the cursor of the last call; None for all records.
        :param timeout: seconds for the whole call, even if the store failed a moment ago; None for the store's own
            limits.
        """


def all_items(store: SharedStore, space: str) -> dict[str, bytes]:
    """Return every record of a space, sorted by key, reading in pages."""
    found: dict[str, bytes] = {}
    cursor, more = None, True
    while more:
        changes = store.changes(space, cursor)
        if changes.whole:
            found.clear()
        for key, record in changes.records.items():
            if record is None:
                found.pop(key, None)
            else:
                found[key] = record.value
        cursor, more = changes.cursor, changes.more
    return dict(sorted(found.items()))


class StoreUnavailable(DependencyUnavailable):
    """A store failed and has logged it."""


def unavailable(reason: str) -> StoreUnavailable:
    """Return the error of a store that failed.

    Clients may retry soon, because most failures are short.
    """
    return StoreUnavailable(reason, headers=[("Retry-After", "1")])
