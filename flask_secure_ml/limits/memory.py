"""The limit storage of one process: windows that follow the monotonic clock, whatever happens to the time of day."""

from __future__ import annotations

import heapq
import time
from collections import deque
from math import floor
from typing import NamedTuple

from limits.storage.base import (
    MovingWindowSupport,
    SlidingWindowCounterSupport,
    Storage,
    TimestampedSlidingWindow,
)

from ..principal import Clock
from ..refresh import process_lock


class _Counter(NamedTuple):
    total: int
    expires: float


class _Window:
    """The entries of a moving window, oldest first, each with the instant at which it was acquired."""

    def __init__(self, seconds: float) -> None:
        self.entries: deque[tuple[float, int]] = deque()
        self.count = 0
        self.expires = 0.0
        self._seconds = seconds

    def move_to(self, now: float) -> None:
        while self.entries and self.entries[0][0] < now - self._seconds:
            self.count -= self.entries.popleft()[1]

    def add(self, now: float, amount: int) -> None:
        self.entries.append((now, amount))
        self.count += amount
        self.expires = now + self._seconds


class ProcessStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counts in the memory of this process, in place of the ``MemoryStorage`` of the library.

    That one measures by the time of day: a clock that is set back stretches a window of a minute to a day, and moves a
    sliding window into the past, where nothing was counted. It also counts in two steps, which threads can divide.

    Instants that the interface returns are converted to the time of day, as strategies expect.

    :param clock: measures the windows.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._lock = process_lock()
        self._counters: dict[str, _Counter] = {}
        self._windows: dict[str, _Window] = {}
        self._expiries: list[tuple[float, str]] = []

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: memory does not fail."""
        return ()

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter and return the sum; it starts again ``expiry`` seconds after its first use."""
        with self._lock.get():
            return self._add(key, expiry, amount, self._clock.monotonic())

    def get(self, key: str) -> int:
        """Return a counter; 0 for one that was never used or has expired."""
        with self._lock.get():
            return self._count(key, self._clock.monotonic())

    def get_expiry(self, key: str) -> float:
        """Return when a counter expires, in seconds since the epoch."""
        with self._lock.get():
            counter, now = self._counters.get(key), self._clock.monotonic()
        return time.time() + (0.0 if counter is None else max(0.0, counter.expires - now))

    def check(self) -> bool:
        """Return True: memory does not fail."""
        return True

    def reset(self) -> int:
        """Remove everything and return how many keys there were."""
        with self._lock.get():
            removed = len(self._counters) + len(self._windows)
            for each in (self._counters, self._windows, self._expiries):
                each.clear()
            return removed

    def clear(self, key: str) -> None:
        """Remove the counter and the moving window of a key."""
        with self._lock.get():
            self._counters.pop(key, None)
            self._windows.pop(key, None)

    # --- moving window -----------------------------------------------------------------------------------

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Charge a moving window; return False, with nothing charged, if the amount does not fit."""
        with self._lock.get():
            now = self._clock.monotonic()
            self._evict(now)
            window = self._windows.get(key) or _Window(expiry)
            window.move_to(now)
            if window.count + amount > limit:
                return False
            window.add(now, amount)
            if key not in self._windows:
                self._windows[key] = window
                heapq.heappush(self._expiries, (window.expires, key))
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry was acquired, in seconds since the epoch, and the sum of all entries."""
        with self._lock.get():
            now, window = self._clock.monotonic(), self._windows.get(key) or _Window(expiry)
            window.move_to(now)
            age = now - window.entries[0][0] if window.entries else 0.0
            return time.time() - age, window.count

    # --- sliding window ----------------------------------------------------------------------------------

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Charge a sliding window; return False, with nothing charged, if the amount does not fit."""
        with self._lock.get():
            now = self._clock.monotonic()
            previous, previous_ttl, current, _ = self._sliding(key, expiry, now)
            if floor(previous * previous_ttl / expiry + current) + amount > limit:
                return False
            self._add(self.sliding_window_keys(key, expiry, now)[1], 2 * expiry, amount, now)
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the previous window and its seconds left, then those of the current one."""
        with self._lock.get():
            return self._sliding(key, expiry, self._clock.monotonic())

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Remove both windows of a key."""
        for each in self.sliding_window_keys(key, expiry, self._clock.monotonic()):
            self.clear(each)

    def _sliding(self, key: str, expiry: int, now: float) -> tuple[int, float, int, float]:
        previous, current = (self._count(each, now) for each in self.sliding_window_keys(key, expiry, now))
        left = expiry - now % expiry
        return previous, left if previous else 0.0, current, left + expiry

    # --- counters ----------------------------------------------------------------------------------------

    def _count(self, key: str, now: float) -> int:
        counter = self._counters.get(key)
        return counter.total if counter is not None and now < counter.expires else 0

    def _add(self, key: str, expiry: float, amount: int, now: float) -> int:
        self._evict(now)
        counter = self._counters.get(key)
        if counter is None:
            counter = _Counter(0, now + expiry)
            heapq.heappush(self._expiries, (counter.expires, key))
        self._counters[key] = counter = counter._replace(total=counter.total + amount)
        return counter.total

    def _evict(self, now: float) -> None:
        """Remove what has expired, so that the memory of the process does not grow with the callers of the past."""
        while self._expiries and self._expiries[0][0] <= now:
            key = heapq.heappop(self._expiries)[1]
            counter, window = self._counters.get(key), self._windows.get(key)
            if counter is not None and counter.expires <= now:
                del self._counters[key]
            if window is not None:
                self._evict_window(key, window, now)

    def _evict_window(self, key: str, window: _Window, now: float) -> None:
        if window.expires < now:
            del self._windows[key]
        else:
            # It was charged again since.
            heapq.heappush(self._expiries, (max(window.expires, now + 1), key))
