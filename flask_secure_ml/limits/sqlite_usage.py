"""The usage of callers, in the file of the counts: written in the transaction of the charge."""

from __future__ import annotations

import sqlite3

from .sqlite_row import storable
from .usage import DAY, MAX_FIELDS, OTHERS, Usage, Used

TABLE = """
CREATE TABLE IF NOT EXISTS usage (
    day INTEGER, key BLOB, plan TEXT, route TEXT, name TEXT NOT NULL, requests INTEGER NOT NULL, rows INTEGER NOT NULL,
    cost INTEGER NOT NULL, expires REAL NOT NULL, PRIMARY KEY (day, key, plan, route)
) WITHOUT ROWID;
"""
_ADD = """
UPDATE usage SET requests = requests + ?, rows = rows + ?, cost = cost + ?
WHERE day = ? AND key = ? AND plan = ? AND route = ?
"""
_FIELDS = "SELECT count(*) FROM usage WHERE day = ? AND key = ?"
_INSERT = "INSERT INTO usage (requests, rows, cost, day, key, plan, route, name, expires) VALUES (?,?,?,?,?,?,?,?,?)"
_FIRST = "SELECT expires FROM usage ORDER BY day, key, plan, route LIMIT 1"
_SWEEP = """
DELETE FROM usage WHERE expires <= ? AND (day, key, plan, route) IN
(SELECT day, key, plan, route FROM usage ORDER BY day, key, plan, route LIMIT 256)
"""
_PAGE = """
SELECT day, key, plan, route, name, requests, rows, cost FROM usage
WHERE (day, key, plan, route) > (?, ?, ?, ?) AND day <= ? ORDER BY day, key, plan, route LIMIT 1000
"""

Position = tuple[int, bytes, str, str]


def add(connection: sqlite3.Connection, key: bytes, usage: Usage, name: str, expires: float) -> None:
    """Count the usage of a request.

    :param expires: when it may be deleted, on the clock of the file.
    """
    if _added(connection, key, usage):
        return
    plan, route = usage.plan, usage.route
    if connection.execute(_FIELDS, (usage.day, key)).fetchone()[0] >= MAX_FIELDS:
        if correct(connection, key, usage):
            return
        plan = route = OTHERS
    numbers = usage.requests, usage.rows, usage.cost
    connection.execute(_INSERT, (*numbers, usage.day, key, plan, route, storable(name), expires))


def correct(connection: sqlite3.Connection, key: bytes, usage: Usage) -> bool:
    """Correct the counted usage; return False if it no longer exists."""
    return _added(connection, key, usage) or _added(connection, key, usage._replace(plan=OTHERS, route=OTHERS))


def sweep(connection: sqlite3.Connection, now: float) -> None:
    """Delete some of the expired rows, oldest first."""
    first = connection.execute(_FIRST).fetchone()
    if first is not None and first[0] <= now:
        connection.execute(_SWEEP, (now,))


def expiry(now: float, days: int) -> float:
    """Return until when current usage is kept."""
    return now + (days + 1) * DAY


def page(connection: sqlite3.Connection, after: Position, until: int) -> tuple[list[Used], Position | None]:
    """Return a page of usage up to a day, and the position to continue after; None at the end."""
    found = connection.execute(_PAGE, (*after, until)).fetchall()
    used = [Used(name, plan, route, day, *numbers) for day, _, plan, route, name, *numbers in found]
    return used, tuple(found[-1][:4]) if found else None


def _added(connection: sqlite3.Connection, key: bytes, usage: Usage) -> bool:
    day, plan, route, *numbers = usage
    return connection.execute(_ADD, (*numbers, day, key, plan, route)).rowcount > 0
