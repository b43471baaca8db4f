"""Counting different values in a window of time, in bounded memory."""

from __future__ import annotations


class Distinct:
    """The different values of the current window, as hashes keyed for each process.

    :param window: its length in seconds.
    :param most: how many values one window holds; further ones are not counted.
    """

    __slots__ = ("_most", "_seen", "_window", "number")

    def __init__(self, window: int, most: int) -> None:
        self._window = window
        self._most = most
        self.number = -1
        """Which window this is."""
        self._seen: set[int] | None = None

    def add(self, time: float, value: object) -> bool:
        """Add a value; return True if it is new in this window."""
        number = int(time // self._window)
        if number != self.number:
            self.number, self._seen = number, None
        if self._seen is None:
            self._seen = set()
        before = len(self._seen)
        if before < self._most:
            self._seen.add(hash(value))
        return len(self._seen) > before

    def __len__(self) -> int:
        return 0 if self._seen is None else len(self._seen)
