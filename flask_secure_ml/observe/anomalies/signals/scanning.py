"""Many URLs that do not exist or are not allowed."""

from __future__ import annotations

from typing import ClassVar

from ..distinct import Distinct
from ..history import HOUR
from ..observation import Observation

FEWEST = 10
_ERRORS = 400
_SERVER_ERRORS = 500
_NOT_ALLOWED = frozenset({403, 405})


class Scanning:
    """Different unknown paths, and different endpoints that rejected with 403 or 405, in an hour: 10 or more.

    A 404 of an existing endpoint is not counted: clients look up what may be missing.
    """

    __slots__ = ("_targets",)
    name: ClassVar[str] = "scanning"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._targets = Distinct(HOUR, FEWEST)

    def observe(self, seen: Observation) -> str | None:
        """Count the URL if it leads nowhere."""
        status = seen.status
        if status < _ERRORS or status >= _SERVER_ERRORS:
            return None
        if seen.endpoint is not None and status not in _NOT_ALLOWED:
            return None
        if not self._targets.add(seen.time, seen.endpoint or seen.path) or len(self._targets) != FEWEST:
            return None
        return f"{FEWEST} different URLs in an hour that do not exist or are not allowed"
