"""Counts distinct values in a time window, in bounded memory."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import ClassVar


def digest(value: str) -> int:
    """Return a 63-bit digest of a string, never 0 and the same in every process."""
    raw = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8, person=b"anomalies").digest()
    return int.from_bytes(raw, "big") >> 1 or 1


class Distinct:
    """The digests of the distinct values in the current window.

    :param window: the length of the window in seconds.
    :param most: the maximum number of values in a window; further ones are not counted.
    """

    __slots__ = ("_most", "_seen", "_window", "number")
    constants: ClassVar[tuple[str, ...]] = ("_most", "_window")

    def __init__(self, window: int, most: int) -> None:
        self._window = window
        self._most = most
        self.number = -1
        """The number of the window."""
        self._seen: array[int] = array("Q")

    def add(self, time: float, value: int) -> bool:
        """Add a digest; return True if it is new in this window."""
        number = int(time // self._window)
        # Requests that other workers served a moment ago count in the current window.
        if number > self.number or number < self.number - 1:
            self.number, self._seen = number, array("Q")
        seen = self._seen
        if value in seen or len(seen) >= self._most:
            return False
        seen.append(value)
        return True

    def clear(self) -> None:
        """Empty the window."""
        self._seen = array("Q")

    def count(self, time: float) -> int:
        """Return the number of values in the window at a time."""
        return len(self._seen) if int(time // self._window) <= self.number else 0

    def __len__(self) -> int:
        return len(self._seen)
