"""Detection rate, false alarms and cost of the anomaly signals.

``python -m benchmarks.anomalies [CLIENTS]`` prints the tables for this number of clients of each kind. The first table
is for choosing thresholds; the others are for held-out clients with other seeds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.anomalies import Anomalies, Penalties
from flask_secure_ml.principal import Principal, SystemClock
from flask_secure_ml.stores import open_store

from .traffic import ATTACKS, MONDAY, Outcome, World, in_time, run

CLIENTS = 10


def table(title: str, outcome: Outcome) -> Iterator[str]:
    """Yield the lines of a table."""
    rate, signals = (1000 * len(each) / outcome.client_days for each in (outcome.false_alarms, outcome.signals))
    yield (
        f"{title}: {rate:.2f} false alarms per 1,000 client-days, of {signals:.2f} false signals "
        f"({outcome.client_days} client-days)"
    )
    by_signal = Counter((kind, anomaly.signal) for kind, anomaly in outcome.false_alarms)
    yield "  by kind and signal: " + (
        ", ".join(f"{kind} {name} {n}" for (kind, name), n in by_signal.most_common()) or "-"
    )
    yield f"  {'attack':<12}{'':<36}{'found':>9}{'in time':>9}{'median delay':>14}{'longest':>10}  first signal"
    for name, delays in outcome.delays.items():
        found = [each for each in delays if each is not None]
        seconds = [each[0] for each in found]
        middle = f"{statistics.median(seconds) / 60:.1f} min" if found else "-"
        longest = f"{max(seconds) / 60:.0f} min" if found else "-"
        signals_of = ", ".join(f"{signal} {n}" for signal, n in Counter(each[2] for each in found).most_common())
        soon = f"{sum(map(in_time, delays))}/{len(delays)}"
        counts = f"{f'{len(found)}/{len(delays)}':>9}{soon:>9}{middle:>14}{longest:>10}"
        yield f"  {name:<12}{ATTACKS[name][0]:<36}{counts}  {signals_of}"


def cost(folder: Path, uri: str, callers: int, requests: int = 100_000) -> str:
    """Return a line with the processor time per request, without and with the exchange thread."""
    clock = SystemClock()
    store = None if uri == "memory:" else open_store(f"{uri}{folder}/{callers}.db", None, clock)
    recorder = Anomalies({}, lambda _signal: None, lambda _anomaly: None, Penalties(clock, store), clock, store)
    exchanges = []
    for number in range(callers):
        exchange = Exchange("id", MONDAY, 0.0, "192.0.2.1", f"192.0.2.{number % 200}", secure=True)
        exchange.principal = Principal("api_key", str(number))
        exchange.endpoint, exchange.status, exchange.rows, exchange.received_bytes = "predict", 200, 5, 900
        exchanges.append(exchange)
    begin = time.thread_time(), time.process_time()
    for place in range(requests):
        exchange = exchanges[place % callers]
        exchange.time = MONDAY + 0.5 * place
        recorder.record(exchange)
    thread, process = (
        1e6 * (now - then) / requests
        for now, then in zip((time.thread_time(), time.process_time()), begin, strict=True)
    )
    kind = "shared" if store is not None else "memory"
    return f"{kind}, {callers:,} principals: {thread:.1f} us per request, {process:.1f} us with the exchange thread"


def report(folder: Path, clients: int = CLIENTS) -> Iterator[str]:
    """Yield the lines of all tables."""
    for uri in ("memory:", "sqlite:"):
        for callers in (1, 20, 1_000):
            yield cost(folder, uri, callers)
    yield from table("Clients for choosing thresholds", run(clients, "a", World()))
    yield from table("Held out", run(clients, "c", World()))
    yield from table("Held out, noise doubled", run(clients, "c", World(noise=1.0)))
    yield from table("Held out, attacks at a tenth", run(clients, "c", World(strength=0.1)))


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        for line in report(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
