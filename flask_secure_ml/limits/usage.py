"""The usage of callers, for billing: counted in the same transaction as the charge of each request."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import NamedTuple

DAY = 86_400

MAX_FIELDS = 1000
"""The maximum pairs of a plan and a route of one caller in a day; usage beyond is counted as :data:`OTHERS`."""

OTHERS = "(others)"

UNKNOWN_ROUTE = "(none)"
"""The route of URLs that match none."""

_EPOCH = date(1970, 1, 1).toordinal()


class Usage(NamedTuple):
    """The usage of one request, or a correction of it.

    :param day: when the request began, in days since the epoch (UTC). A correction belongs to the same day.
    :param plan: the name of the caller's plan.
    :param route: the endpoint.
    :param requests: 1; 0 for a later charge of the same request.
    :param rows: the reserved rows, in the unit of ``cost=``.
    :param cost: the final price: the reserved rows, less refunds.
    """

    day: int
    plan: str
    route: str
    requests: int
    rows: int
    cost: int

    def owed(self, paid: Iterable[Usage]) -> Usage | None:
        """Return the usage without that of earlier charges of the same request; None if none is left."""
        paid = tuple(paid)
        requests = max(0, self.requests - sum(each.requests for each in paid))
        rows = max(0, self.rows - sum(each.rows for each in paid))
        return self._replace(requests=requests, rows=rows, cost=rows) if requests or rows else None

    def undone(self) -> Usage:
        """Return the correction that undoes this usage."""
        return self._replace(requests=-self.requests, rows=-self.rows, cost=-self.cost)

    def corrected(self, cost: int) -> Usage | None:
        """Return the correction for a change of the cost; None if it is 0."""
        return self._replace(requests=0, rows=0, cost=cost) if cost else None


class Used(NamedTuple):
    """The usage of a caller in one day, under one plan and on one route."""

    client: str
    plan: str
    route: str
    day: int
    requests: int
    rows: int
    cost: int


def day_of(time: float) -> int:
    """Return the day of a time in seconds since the epoch (UTC)."""
    return int(time // DAY)


def day_number(day: date) -> int:
    """Return the number of a date, in days since the epoch."""
    return day.toordinal() - _EPOCH


def day_name(day: int) -> str:
    """Return the date of a day in ISO 8601."""
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()
