"""What the signals of anomalies find, and how often they are wrong: ``python -m benchmarks.anomalies [CLIENTS]``.

A simulator makes six weeks of ordinary traffic of seven kinds of clients, some of them new, with a retry storm after an
outage, and attacks that begin at 10:00 on a working day of the last week. The thresholds are those of the package. The
first half of the clients is for choosing them; the other tables are of the other half, which has other seeds.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.anomalies import SIGNALS, Anomalies, Anomaly, Detector, Observation, Penalties
from flask_secure_ml.principal import Principal, SystemClock

HOUR, DAY = 3_600, 86_400
MONDAY = 1_767_571_200  # 2026-01-05
DAYS = 42
JUDGED = 14
"""False alarms are counted from this day on, and those of new clients from their first."""

ATTACK_DAY = 37  # a Wednesday
OUTAGE_DAY = 30
ATTACK_HOURS = 8

WORKING = range(8, 18)
WORKING_DAYS = 5
SUNDAY = 6
ACTIVE_DAYS = 0.4
"""The share of days on which an analyst works."""

SEQUENTIAL = 20
INVALID, MISSING, UNKNOWN, ROAMING = 0.02, 0.002, 0.001, 0.1
"""Shares of ordinary requests: an invalid body, a 404 of the app, an unknown URL, another network of a phone."""


@dataclass(frozen=True)
class World:
    """How a run differs: the noise of ordinary traffic and the strength of attacks."""

    noise: float = 0.5
    strength: float = 1.0


class Client:
    """One caller of one kind, its habits drawn from a seed."""

    def __init__(self, kind: str, seed: str, noise: float) -> None:
        self.kind = kind
        self.name = f"api_key:{kind}-{seed}"
        self.chance = random.Random(f"{kind}-{seed}")
        self.noise = noise
        self.begins = self.chance.randrange(JUDGED, DAYS - 7) if kind == "new" else 0
        self.base = self.chance.lognormvariate(3.2, 0.6)
        self.rows = self.chance.lognormvariate(1.5, 0.8)
        self.network = f"198.51.{self.chance.randrange(256)}.{self.chance.randrange(256)}"
        self.hour = self.chance.randrange(24)

    def day(self, number: int) -> list[Observation]:
        """Return the requests of a day, in order."""
        if number < self.begins:
            return []
        found = [each for hour in range(24) for each in self._hour(number, hour)]
        if number == OUTAGE_DAY:
            found += list(self._storm(found))
        found.sort(key=lambda each: each.time)
        return found

    def expected(self, number: int, hour: int) -> float:
        """Return the mean number of requests in an hour."""
        weekend, working = number % 7 >= WORKING_DAYS, hour in WORKING
        match self.kind:
            case "office" | "mobile" | "new":
                return self.base if working and not weekend else 0.2
            case "service":
                return 3 * self.base * (1.0 if working else 0.4) * (0.6 if weekend else 1.0)
            case "batch":
                nightly = 20 * self.base if hour == self.hour else 0.3
                return 3 * nightly if number % 7 == SUNDAY else nightly
            case "poller":
                return 60
            case _:  # an analyst, who tries what-if on some days
                active = random.Random(f"{self.name}-{number}").random() < ACTIVE_DAYS
                return self.base * (8 if hour in (10, 15) else 1) if active and working and not weekend else 0

    def _hour(self, number: int, hour: int) -> Iterator[Observation]:
        chance, begin = self.chance, MONDAY + number * DAY + hour * HOUR
        if self.kind == "poller":
            for minute in range(60):
                yield self.request(begin + 60 * minute + chance.gauss(5, 0.3))
            return
        mean = self.expected(number, hour) * chance.lognormvariate(0, self.noise)
        count = int(mean) + (chance.random() < mean % 1)
        sequential = self.kind == "batch" and count > SEQUENTIAL
        for place in range(count):
            offset = place * 0.8 + chance.random() * 0.3 if sequential else chance.random() * HOUR
            yield self.request(begin + offset)

    def request(self, now: float) -> Observation:
        """Return an ordinary request."""
        chance = self.chance
        spread = 1.5 if self.kind == "analyst" else 0.5
        rows = 1 + int(self.rows * chance.lognormvariate(0, spread))
        network = self.network
        if self.kind == "mobile" and chance.random() < ROAMING:
            network = f"203.0.113.{chance.randrange(3)}"
        status = 422 if chance.random() < INVALID else 404 if chance.random() < MISSING else 200
        endpoint = None if chance.random() < UNKNOWN else "predict"
        return Observation(now, self.name, network, status, endpoint, f"/x{chance.randrange(9)}", "", rows, 800 * rows)

    def _storm(self, ordinary: list[Observation]) -> Iterator[Observation]:
        """Yield what a client repeats from 10:00 to 10:30, when all fails, and afterwards, when limits reject most."""
        begin = MONDAY + OUTAGE_DAY * DAY + 10 * HOUR
        for each in ordinary:
            if begin <= each.time < begin + 1800:
                each.status = 503
                for retry in range(8):
                    yield Observation(each.time + 2.0**retry, each.principal, each.network, 503, "predict")
                for retry in range(5):
                    after = begin + 1800 + self.chance.random() * 1200
                    status = 200 if retry == 0 else 429
                    yield Observation(after, each.principal, each.network, status, "predict", "", "", each.rows)


KINDS = ("office", "service", "batch", "poller", "analyst", "mobile", "new")

Attack = Callable[[Client, float, float, random.Random], Iterator[Observation]]


def _every(
    seconds: float, strength: float, begin: float, chance: random.Random, spread: float = 0.5
) -> Iterator[float]:
    now, end = begin, begin + ATTACK_HOURS * HOUR
    while now < end:
        yield now
        now += seconds / strength * chance.uniform(1 - spread, 1 + spread)


def _scrape(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(0.5, strength, begin, chance):
        yield Observation(now, client.name, client.network, 200, "predict", "", "", 1, 800)


def _bulk_rows(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(60, 1, begin, chance):
        yield Observation(now, client.name, client.network, 200, "predict", "", "", int(1000 * strength), 800)


def _bulk_bytes(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(60, 1, begin, chance):
        yield Observation(now, client.name, client.network, 200, "predict", "", "", 1, int(3_000_000 * strength))


def _scan(_client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for place, now in enumerate(_every(10, strength, begin, chance)):
        yield Observation(now, "", "192.0.2.66", 401, None, f"/guess/{place}")


def _stuff(_client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for place, now in enumerate(_every(10, strength, begin, chance)):
        yield Observation(now, "", "192.0.2.67", 401, "predict", "/predict", f"key{place}")


def _share(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(300, strength, begin, chance):
        yield Observation(now, client.name, f"192.0.2.{chance.randrange(40)}", 200, "predict", "", "", 1, 800)


def _bot(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(20, strength, begin, chance, 0.02):
        yield Observation(now, client.name, client.network, 200, "predict", "", "", 1, 800)


def _fuzz(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(5, strength, begin, chance):
        yield Observation(now, client.name, client.network, 422, "predict", "", "", 0, 300)


ATTACKS: dict[str, tuple[str, Attack]] = {
    "scraping": ("2 requests a second", _scrape),
    "bulk rows": ("1,000 rows a minute", _bulk_rows),
    "bulk bytes": ("3 MB a minute", _bulk_bytes),
    "scanning": ("an unknown URL each 10 s", _scan),
    "stuffing": ("a wrong key each 10 s", _stuff),
    "shared key": ("40 networks, a request each 5 min", _share),
    "bot": ("a request each 20 s, within 2 %", _bot),
    "fuzzing": ("an invalid body each 5 s", _fuzz),
}


@dataclass
class Outcome:
    """What a run found."""

    client_days: int
    false_alarms: list[tuple[str, Anomaly]]
    delays: dict[str, list[tuple[float, str] | None]]


def run(clients: int, half: str, world: World) -> Outcome:
    """Return the outcome of so many clients of each kind."""
    outcome = Outcome(0, [], {name: [] for name in ATTACKS})
    for kind in KINDS:
        for number in range(clients):
            client = Client(kind, f"{half}{number}", world.noise)
            detector = Detector(SIGNALS)
            for day in range(DAYS):
                ordinary = client.day(day)
                if day == ATTACK_DAY and kind != "new":
                    for name in ATTACKS:
                        outcome.delays[name].append(_attacked(name, client, ordinary, detector, world))
                found = [anomaly for each in ordinary for anomaly in detector.observe(each)]
                if day >= JUDGED and day >= client.begins:
                    outcome.client_days += 1
                    outcome.false_alarms += [(kind, anomaly) for anomaly in found]
    return outcome


def _attacked(
    name: str, client: Client, ordinary: list[Observation], detector: Detector, world: World
) -> tuple[float, str] | None:
    """Return when in the attack the first signal fired that does not fire without it, in seconds, and its name."""
    begin = MONDAY + ATTACK_DAY * DAY + 10 * HOUR
    attack = list(ATTACKS[name][1](client, world.strength, begin, random.Random(f"{name}{client.name}")))
    clean, copy = deepcopy(detector), deepcopy(detector)
    alarms = {each.signal for seen in ordinary for each in clean.observe(seen)}
    for seen in sorted([*ordinary, *attack], key=lambda each: each.time):
        for anomaly in copy.observe(seen):
            if begin <= seen.time < begin + ATTACK_HOURS * HOUR and anomaly.signal not in alarms:
                return seen.time - begin, anomaly.signal
    return None


def report(title: str, outcome: Outcome) -> Iterator[str]:
    """Yield the lines of a table."""
    rate = 1000 * len(outcome.false_alarms) / outcome.client_days
    yield f"{title}: {rate:.1f} false alarms per 1,000 client-days ({outcome.client_days} client-days)"
    by_signal = Counter((kind, anomaly.signal) for kind, anomaly in outcome.false_alarms)
    yield "  by kind and signal: " + (
        ", ".join(f"{kind} {name} {n}" for (kind, name), n in by_signal.most_common()) or "-"
    )
    yield f"  {'attack':<12}{'':<36}{'found':>9}{'median delay':>14}{'longest':>10}  first signal"
    for name, delays in outcome.delays.items():
        found = [each for each in delays if each is not None]
        seconds = [each[0] for each in found]
        middle = f"{statistics.median(seconds) / 60:.1f} min" if found else "-"
        longest = f"{max(seconds) / 60:.0f} min" if found else "-"
        signals = ", ".join(f"{signal} {n}" for signal, n in Counter(each[1] for each in found).most_common())
        yield (
            f"  {name:<12}{ATTACKS[name][0]:<36}{f'{len(found)}/{len(delays)}':>9}{middle:>14}{longest:>10}  {signals}"
        )


def cost(callers: int = 1_000, requests: int = 200_000) -> str:
    """Return how much processor time the recorder takes for one request."""
    recorder = Anomalies({}, lambda _signal: None, lambda _anomaly: None, Penalties(SystemClock()))
    exchanges = []
    for number in range(callers):
        exchange = Exchange("id", MONDAY, 0.0, "192.0.2.1", f"192.0.2.{number % 200}", secure=True)
        exchange.principal = Principal("api_key", str(number))
        exchange.endpoint, exchange.status, exchange.rows, exchange.received_bytes = "predict", 200, 5, 900
        exchanges.append(exchange)
    begin = time.process_time()
    for place in range(requests):
        exchange = exchanges[place % callers]
        exchange.time = MONDAY + 0.5 * place
        recorder.record(exchange)
    return f"{1e6 * (time.process_time() - begin) / requests:.1f} us a request, {callers} principals, all signals"


def main() -> None:
    """Print the tables."""
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(cost())
    print("\n".join(report("Clients for choosing thresholds", run(clients, "a", World()))))
    for title, world in (
        ("Held out", World()),
        ("Held out, noise doubled", World(noise=1.0)),
        ("Held out, attacks at a tenth", World(strength=0.1)),
    ):
        print("\n".join(report(title, run(clients, "c", world))), flush=True)


if __name__ == "__main__":
    main()
