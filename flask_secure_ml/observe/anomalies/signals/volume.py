"""More bytes in an hour than usual: bulk extraction."""

from __future__ import annotations

from typing import ClassVar

from ..history import History
from ..observation import Observation

MINIMUM = 10_000_000


class Volume:
    """Bytes of bodies, both ways, in a clock hour against the subject's own :class:`~..history.History`.

    At least 10 MB. The size of a streamed response is not known and counts as 0.
    """

    __slots__ = ("_history",)
    name: ClassVar[str] = "bytes"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._history = History(MINIMUM)

    def observe(self, seen: Observation) -> str | None:
        """Count the bytes of the request and its response."""
        history = self._history
        if not seen.size or not history.add(seen.time, seen.size):
            return None
        return f"{history.times} its usual bytes in an hour ({history.total}, usually up to {history.usual:.0f})"
