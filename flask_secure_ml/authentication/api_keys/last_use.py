"""When API keys were last used: noted to the minute, so that it costs a request one look into a dictionary."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from threading import Lock

from ...errors import DependencyUnavailable

log: logging.Logger = logging.getLogger(__name__)

RESOLUTION = 60
_BETWEEN_WRITES = 1
Uses = Mapping[str, int]


class Rarely:
    """Lets one event of a kind pass each minute.

    The kinds are not forgotten, so they must be few: ids of keys that exist, never what a caller sends.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, kind: str, now: float) -> bool:
        """Tell whether a minute has passed since the last event of this kind that was due, and count this one."""
        # The distance, because a clock that was set back must not silence a kind for years.
        if abs(now - self._last.get(kind, -math.inf)) < RESOLUTION:
            return False
        self._last[kind] = now
        return True


class LastUse:
    """Collects the uses of keys in this process and hands them on, at most once a second and all that wait at once.

    :param write: stores instants, in seconds since the epoch, by the id of the key. When it raises BlockingIOError
        somebody else is writing, and the uses wait for the next second; for another error they wait a minute. The
        error is logged once, until something else happens: a key file may be read-only on purpose.
    """

    def __init__(self, write: Callable[[Uses], None]) -> None:
        self._write = write
        self._rarely = Rarely()
        self._lock = Lock()
        self._waiting: dict[str, int] = {}
        self._asked = -math.inf
        self._pause = 0.0
        self._complaint = ""

    def used(self, key_id: str, when: float) -> None:
        """Note one use; nothing is raised."""
        due = self._rarely.due(key_id, when)
        if due or self._waiting:
            self._note({key_id: int(when)} if due else {}, when)

    def _note(self, use: Uses, when: float) -> None:
        with self._lock:
            self._waiting |= use
            if abs(when - self._asked) < self._pause:
                return
            self._asked, self._pause = when, _BETWEEN_WRITES
            waiting, self._waiting = self._waiting, {}
        # Outside the lock: other threads do not stand in line behind a disk or a network.
        self._hand_on(waiting)

    def _hand_on(self, waiting: dict[str, int]) -> None:
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
            log.warning("when API keys were last used cannot be noted: %s", complaint)
        self._complaint = complaint

    def _keep(self, waiting: dict[str, int], pause: float) -> None:
        with self._lock:
            self._waiting = waiting | self._waiting
            self._pause = pause


def parse_uses(entries: Mapping[str, object]) -> dict[str, int]:
    """Check instants by id that were read from a store.

    :raises ValueError: one is not a whole number of seconds.
    """
    if not all(type(when) is int and when >= 0 for when in entries.values()):
        raise ValueError("an instant is not a whole number of seconds")
    return {key_id: when for key_id, when in entries.items() if isinstance(when, int)}


def merged(known: Uses, new: Uses) -> dict[str, int]:
    """Return the later instant of each key."""
    return {**known, **{key_id: max(when, known.get(key_id, 0)) for key_id, when in new.items()}}
