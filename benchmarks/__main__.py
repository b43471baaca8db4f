"""Print the tables, each measured in one run: ``python -m benchmarks``, or with the names of some of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, product
from pathlib import Path

from . import (
    audit,
    authentication,
    guard,
    holding,
    imports,
    inputs,
    limits,
    memory,
    plans,
    rejections,
    servers,
    workers,
)
from .apps import contenders
from .bodies import LONG, SHORT, Sent, as_json, numbers
from .timing import measure, verdict

SHAPES = ((1, 4), (100, 20), (1000, 100))
# What is asked of the app with an API key, for each number of rows.
MOST_OF_BARE = {
    (1, SHORT): 2.2,
    (1, LONG): 2.2,
    (100, SHORT): 0.75,
    (100, LONG): 0.45,
    (1000, SHORT): 0.22,
    (1000, LONG): 0.12,
}
WITH_API_KEY = 1


def apps(folder: Path) -> Iterator[str]:
    """Measure the whole way through each app, in one process."""
    yield f"{'batch':>20}  {'app':<28}{'CPU us':>10}{'over bare':>12}{'of bare':>10}  asked"
    for (rows, columns), digits in product(SHAPES, (SHORT, LONG)):
        batch = f"{rows}x{columns}, {digits} digits"
        print(f"apps {batch} ...", end="\r", file=sys.stderr)
        found = contenders(columns, folder)
        times = measure(found, Sent("JSON", as_json(numbers(rows, columns, digits))))
        for place, app in enumerate(found):
            most = MOST_OF_BARE.get((rows, digits)) if place == WITH_API_KEY else None
            ratio, over = times.ratio(place), times.microseconds(place) - times.microseconds(0)
            yield (
                f"{'' if place else batch:>20}  {app.name:<28}{times.microseconds(place):>10,.0f}"
                f"{over:>+12,.0f}{ratio:>10.2f}  {verdict(ratio, most)}"
            ).rstrip()


TABLES: Mapping[str, tuple[str, Callable[[Path], Iterator[str]]]] = {
    "apps": ("The same job by app, in one process", apps),
    "servers": (
        "Processor time of a request, server included (asked: at most 0.5 of the peer from 100x20 on)",
        servers.report,
    ),
    "workers": ("Processor time of a request by class of worker, four connections that are kept", workers.report),
    "holding": (
        "Who else is served meanwhile (asked: within 2 s beside slow clients, 1 s beside a view)",
        holding.report,
    ),
    "plans": ("What the limits of a plan cost a request, counted in memory", plans.report),
    "formats": ("One schema, every format (asked: npy 1000x100 at most 0.1 of bare JSON)", inputs.formats),
    "guard": ("The input guard by itself (asked of 1x4: at most 60 calls, and 0.2 of the bare app)", guard.report),
    "refusals": (
        "Refused bodies (asked: at most 1.5 of what an accepted one of that size costs in the schema)",
        inputs.rejections,
    ),
    "memory": ("Memory for 20 MB of JSON (asked: at most 6 times the body)", memory.report),
    "imports": ("Processor time of imports (asked: at most 1.3 of what a model app imports anyway)", imports.report),
    "audit": ("The audit log (asked: a record at most 12 us)", audit.report),
    "limits": (
        "Charging two windows, a quota and a lease (asked: 8 us in memory, 120 us of a client of Valkey)",
        limits.report,
    ),
    "authentication": ("Authentication by itself", authentication.report),
    "rejections": (
        "Rejected credentials, outside and within a block (asked: the reasons of one method within 5 %)",
        rejections.report,
    ),
}
# Tables that belong together, by the name of the lot.
LOTS: Mapping[str, tuple[str, ...]] = {"inputs": ("formats", "guard", "refusals", "memory")}


def main(names: list[str]) -> int:
    """Print the tables of these names, or all."""
    if unknown := set(names) - {*TABLES, *LOTS}:
        print(f"there is no table {min(unknown)!r}; there are: {', '.join([*TABLES, *LOTS])}", file=sys.stderr)
        return 2
    for name in chain.from_iterable(LOTS.get(each, (each,)) for each in names or TABLES):
        title, table = TABLES[name]
        print(f"\n{title}\n")
        with tempfile.TemporaryDirectory() as folder:
            for line in table(Path(folder)):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
