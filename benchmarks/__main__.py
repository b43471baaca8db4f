"""Run the benchmarks and print their tables: ``python -m benchmarks``, or with the names of some tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, product
from pathlib import Path

from . import (
    anomalies,
    audit,
    authentication,
    guard,
    holding,
    imports,
    inputs,
    limits,
    memory,
    metrics,
    observability,
    plans,
    rejections,
    servers,
    workers,
)
from .apps import contenders
from .bodies import LONG, SHORT, Sent, as_json, numbers
from .timing import measure, verdict

SHAPES = ((1, 4), (100, 20), (1000, 100))
# The maximum ratio of the app with an API key to the bare app, by number of rows and digits.
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
    """Measure whole requests to each app, in one process."""
    yield f"{'batch':>20}  {'app':<28}{'CPU us':>10}{'over bare':>12}{'of bare':>10}  target"
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
    "apps": ("The same request by app, in one process", apps),
    "servers": (
        "Processor time per request with the server (target: 0.5 of the peer from 100x20 on, 1.0 with everything on)",
        servers.report,
    ),
    "workers": ("Processor time per request by worker class, four persistent connections", workers.report),
    "holding": (
        "Latency of other requests (target: 2 s with slow clients, 1 s with a computing view)",
        holding.report,
    ),
    "plans": ("Cost of a plan's limits per request, counted in memory", plans.report),
    "formats": ("One schema, every format (target: npy 1000x100 at most 0.1 of bare JSON)", inputs.formats),
    "guard": ("The input guard alone (target for 1x4: at most 60 calls, and 0.2 of the bare app)", guard.report),
    "refusals": (
        "Rejected bodies (target: at most 1.5 times an accepted body of the same size, loaded by the schema)",
        inputs.rejections,
    ),
    "memory": ("Memory for 20 MB of JSON (target: at most 6 times the body)", memory.report),
    "imports": ("Processor time of imports (target: at most 1.3 of the imports of a model app)", imports.report),
    "audit": ("The audit log (target: at most 12 us per record)", audit.report),
    "metrics": (
        "Metrics of a prediction with four limits (target: 8 us in one process, 15 us in a shared directory)",
        metrics.report,
    ),
    "observability": (
        "Observability (target: 8 us per line, 16 us through logging; everything on: 2.9 of the bare app, 1,000 calls)",
        observability.report,
    ),
    "limits": (
        "Charging two windows, a quota and a lease (target: 8 us in memory, 120 us in a Valkey client)",
        limits.report,
    ),
    "anomalies": (
        "Anomaly detection (target: at most 15 us per request, and one false alarm in 1,000 client-days)",
        anomalies.report,
    ),
    "authentication": ("Authentication alone", authentication.report),
    "rejections": (
        "Rejected credentials, with and without a block (target: the reasons of one method within 5 %)",
        rejections.report,
    ),
}
# Groups of tables, by name.
LOTS: Mapping[str, tuple[str, ...]] = {"inputs": ("formats", "guard", "refusals", "memory")}


def main(names: list[str]) -> int:
    """Print the tables with these names, or all tables."""
    if unknown := set(names) - {*TABLES, *LOTS}:
        print(f"unknown table {min(unknown)!r}; choose from {', '.join([*TABLES, *LOTS])}", file=sys.stderr)
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
