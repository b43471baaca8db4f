"""More rows in an hour than usual: bulk extraction."""

from __future__ import annotations

from ..observation import Observation
from .hourly import Hourly


class Rows(Hourly):
    """Rows charged in a clock hour against the subject's own :class:`~..history.History`, at least 1,000."""

    __slots__ = ()
    name = "rows"
    unit = "rows"
    minimum = 1_000

    def amount(self, seen: Observation) -> int:
        """Return the rows that were charged."""
        return seen.rows
