"""Detects bulk extraction: more bytes in ten minutes than usual."""

from __future__ import annotations

from ..observation import Observation
from .amount import Amount


class Volume(Amount):
    """Bytes of request and response bodies in ten minutes compared with the subject's :class:`~..history.History`.

    The minimum is 2 MB. The size of a streamed response is unknown and counts as 0.
    """

    __slots__ = ()
    name = "bytes"
    unit = "bytes"
    minimum = 2_000_000

    def amount(self, seen: Observation) -> int:
        """Return the size of both bodies."""
        return seen.size
