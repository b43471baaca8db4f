"""When API keys were last used: recorded to the minute, so that it costs a request one lookup in a dictionary."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from ...errors import DependencyUnavailable
from ...refresh import process_lock

log: logging.Logger = logging.getLogger(__name__)

RESOLUTION = 60
_BETWEEN_WRITES = 1
Uses = Mapping[str, int]


class Rarely:
    """Accepts one event of a kind each minute.

    The kinds are stored for ever, so they must be few: ids of keys that exist, never what a caller sends.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, kind: str, now: float) -> bool:
        """Return True, and count this event, if a minute has passed since the last one of this kind that was due."""
        # The distance, because a clock that was set back must not suppress a kind for years.
        if abs(now - self._last.get(kind, -math.inf)) < RESOLUTION:
            return False
        self._last[kind] = now
        return True


class LastUse:
    """Collects the uses of keys in this process and writes them, at most once a second and all that wait together.

    :param write: stores instants, in seconds since the epoch, by the id of the key. If it raises BlockingIOError,
        another process is writing, and the uses wait for the next second; after another error they wait a minute. The
        same error is logged once: a key file may be read-only on purpose.
    """

    def __init__(self, write: Callable[[Uses], None]) -> None:
        self._write = write
        self._rarely = Rarely()
        self._lock = process_lock()
        self._waiting: dict[str, int] = {}
        self._asked = -math.inf
        self._pause = 0.0
        self._complaint = ""

    def used(self, key_id: str, when: float) -> None:
        """Record one use; nothing is raised."""
        due = self._rarely.due(key_id, when)
        if due or self._waiting:
            self._record({key_id: int(when)} if due else {}, when)

    def _record(self, use: Uses, when: float) -> None:
        with self._lock.get():
            self._waiting |= use
            if abs(when - self._asked) < self._pause:
                return
            self._asked, self._pause = when, _BETWEEN_WRITES
            waiting, self._waiting = self._waiting, {}
        # Outside the lock: other threads do not wait for a disk or a network.
        self._write_all(waiting)

    def _write_all(self, waiting: dict[str, int]) -> None:
        try:
            self._write(waiting)
            self._complaint = ""
        except BlockingIOError:
            self._keep(waiting, _BETWEEN_WRITES)
        except (OSError, ValueError, DependencyUnavailable) as error:
            self._keep(waiting, RESOLUTION)
            self._complain(error.reason if isinstance(error, DependencyUnavailable) else str(error))

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.warning("the last use of API keys cannot be recorded: %s", complaint)
        self._complaint = complaint

    def _keep(self, waiting: dict[str, int], pause: float) -> None:
        with self._lock.get():
            self._waiting = waiting | self._waiting
            self._pause = pause


def parse_uses(entries: Mapping[str, object]) -> dict[str, int]:
    """Return instants by id that were read from a store, checked.

    :raises ValueError: one is not a whole number of seconds.
    """
    if not all(type(when) is int and when >= 0 for when in entries.values()):
        raise ValueError("an instant is not a whole number of seconds")
    return {key_id: when for key_id, when in entries.items() if isinstance(when, int)}


def merged(known: Uses, new: Uses) -> dict[str, int]:
    """Return the later instant of each key."""
    return {**known, **{key_id: max(when, known.get(key_id, 0)) for key_id, when in new.items()}}
