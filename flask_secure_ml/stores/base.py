"""What every store of shared state can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..errors import DependencyUnavailable

PAGE = 250
"""The most records that one call of ``changes`` returns: each is short, on a busy machine too."""

KEPT_CHANGES = 10_000
"""The changes of a space that a store keeps; a reader that missed more reads everything again."""


class Record(NamedTuple):
    """A record as ``changes`` returns it.

    :param seconds: the time until it expires; None for one that does not.
    """

    value: bytes
    seconds: float | None = None


class Cursor(NamedTuple):
    """How far a reader has come.

    :param version: the last change that it knows all records of.
    :param after: in the middle of reading all records, the key of the last one; None when it has them all.
    """

    version: str
    after: str | None = None


class Changes(NamedTuple):
    """What ``changes`` returns.

    :param records: by key; None for one that was deleted or has expired.
    :param cursor: where to go on.
    :param more: whether there is more to read at once.
    :param whole: whether this is the beginning of all records: what the reader knew before is void.
    """

    records: Mapping[str, Record | None]
    cursor: Cursor
    more: bool
    whole: bool


class SharedStore(Protocol):
    """Small records by space and key. A space is one use of the store, such as ``revocations``.

    Every method raises :class:`~flask_secure_ml.errors.DependencyUnavailable` when the store cannot be reached; what
    that means is for the caller to say.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes see the same state."""

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Remember a key for a time; False when it is remembered already. Atomic, also between machines."""

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; False, and nothing stored, when ``new`` is wanted and the key is taken.

        :param seconds: how long it is kept; None for ever.
        """

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""

    def delete(self, space: str, key: str) -> bool:
        """Forget a record; False when there is none."""

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, in the order of their keys."""

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return what was put and deleted since a cursor, or the first of all records.

        Each change has a number and a random tag, which together are its version. A store whose history does not have
        the version of the cursor (it lost a change, was restored or replaced, or no longer keeps the changes since)
        returns all records. A record that expires is no change.

        :param cursor: of the last call; None for all records.
        :param timeout: seconds for the whole call, whatever failed a moment ago; None for the store's own limits.
        """


def all_items(store: SharedStore, space: str) -> dict[str, bytes]:
    """Return every record of a space, in the order of their keys, page by page."""
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


def unavailable(reason: str) -> DependencyUnavailable:
    """Return the error of a store that failed; most faults of a store pass quickly, so the client may soon retry."""
    return DependencyUnavailable(reason, headers=[("Retry-After", "1")])
