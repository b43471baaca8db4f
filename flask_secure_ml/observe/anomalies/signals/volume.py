"""More bytes in an hour than usual: bulk extraction."""

from __future__ import annotations

from ..observation import Observation
from .hourly import Hourly


class Volume(Hourly):
    """Bytes of bodies, both ways, in a clock hour against the subject's own :class:`~..history.History`.

    At least 10 MB. The size of a streamed response is not known and counts as 0.
    """

    __slots__ = ()
    name = "bytes"
    unit = "bytes"
    minimum = 10_000_000

    def amount(self, seen: Observation) -> int:
        """Return the bytes of both bodies."""
        return seen.size
