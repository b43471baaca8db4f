"""A mapping with bounded memory and constant-time operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

SMALLEST = 1024
"""The number of entries below which none are swept."""

_TRIES = 8
_SHARED = 4096


class Bounded(Generic[V]):
    """A mapping that drops expired values incrementally, without a thread.

    There are two generations: a value that is written moves to the young one, where callers may replace it directly.
    Each new key takes one value out of the old generation, and drops it if it has expired, or if the mapping is full
    and it is not protected. So evicted values were not written recently. If no value can be evicted, new keys share a
    fixed number of values.

    :param maximum: the maximum number of values.
    :param ends: returns when a value expires, and until when it is protected.
    """

    def __init__(self, maximum: int, ends: Callable[[V], tuple[float, float]]) -> None:
        self._maximum = maximum
        self._ends = ends
        self.young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}
        self._shared: dict[int, V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old) + len(self._shared)

    def get(self, key: bytes) -> V | None:
        """Return a value, or None."""
        found = self.young.get(key)
        if found is None and self._old:
            found = self._old.get(key)
        if found is None and self._shared:
            found = self._shared.get(hash(key) % _SHARED)
        return found

    def put(self, key: bytes, value: V, now: float) -> None:
        """Write a value."""
        if key in self.young or self._old.pop(key, None) is not None or self._has_room(now):
            self.young[key] = value
        else:
            self._shared[hash(key) % _SHARED] = value

    def discard_all(self, prefix: bytes) -> bool:
        """Remove the values of all keys with a prefix; return False if there are none."""
        found = [key for part in (self.young, self._old) for key in part if key.startswith(prefix)]
        for key in found:
            self.young.pop(key, None)
            self._old.pop(key, None)
        return bool(found)

    def _has_room(self, now: float) -> bool:
        if len(self.young) + len(self._old) < self._maximum:
            self._sweep(now, full=False)
            return True
        return any(self._sweep(now, full=True) for _ in range(_TRIES))

    def _sweep(self, now: float, *, full: bool) -> bool:
        """Take one value out of the old generation; return True if it was dropped."""
        if not self._old:
            if len(self.young) < min(SMALLEST, self._maximum):
                return False
            self._old, self.young = self.young, {}
            # Values that were shared while the mapping was full expire too.
            self._shared = {slot: value for slot, value in self._shared.items() if now < self._ends(value)[0]}
        key, value = self._old.popitem()
        ends, protected = self._ends(value)
        if now >= ends or (full and now >= protected):
            return True
        self.young[key] = value
        return False
