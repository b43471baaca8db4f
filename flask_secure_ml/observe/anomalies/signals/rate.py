"""Detects more requests in ten minutes than usual."""

from __future__ import annotations

from ..observation import Observation
from .amount import Amount

_SERVER_ERRORS = 500


class Rate(Amount):
    """Requests in ten minutes compared with the subject's :class:`~..history.History`, at least 100.

    Requests that got a 5xx are not counted: clients retry them in an outage.
    """

    __slots__ = ()
    name = "rate"
    unit = "requests"
    minimum = 100

    def amount(self, seen: Observation) -> int:
        """Return the number of requests, or 0 for a 5xx."""
        return seen.count if seen.status < _SERVER_ERRORS else 0
