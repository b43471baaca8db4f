"""Each signal: traffic that is unusual and traffic that is not, with the explanation."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest

from flask_secure_ml.observe.anomalies import SIGNALS, Observation
from flask_secure_ml.observe.anomalies.distinct import Distinct
from flask_secure_ml.observe.anomalies.observation import target_of
from flask_secure_ml.observe.anomalies.signals.credentials import Credentials, Targeted
from flask_secure_ml.observe.anomalies.signals.networks import Networks
from flask_secure_ml.observe.anomalies.signals.rate import Rate
from flask_secure_ml.observe.anomalies.signals.regularity import Regularity
from flask_secure_ml.observe.anomalies.signals.rejections import Rejections
from flask_secure_ml.observe.anomalies.signals.rows import Rows
from flask_secure_ml.observe.anomalies.signals.scanning import Scanning
from flask_secure_ml.observe.anomalies.signals.silence import Silence
from flask_secure_ml.observe.anomalies.signals.volume import Volume

HOUR, DAY = 3_600, 86_400
PLAIN = Observation(0, "api_key:ada", "192.0.2.1", 200)


def said(signal: Any, seen: Iterable[Observation], share: float = 1.0) -> list[str]:
    return [signal.explain() for each in seen if signal.observe(each, share)]


def hour_of(day: int, hour: int, count: int, **members: Any) -> Iterator[Observation]:
    """Yield so many requests, evenly in an hour."""
    begin = day * DAY + hour * HOUR
    return (replace(PLAIN, time=begin + HOUR * place / count, **members) for place in range(count))


def working_days(days: int, count: int, **members: Any) -> Iterator[Observation]:
    """Yield so many requests in each hour from 8:00 to 18:00."""
    for day in range(days):
        for hour in range(8, 18):
            yield from hour_of(day, hour, count, **members)


AMOUNTS: list[tuple[type[Any], dict[str, int], int, str]] = [
    (Rate, {}, 1, "requests"),
    (Rows, {"rows": 100}, 100, "rows"),
    (Volume, {"size": 1_000_000}, 1_000_000, "bytes"),
]


@pytest.mark.parametrize(("kind", "members", "each", "what"), AMOUNTS)
def test_forty_times_as_much(kind: type[Any], members: dict[str, int], each: int, what: str) -> None:
    """It is reported if ten minutes are well above the usual amount; reported activity is not counted again."""
    signal = kind()
    assert said(signal, working_days(5, 300, **members)) == []
    texts = said(signal, hour_of(5, 9, 12_000, **members))
    total = int(texts[0].split("(")[1].split(",")[0])
    times = total / (51 * each)
    usual = f"({total}, usually up to {51 * each})"
    assert texts[0] == f"{times:.0f} times its usual {what} in ten minutes {usual}"
    assert 4 <= times <= 8
    assert len(texts) * total <= 12_000 * each
    assert signal.read(5 * DAY + 10 * HOUR).score < 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "members", "_each", "_what"), AMOUNTS)
@pytest.mark.parametrize(
    ("days", "before", "count"),
    [(5, 300, 1_100), (2, 300, 18_000), (0, 0, 18_000), (30, 1_800, 6_000)],
    ids=["less than four times", "too new", "new", "busy"],
)
def test_an_ordinary_hour(
    kind: type[Any], members: dict[str, int], _each: int, _what: str, days: int, before: int, count: int
) -> None:
    """Is not reported."""
    signal = kind()
    assert said(signal, working_days(days, before, **members)) == []
    assert said(signal, hour_of(days, 9, count, **members)) == []
    if days < 5:
        assert signal.read(days * DAY + 9 * HOUR).score == 0


@pytest.mark.parametrize(("kind", "members"), [(Rate, {}), (Rows, {"rows": 5}), (Volume, {"size": 10_000})])
def test_little_is_never_unusual(kind: type[Any], members: dict[str, int]) -> None:
    """Ninety requests in ten minutes of a caller that has one an hour."""
    signal = kind()
    assert said(signal, working_days(10, 1, **members)) == []
    assert said(signal, hour_of(10, 9, 540, **members)) == []


def test_a_nightly_job() -> None:
    """A great number at one hour of the day is usual then, a weekly one too, and unusual at another hour."""
    signal = Rate()
    for day in range(21):
        assert said(signal, hour_of(day, 2, 2_000 if day % 7 else 7_000)) == []
        assert said(signal, (each for hour in range(8, 18) for each in hour_of(day, hour, 20))) == []
    # A week later 0.9 of each of six nights is 0.53 of it: that the hour of the week is known keeps it usual.
    assert said(signal, hour_of(21, 2, 14_000)) == []
    assert len(said(signal, hour_of(21, 14, 2_000))) >= 1


def test_one_extreme_hour_hardly_changes_what_is_usual() -> None:
    """The same day, the same at another hour is reported again."""
    signal = Rate()
    said(signal, working_days(5, 50))
    assert len(said(signal, hour_of(5, 9, 20_000))) >= 1
    assert len(said(signal, hour_of(5, 15, 20_000))) >= 1


def test_ten_minutes_slide() -> None:
    """An amount on both sides of a boundary of the clock counts together."""
    signal = Rate()
    said(signal, working_days(5, 60))
    begin = 5 * DAY + 9 * HOUR + 570
    assert len(said(signal, (replace(PLAIN, time=begin + n) for n in range(120)))) == 1
    signal = Rate()
    said(signal, working_days(5, 60))
    assert said(signal, (replace(PLAIN, time=begin + 10 * n) for n in range(120))) == []


def test_half_of_the_limit_continues_an_episode() -> None:
    """The share decides how much is enough."""
    signal = Rate()
    said(signal, working_days(5, 60))
    part = [replace(PLAIN, time=5 * DAY + 9 * HOUR + n) for n in range(60)]
    assert said(signal, part) == []
    assert len(said(signal, [replace(part[-1], time=part[-1].time + 1)], share=0.5)) == 1


@pytest.mark.slow
def test_large_requests_of_a_busy_caller() -> None:
    """Five of more rows than it ever sent, which its sum hides; each was usual if it is the first of many."""
    signal = Rows()
    assert said(signal, working_days(5, 6_000, rows=100)) == []
    large = [replace(PLAIN, time=5 * DAY + 9 * HOUR + 60 * n, rows=1_000) for n in range(5)]
    assert said(signal, large[:4]) == []
    assert said(signal, large[4:]) == ["5 requests of up to 1000 rows in ten minutes, usually up to 100 in one"]
    signal = Rows()
    said(signal, working_days(5, 6_000, rows=100))
    assert said(signal, [replace(each, rows=190) for each in large]) == []
    assert said(signal, [replace(each, time=each.time * 1.0 + 660 * n) for n, each in enumerate(large)]) == []


def test_an_outage_does_not_count() -> None:
    """Clients retry requests that failed with 503."""
    signal = Rate()
    said(signal, working_days(5, 50))
    assert said(signal, hour_of(5, 9, 5_000, status=503)) == []


@pytest.mark.parametrize(
    ("status", "count", "ordinary", "texts"),
    [
        (422, 40, 0, ["30 of 30 requests in an hour were rejected, usually 0 %"]),
        (401, 40, 20, ["30 of 50 requests in an hour were rejected, usually 0 %"]),
        (422, 29, 0, []),
        (422, 40, 60, []),
        (429, 400, 0, []),
        (503, 400, 0, []),
    ],
)
def test_rejections(status: int, count: int, ordinary: int, texts: list[str]) -> None:
    """Half of the requests or more, without those of limits and outages."""
    signal = Rejections()
    said(signal, working_days(3, 50))
    said(signal, hour_of(3, 9, ordinary) if ordinary else [])
    assert said(signal, hour_of(3, 9, count, status=status))[:1] == texts


def test_who_is_always_rejected() -> None:
    """That becomes usual."""
    signal = Rejections()
    assert len(said(signal, working_days(3, 50, status=422))) < 30
    assert said(signal, hour_of(4, 9, 500, status=422)) == []


def urls(count: int, apart: float = 1, endpoint: str | None = None, status: int = 404) -> Iterator[Observation]:
    for n in range(count):
        yield replace(PLAIN, time=apart * n, status=status, target=target_of(status, endpoint, f"/{n}"))


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (urls(10), 1),
        (urls(500, status=401), 50),
        (urls(9), 0),
        (urls(500, apart=600), 0),
        (urls(500, endpoint="item"), 0),
        (urls(500, endpoint="item", status=403), 0),
        (urls(500, status=200), 0),
        (urls(500, status=503), 0),
        ((replace(PLAIN, time=n, target=target_of(403, f"e{n}", "/")) for n in range(12)), 1),
        ((replace(PLAIN, time=n, target=target_of(404, None, "/favicon.ico")) for n in range(99)), 0),
    ],
)
def test_scanning(seen: Iterator[Observation], found: int) -> None:
    """Different unknown URLs; reported ones are not counted again."""
    assert said(Scanning(), seen) == ["10 different URLs in an hour that do not exist or are not allowed"] * found


@pytest.mark.parametrize(("keys", "apart", "found"), [(10, 1, 1), (60, 1, 6), (9, 1, 0), (60, 600, 0)])
def test_credentials(keys: int, apart: int, found: int) -> None:
    """Different identities count; the same wrong credential that a client repeats counts once."""
    signal = Credentials()
    seen = (replace(PLAIN, time=apart * n, status=401, attempted=f"api_key:{n}") for n in range(keys))
    assert said(signal, seen) == ["10 different identities in rejected credentials in an hour"] * found
    again = (replace(PLAIN, time=DAY + n, status=401, attempted="api_key:one") for n in range(500))
    assert said(signal, again) == []


@pytest.mark.parametrize(("networks", "found"), [(10, 1), (9, 0)])
def test_targeted(networks: int, found: int) -> None:
    """Rejected credentials of one identity from different networks; one network counts once."""
    seen = [
        replace(PLAIN, time=n, principal="", network=f"192.0.2.{n % networks}", status=401, attempted="bearer:ab")
        for n in range(15)
    ]
    assert len(said(Targeted(), seen)) == found
    assert said(Targeted(), [replace(each, attempted="") for each in seen]) == []


def from_networks(day: int, count: int) -> Iterator[Observation]:
    return (replace(PLAIN, time=day * DAY + 60 * n, network=f"192.0.2.{n}") for n in range(count))


@pytest.mark.parametrize(
    ("usual", "days", "today", "texts"),
    [
        (1, 3, 40, ["5 different networks in a day, usually up to 1"]),
        (3, 3, 40, ["9 different networks in a day, usually up to 3"]),
        (1, 3, 4, []),
        (3, 3, 8, []),
        (1, 2, 40, []),
        (30, 5, 200, []),
    ],
)
def test_networks(usual: int, days: int, today: int, texts: list[str]) -> None:
    """Many more than usual, after some days."""
    signal = Networks()
    assert said(signal, (each for day in range(days) for each in from_networks(day, usual))) == []
    assert said(signal, from_networks(days, today))[:1] == texts


def arrivals(count: int, mean: float, begin: float, spread: float | None = None) -> Iterator[Observation]:
    """Yield requests at random, or at intervals that vary by a share."""
    chance, now = random.Random(1), begin
    for _ in range(count):
        now += chance.expovariate(1 / mean) if spread is None else mean * chance.uniform(1 - spread, 1 + spread)
        yield replace(PLAIN, time=now)


def mixed(*streams: Iterable[Observation]) -> list[Observation]:
    return sorted((each for stream in streams for each in stream), key=attrgetter("time"))


def test_a_bot() -> None:
    """A person's key, used like a clock: found within a hundred requests."""
    signal = Regularity()
    assert said(signal, arrivals(2_000, 60, 0)) == []
    (text, *_) = said(signal, arrivals(100, 20, 10 * DAY, 0.02))
    assert text.startswith("requests at intervals of ")
    assert 18 < float(text.split()[4]) < 22


@pytest.mark.parametrize("busy", [60, 15, 10])
def test_a_bot_beside_a_busy_caller(busy: float) -> None:
    """Requests between those of the bot do not hide it."""
    signal = Regularity()
    assert said(signal, arrivals(int(4 * DAY / busy), busy, 0)) == []
    beside = mixed(arrivals(int(HOUR / busy), busy, 10 * DAY), arrivals(180, 20, 10 * DAY, 0.02))
    assert len(said(signal, beside)) >= 1


def test_what_other_workers_served_comes_late() -> None:
    """Times in parts, some seconds late, have the same period."""
    signal = Regularity()
    said(signal, arrivals(2_000, 60, 0))
    bot = list(arrivals(100, 20, 10 * DAY, 0.02))
    late = [
        replace(part[-1], count=len(part), times=tuple(each.time for each in part))
        for begin in range(0, 100, 10)
        for part in (bot[begin + 1 : begin + 10 : 2], bot[begin : begin + 10 : 2])
    ]
    assert len(said(signal, late)) >= 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (arrivals(6_000, 60, 0, 0.01), arrivals(800, 60, 10 * DAY, 0.02)),
        ((), arrivals(2_000, 60, 0, 0.01)),
        (arrivals(6_000, 60, 0), arrivals(2_000, 0.5, 10 * DAY, 0.02)),
        (arrivals(6_000, 60, 0), arrivals(800, 20, 10 * DAY, 0.9)),
        (arrivals(6_000, 60, 0), arrivals(800, 2 * HOUR, 10 * DAY, 0.01)),
        (arrivals(6_000, 60, 0), arrivals(5_000, 13, 10 * DAY)),
        (arrivals(6_000, 60, 0), (replace(each, status=503) for each in arrivals(800, 20, 10 * DAY, 0.01))),
        (arrivals(6_000, 60, 0), mixed(*(arrivals(20, 0.8, at.time, 0.2) for at in arrivals(50, 300, 10 * DAY)))),
    ],
    ids=["had this period", "new and regular", "fast", "not regular", "hours apart", "busy", "retries", "bursts"],
)
def test_no_bot(before: Iterable[Observation], after: Iterable[Observation]) -> None:
    """A monitor, a batch, a person."""
    signal = Regularity()
    assert said(signal, before) == []
    assert said(signal, after) == []


@pytest.mark.parametrize(
    ("requests", "apart", "days", "texts"),
    [
        (30, DAY, 20, ["the first request in 20 days; the longest earlier gap was 1.0 days"]),
        (30, DAY, 13, []),
        (30, 10 * DAY, 25, []),
        (10, DAY, 20, []),
        (17, DAY, 20, []),
    ],
)
def test_silence(requests: int, apart: int, days: int, texts: list[str]) -> None:
    """Long, and much longer than before."""
    signal = Silence()
    assert said(signal, (replace(PLAIN, time=apart * n) for n in range(requests))) == []
    last = apart * (requests - 1)
    assert said(signal, [replace(PLAIN, time=last + days * DAY), replace(PLAIN, time=last + days * DAY + 1)]) == texts


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_clock_that_runs_backwards(kind: type[Any]) -> None:
    """With any times, no signal fails, and its state can be stored and explained."""
    signal, chance = kind(), random.Random(2)
    for _ in range(3_000):
        status = chance.choice([200, 401, 404, 422])
        now = chance.uniform(-1e6, 1e7)
        seen = replace(PLAIN, time=now, status=status, rows=2**53, size=2**53, attempted="x", target=5)
        signal.observe(seen, 1.0)
        assert signal.read(now).score >= 0
    assert isinstance(signal.explain(), str)


def test_a_set_is_bounded() -> None:
    """Further values are not counted, and a new window begins empty."""
    found = Distinct(HOUR, 64)
    assert sum(found.add(1, n) for n in range(10_000)) == len(found) == 64
    assert found.add(HOUR, 1)
    assert len(found) == 1
    assert (found.count(HOUR), found.count(2 * HOUR)) == (1, 0)
