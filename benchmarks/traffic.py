"""Simulated traffic for the anomaly signals: ordinary clients, attacks and the resulting detections.

The simulation has six weeks of ordinary traffic of seven kinds of clients, some of them new, a retry storm after an
outage, and attacks that begin at 10:00 on a working day of the last week. The thresholds are those of the package. They
were chosen with the first half of the clients; the other half is held out and has other seeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

from flask_secure_ml.observe.anomalies import SIGNALS, Anomaly, Detector, Episodes, Observation
from flask_secure_ml.observe.anomalies.detector import PRINCIPAL
from flask_secure_ml.observe.anomalies.observation import target_of

HOUR, DAY = 3_600, 86_400
MONDAY = 1_767_571_200  # 2026-01-05
DAYS = 42
JUDGED = 14
"""False alarms are counted from this day, and those of new clients from their first day."""

ATTACK_DAY = 37  # a Wednesday
OUTAGE_DAY = 30
ATTACK_HOURS = 8
SOON, FEW = 600, 100
"""An attack should be detected within this number of seconds or of requests."""

WORKING = range(8, 18)
WORKING_DAYS = 5
SUNDAY = 6
ACTIVE_DAYS = 0.4
"""The fraction of days on which an analyst works."""

SEQUENTIAL = 20
INVALID, MISSING, UNKNOWN, ROAMING = 0.02, 0.002, 0.001, 0.1
"""Fractions of ordinary requests: an invalid body, a 404 of the app, an unknown URL, another network of a phone."""


@dataclass(frozen=True)
class World:
    """The parameters of a run: the noise of ordinary traffic and the strength of attacks."""

    noise: float = 0.5
    strength: float = 1.0


class Client:
    """A caller of one kind, whose habits are drawn from a seed."""

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
            case _:  # an analyst, who tries what-if scenarios on some days
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
        target = target_of(status, endpoint, f"/x{chance.randrange(9)}")
        return Observation(now, self.name, network, status, target, "", rows, 800 * rows)

    def _storm(self, ordinary: list[Observation]) -> Iterator[Observation]:
        """Yield a client's retries: all fail from 10:00 to 10:30, and afterwards limits reject most."""
        begin = MONDAY + OUTAGE_DAY * DAY + 10 * HOUR
        for each in ordinary:
            if begin <= each.time < begin + 1800:
                each.status = 503
                for retry in range(8):
                    yield Observation(each.time + 2.0**retry, each.principal, each.network, 503)
                for retry in range(5):
                    after = begin + 1800 + self.chance.random() * 1200
                    status = 200 if retry == 0 else 429
                    yield Observation(after, each.principal, each.network, status, 0, "", each.rows)


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
        yield Observation(now, client.name, client.network, 200, 0, "", 1, 800)


def _bulk_rows(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(60, 1, begin, chance):
        yield Observation(now, client.name, client.network, 200, 0, "", int(1000 * strength), 800)


def _bulk_bytes(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(60, 1, begin, chance):
        yield Observation(now, client.name, client.network, 200, 0, "", 1, int(3_000_000 * strength))


def _scan(_client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for place, now in enumerate(_every(10, strength, begin, chance)):
        yield Observation(now, "", "192.0.2.66", 401, target_of(401, None, f"/guess/{place}"))


def _stuff(_client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for place, now in enumerate(_every(10, strength, begin, chance)):
        yield Observation(now, "", "192.0.2.67", 401, 0, f"api_key:{place}")


def _share(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(300, strength, begin, chance):
        yield Observation(now, client.name, f"192.0.2.{chance.randrange(40)}", 200, 0, "", 1, 800)


def _bot(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(20, strength, begin, chance, 0.02):
        yield Observation(now, client.name, client.network, 200, 0, "", 1, 800)


def _fuzz(client: Client, strength: float, begin: float, chance: random.Random) -> Iterator[Observation]:
    for now in _every(5, strength, begin, chance):
        yield Observation(now, client.name, client.network, 422, 0, "", 0, 300)


ATTACKS: dict[str, tuple[str, Attack]] = {
    "scraping": ("2 requests a second", _scrape),
    "bulk rows": ("1,000 rows a minute", _bulk_rows),
    "bulk bytes": ("3 MB a minute", _bulk_bytes),
    "scanning": ("an unknown URL every 10 s", _scan),
    "stuffing": ("a wrong key every 10 s", _stuff),
    "shared key": ("40 networks, a request every 5 min", _share),
    "bot": ("a request every 20 s, within 2 %", _bot),
    "fuzzing": ("an invalid body every 5 s", _fuzz),
}


@dataclass
class Outcome:
    """The result of a run."""

    client_days: int
    signals: list[tuple[str, Anomaly]]
    """Every false signal, with the kind of its client."""
    false_alarms: list[tuple[str, Anomaly]]
    """The signals that begin an episode, which are the reported ones."""
    delays: dict[str, list[tuple[float, int, str] | None]]


def run(clients: int, half: str, world: World, attacks: Collection[str] = tuple(ATTACKS)) -> Outcome:
    """Simulate clients of each kind, score their requests with one detector in order of time, and return the result."""
    outcome = Outcome(0, [], [], {name: [] for name in attacks})
    people = {
        each.name: each for kind in KINDS for each in (Client(kind, f"{half}{n}", world.noise) for n in range(clients))
    }
    detector, episodes = Detector(SIGNALS), Episodes()
    for day in range(DAYS):
        ordinary = {name: client.day(day) for name, client in people.items()}
        if day == ATTACK_DAY:
            for name in attacks:
                for client in people.values():
                    if client.kind != "new":
                        outcome.delays[name].append(_attacked(name, client, ordinary[client.name], detector, world))
        judged = {name for name, client in people.items() if day >= max(JUDGED, client.begins)}
        outcome.client_days += len(judged)
        for seen in sorted(chain.from_iterable(ordinary.values()), key=attrgetter("time")):
            for anomaly in detector.observe(seen):
                begins = episodes.begins(anomaly)
                if anomaly.again or anomaly.subject not in judged:
                    continue
                alarm = people[anomaly.subject].kind, anomaly
                outcome.signals.append(alarm)
                if begins:
                    outcome.false_alarms.append(alarm)
    return outcome


def _attacked(
    name: str, client: Client, ordinary: list[Observation], detector: Detector, world: World
) -> tuple[float, int, str] | None:
    """Return the first signal that fires during an attack and does not fire without it, or None.

    :returns: the seconds since the attack began, the number of its requests until then, and the name of the signal.
    """
    begin = MONDAY + ATTACK_DAY * DAY + 10 * HOUR
    attack = list(ATTACKS[name][1](client, world.strength, begin, random.Random(f"{name}{client.name}")))
    clean, attacked = (_with_history(client, detector) for _ in range(2))
    alarms = {each.signal for seen in ordinary for each in clean.observe(seen)}
    malicious = {id(each) for each in attack}
    sent = 0
    for seen in sorted([*ordinary, *attack], key=attrgetter("time")):
        sent += id(seen) in malicious
        for anomaly in attacked.observe(seen):
            if begin <= seen.time < begin + ATTACK_HOURS * HOUR and anomaly.signal not in alarms:
                return seen.time - begin, sent, anomaly.signal
    return None


def _with_history(client: Client, detector: Detector) -> Detector:
    """Return a detector with a copy of another detector's history of a client."""
    found = Detector(SIGNALS)
    found.put(PRINCIPAL, client.name, deepcopy(detector.subject(PRINCIPAL, client.name)))
    return found


def in_time(delay: tuple[float, int, str] | None) -> bool:
    """Return True if an attack was detected within ten minutes or its first hundred requests."""
    return delay is not None and (delay[0] <= SOON or delay[1] <= FEW)
