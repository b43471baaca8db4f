"""Formats many timestamps in UTC; the date is formatted once per second."""

from __future__ import annotations

from datetime import UTC, datetime

_MICROSECONDS = 1_000_000
_NEVER = -(2**62)


class Instants:
    """Formats timestamps that are close to each other; thread-safe."""

    def __init__(self) -> None:
        # One object, so that threads read a consistent pair of second and string.
        self._second = (_NEVER, "")

    def split(self, seconds: float) -> tuple[str, int]:
        """Return the date with the time to the second, such as ``2026-03-01T12:00:00``, and the microseconds.

        :param seconds: since the epoch.
        """
        second, text = self._second
        microseconds = round((seconds - second) * _MICROSECONDS)
        if not 0 <= microseconds < _MICROSECONDS:
            instant = datetime.fromtimestamp(seconds, UTC)
            second, microseconds = int(instant.replace(microsecond=0).timestamp()), instant.microsecond
            text = instant.isoformat(timespec="seconds").removesuffix("+00:00")
            self._second = (second, text)
        return text, microseconds
