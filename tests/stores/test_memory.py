"""The store of one process: bounded, and never at the price of forgetting too early."""

from __future__ import annotations

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.stores.memory import MAX_SEEN, MemoryStore
from flask_secure_ml.testing import FakeClock


def test_full_memory_rejects(clock: FakeClock) -> None:
    """DP-13: full memory is 503, and remembered keys are kept; other spaces have separate limits."""
    store = MemoryStore(clock, max_seen=3)
    assert all(store.add("a", str(number), 60) for number in range(3))
    with pytest.raises(DependencyUnavailable) as caught:
        store.add("a", "3", 60)
    assert "SECURE_ML_STORE_URI" in caught.value.reason
    assert ("Retry-After", "1") in caught.value.extra_headers
    assert not store.add("a", "2", 60)
    assert store.add("b", "3", 60)


def test_what_is_over_makes_room(clock: FakeClock) -> None:
    """For any order of keys and any lifetimes."""
    store = MemoryStore(clock, max_seen=3)
    for key, seconds in (("long", 90), ("short", 10), ("middle", 50)):
        store.add("a", key, seconds)
    clock.advance(10)
    assert store.add("a", "new", 60)
    assert [store.add("a", key, 60) for key in ("long", "middle", "new")] == [False] * 3


def test_memory_does_not_grow_with_time(clock: FakeClock) -> None:
    """Expired entries are removed."""
    store = MemoryStore(clock)
    for number in range(1000):
        store.add("a", str(number), 5)
        store.put("a", str(number), b"x", seconds=5)
        clock.advance(1)
    assert len(store._seen["a"].keys) == len(store._seen["a"]._ends) == 5
    assert len(store._spaces["a"].entries) == len(store._spaces["a"]._ends) == 5


def test_bound_is_that_of_the_documentation(clock: FakeClock) -> None:
    """A million keys of each space."""
    assert MemoryStore(clock)._max_seen == MAX_SEEN == 1_000_000
