"""More rows in an hour than usual: bulk extraction."""

from __future__ import annotations

from typing import ClassVar

from ..history import History
from ..observation import Observation

MINIMUM = 1_000


class Rows:
    """Rows charged in a clock hour against the subject's own :class:`~..history.History`, at least 1,000."""

    __slots__ = ("_history",)
    name: ClassVar[str] = "rows"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._history = History(MINIMUM)

    def observe(self, seen: Observation) -> str | None:
        """Count the rows of the request."""
        history = self._history
        if not seen.rows or not history.add(seen.time, seen.rows):
            return None
        return f"{history.times} its usual rows in an hour ({history.total}, usually up to {history.usual:.0f})"
