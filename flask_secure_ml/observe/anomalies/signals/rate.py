"""More requests in an hour than usual."""

from __future__ import annotations

from typing import ClassVar

from ..history import History
from ..observation import Observation

MINIMUM = 100
_SERVER_ERRORS = 500


class Rate:
    """Requests of a clock hour against the subject's own :class:`~..history.History`, at least 100.

    Requests that ended with 5xx are not counted: clients repeat them in an outage.
    """

    __slots__ = ("_history",)
    name: ClassVar[str] = "rate"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._history = History(MINIMUM)

    def observe(self, seen: Observation) -> str | None:
        """Count the request."""
        history = self._history
        if seen.status >= _SERVER_ERRORS or not history.add(seen.time, 1):
            return None
        return f"{history.times} its usual requests in an hour ({history.total}, usually up to {history.usual:.0f})"
