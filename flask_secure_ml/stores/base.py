"""What every store of shared state can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..errors import DependencyUnavailable


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

    def version(self, space: str) -> int:
        """Return a number that is another one after every ``put`` and ``delete`` in the space; ``add`` leaves it."""


def unavailable(reason: str) -> DependencyUnavailable:
    """Return the error of a store that failed; most faults of a store pass quickly, so the client may soon retry."""
    return DependencyUnavailable(reason, headers=[("Retry-After", "1")])
