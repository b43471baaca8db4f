"""Cost of limits per request, counted in memory: none, two windows, or four limits including a quota in rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from .apps import FOUR_LIMITS, Contender, api_key, bare, secured, signing_key
from .bodies import Sent, as_json, numbers
from .timing import measure

SHAPES = ((1, 4), (100, 20))


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table."""
    signing_key(folder)
    yield f"{'batch':>10}  {'limits':<44}{'CPU us':>10}{'more':>8}"
    for rows, columns in SHAPES:
        print(f"plans {rows}x{columns} ...", end="\r", file=sys.stderr)
        found = [bare(), *_limited(columns, folder)]
        times = measure(found, Sent("JSON", as_json(numbers(rows, columns))))
        for place, app in enumerate(found[1:], 1):
            more = times.microseconds(place) - times.microseconds(1)
            yield (
                f"{'' if place > 1 else f'{rows}x{columns}':>10}  {app.name:<44}"
                f"{times.microseconds(place):>10,.0f}{more:>+8,.1f}"
            )


def _limited(columns: int, folder: Path) -> Iterator[Contender]:
    none = secured(columns, folder, SECURE_ML_PLANS={"default": {}})
    two = secured(columns, folder)
    four = secured(columns, folder, cost="instances", SECURE_ML_PLANS=FOUR_LIMITS)
    yield Contender("none", none, api_key(none))
    yield Contender("two windows", two, api_key(two))
    yield Contender("two windows, a quota in rows, in flight", four, api_key(four))
