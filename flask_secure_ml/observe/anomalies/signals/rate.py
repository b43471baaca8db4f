"""More requests in an hour than usual."""

from __future__ import annotations

from ..observation import Observation
from .hourly import Hourly

_SERVER_ERRORS = 500


class Rate(Hourly):
    """Requests of a clock hour against the subject's own :class:`~..history.History`, at least 100.

    Requests that ended with 5xx are not counted: clients repeat them in an outage.
    """

    __slots__ = ()
    name = "rate"
    unit = "requests"
    minimum = 100

    def amount(self, seen: Observation) -> int:
        """Return 1, or 0 for a request that failed at the server."""
        return int(seen.status < _SERVER_ERRORS)
