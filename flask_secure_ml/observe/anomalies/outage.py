"""Detects an outage of the service, in which many principals get 5xx and retry."""

from __future__ import annotations

from .observation import Observation

WINDOW = 300
LASTING = 3_600
"""Seconds after the last window of an outage in which retries are expected."""

FEWEST = 3
SHARE = 0.2
ALLOWANCE = 5.0
"""Factor on the limits of amounts for subjects that failed in an outage."""

_MOST = 256
_SERVER_ERRORS = 500


class Outage:
    """Tracks whether at least 3 principals, and a fifth of the active ones, got 5xx within the same five minutes.

    One principal alone cannot cause it.
    """

    def __init__(self) -> None:
        self._window = -1
        self._active: set[str] = set()
        self._failed: set[str] = set()
        self.until = 0.0
        """The time until which retries after the last outage are expected."""

    def add(self, seen: Observation) -> bool:
        """Add a request of a principal; return True if it got a 5xx during an outage."""
        window = int(seen.time // WINDOW)
        if window != self._window:
            self._window, self._active, self._failed = window, set(), set()
        # For a busy service, the first ones of a window are enough.
        if len(self._active) < _MOST:
            self._active.add(seen.principal)
        if seen.status < _SERVER_ERRORS:
            return False
        if len(self._failed) < _MOST:
            self._failed.add(seen.principal)
        if len(self._failed) >= max(FEWEST, SHARE * len(self._active)):
            self.until = seen.time + LASTING
        return seen.time < self.until
