"""The bounded caches of the throttle in one process: blocks, and the networks from which identities are used."""

from __future__ import annotations

import math
from contextlib import suppress
from threading import Lock
from typing import TypeVar

from ..errors import DependencyUnavailable
from ..principal import Clock
from ..refresh import PerProcess, process_lock
from ..stores import SharedStore
from .engine import key_for

HOUR, DAY = 3600, 86_400

MAX_KNOWN = 10_000
"""The maximum number of cached blocks of each kind, and of cached pairs of a network and an identity."""

T = TypeVar("T")
_PAIRS = "guessable-pairs"
_NEVER = (-math.inf, -math.inf)


class Block:
    """A block, and the turns to make one network request per second in spite of it.

    :param seconds: how long it lasts from now.
    :param lock: prevents two threads from taking the same turn.
    """

    __slots__ = ("_began", "_clock", "_ends", "_lock", "_turn")

    def __init__(self, clock: Clock, seconds: int, lock: PerProcess[Lock]) -> None:
        self._clock = clock
        self._lock = lock
        self._began = clock.monotonic()
        self._ends = self._began + seconds
        self._turn = -math.inf

    @property
    def left(self) -> int:
        """Whole seconds until it ends; 0 if it has ended, or the clock was set back."""
        now = self._clock.monotonic()
        return math.ceil(round(self._ends - now, 3)) if self._began <= now < self._ends else 0

    def take_turn(self) -> bool:
        """Return True to one caller per second, which may make a network request."""
        with self._lock.get():
            now = self._clock.monotonic()
            free = not self._turn <= now < self._turn + 1
            if free:
                self._turn = now
            return free


class Blocks:
    """The blocks that this process caches.

    The oldest is evicted first, and can be read from the storage again.

    :param clock: measures how long they last.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = process_lock()
        self._known: dict[str, Block] = {}

    def get(self, name: str) -> Block | None:
        """Return a block that has not ended, or None."""
        known = self._known.get(name)
        return known if known is not None and known.left else None

    def put(self, name: str, seconds: int) -> Block | None:
        """Cache and return a block; None if ``seconds`` is 0."""
        if not seconds:
            return None
        with self._lock.get():
            # If several threads find the same block, keep the first, because its turn may be taken.
            known = self.get(name)
            if known is None:
                _insert(self._known, name, known := Block(self._clock, seconds, self._lock))
            return known


class Pairs:
    """The networks from which each guessable identity was used within the last day.

    :param store: stores them for all processes that share it.
    :param clock: measures how long they are cached.
    """

    def __init__(self, store: SharedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = process_lock()
        # When a pair was stored, and until when it is cached.
        self._known: dict[str, tuple[float, float]] = {}

    def knows(self, network: str, identity: str) -> bool:
        """Return True if this process has cached the pair."""
        return self._clock.monotonic() < self._known.get(_pair(network, identity), _NEVER)[1]

    def has(self, network: str, identity: str, block: Block) -> bool:
        """Return True if the pair is cached or in the store.

        The store is queried at most once per second and block.
        """
        if not identity:
            return False
        if self.knows(network, identity):
            return True
        pair = _pair(network, identity)
        if not block.take_turn() or self._stored(pair) is None:
            return False
        self._keep(pair, -math.inf, HOUR)
        return True

    def put(self, network: str, identity: str) -> None:
        """Store a pair, at most once an hour."""
        pair, now = _pair(network, identity), self._clock.monotonic()
        if 0 <= now - self._known.get(pair, _NEVER)[0] < HOUR:
            return
        with suppress(DependencyUnavailable):
            self._store.put(_PAIRS, pair, b"1", seconds=DAY + HOUR)
        self._keep(pair, now, DAY + HOUR)

    def drop(self, network: str, identity: str) -> None:
        """Remove a pair."""
        pair = _pair(network, identity)
        with self._lock.get():
            self._known.pop(pair, None)
        with suppress(DependencyUnavailable):
            self._store.delete(_PAIRS, pair)

    def _stored(self, pair: str) -> bytes | None:
        try:
            return self._store.get(_PAIRS, pair)
        except DependencyUnavailable:
            return None

    def _keep(self, pair: str, stored: float, seconds: int) -> None:
        with self._lock.get():
            _insert(self._known, pair, (stored, self._clock.monotonic() + seconds))


def _insert(known: dict[str, T], name: str, value: T) -> None:
    known.pop(name, None)
    while len(known) >= MAX_KNOWN:
        del known[next(iter(known))]
    known[name] = value


def _pair(network: str, identity: str) -> str:
    return key_for("pair", network, identity)
