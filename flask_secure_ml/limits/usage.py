"""What callers used, for a bill: counted with the charge of each request, so that neither can be lost alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import NamedTuple

DAY = 86_400

MAX_FIELDS = 1000
"""How many pairs of a plan and a route one caller has in a day; what is beyond is counted as :data:`OTHERS`."""

OTHERS = "(others)"

UNKNOWN_ROUTE = "(none)"
"""The route of a URL that has none."""

_EPOCH = date(1970, 1, 1).toordinal()


class Usage(NamedTuple):
    """What one request used, or by how much that is corrected.

    :param day: when the request began, in days since the epoch (UTC). A correction belongs to the same day.
    :param plan: the name of the caller's plan.
    :param route: the endpoint.
    :param requests: 1; 0 for what the same request is charged later.
    :param rows: what was reserved, in the unit of ``cost=``.
    :param cost: what it costs in the end: what was reserved, less what was given back.
    """

    day: int
    plan: str
    route: str
    requests: int
    rows: int
    cost: int

    def owed(self, paid: Iterable[Usage]) -> Usage | None:
        """Return what is left after earlier charges of the same request; None for nothing."""
        paid = tuple(paid)
        requests = max(0, self.requests - sum(each.requests for each in paid))
        rows = max(0, self.rows - sum(each.rows for each in paid))
        return self._replace(requests=requests, rows=rows, cost=rows) if requests or rows else None

    def undone(self) -> Usage:
        """Return the correction that takes all of it back."""
        return self._replace(requests=-self.requests, rows=-self.rows, cost=-self.cost)

    def corrected(self, cost: int) -> Usage | None:
        """Return the correction of the cost by a difference; None for none."""
        return self._replace(requests=0, rows=0, cost=cost) if cost else None


class Used(NamedTuple):
    """What a caller used in one day, under one plan and on one route."""

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
    """Return the number of a date."""
    return day.toordinal() - _EPOCH


def day_name(day: int) -> str:
    """Return the date of a day as in ISO 8601."""
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()
