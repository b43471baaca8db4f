"""Detects requests for many URLs that do not exist or are not allowed."""

from __future__ import annotations

import math
from typing import ClassVar

from ..distinct import Distinct
from ..history import HOUR
from ..observation import Observation
from .base import Reading

FEWEST = 10


class Scanning:
    """Distinct unknown paths, and distinct endpoints that rejected with 403 or 405, in an hour: 10 or more.

    URLs that were reported do not count again.
    """

    __slots__ = ("_found", "_targets")
    name: ClassVar[str] = "scanning"
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._targets = Distinct(HOUR, FEWEST)
        self._found = 0

    def observe(self, seen: Observation, share: float) -> bool:
        """Count the URL if it does not exist or is not allowed."""
        if not seen.target or not self._targets.add(seen.time, seen.target):
            return False
        if len(self._targets) < math.ceil(min(share, 1.0) * FEWEST):
            return False
        self._found = len(self._targets)
        self._targets.clear()
        return True

    def explain(self) -> str:
        """Return a description of the number of URLs."""
        return f"{self._found} different URLs in an hour that do not exist or are not allowed"

    def read(self, time: float) -> Reading:
        """Return the number of URLs in this hour."""
        count = self._targets.count(time)
        value = f"different URLs in this hour that do not exist or are not allowed: {count}"
        return Reading(count / FEWEST, value, f"unusual from {FEWEST}")
