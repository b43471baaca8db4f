"""Each signal: what is unusual, and what is not, in words."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_secure_ml.observe.anomalies import SIGNALS, Observation
from flask_secure_ml.observe.anomalies.distinct import Distinct
from flask_secure_ml.observe.anomalies.signals.credentials import Credentials
from flask_secure_ml.observe.anomalies.signals.networks import Networks
from flask_secure_ml.observe.anomalies.signals.rate import Rate
from flask_secure_ml.observe.anomalies.signals.regularity import Regularity
from flask_secure_ml.observe.anomalies.signals.rejections import Rejections
from flask_secure_ml.observe.anomalies.signals.rows import Rows
from flask_secure_ml.observe.anomalies.signals.scanning import Scanning
from flask_secure_ml.observe.anomalies.signals.silence import Silence
from flask_secure_ml.observe.anomalies.signals.volume import Volume

HOUR, DAY = 3_600, 86_400
PLAIN = Observation(0, "api_key:ada", "192.0.2.1", 200, "predict", "/predict")


def said(signal: Any, seen: Iterable[Observation]) -> list[str]:
    return [text for each in seen if (text := signal.observe(each)) is not None]


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
    """It is reported once an hour, when it is well above what is usual."""
    signal = kind()
    assert said(signal, working_days(5, 50, **members)) == []
    (text,) = said(signal, hour_of(5, 9, 2_000, **members))
    total = int(text.split("(")[1].split(",")[0])
    assert text == f"{total / (50 * each):.0f} times its usual {what} in an hour ({total}, usually up to {50 * each})"
    assert 200 * each <= total <= 600 * each


@pytest.mark.parametrize(("kind", "members", "_each", "_what"), AMOUNTS)
@pytest.mark.parametrize(
    ("days", "before", "count"),
    [(5, 50, 190), (2, 50, 3_000), (0, 0, 3_000), (30, 300, 1_000)],
    ids=["less than four times", "too new", "new", "busy"],
)
def test_an_ordinary_hour(
    kind: type[Any], members: dict[str, int], _each: int, _what: str, days: int, before: int, count: int
) -> None:
    """Is not reported."""
    signal = kind()
    assert said(signal, working_days(days, before, **members)) == []
    assert said(signal, hour_of(days, 9, count, **members)) == []


@pytest.mark.parametrize(("kind", "members"), [(Rate, {}), (Rows, {"rows": 5}), (Volume, {"size": 10_000})])
def test_little_is_never_unusual(kind: type[Any], members: dict[str, int]) -> None:
    """Ninety requests of a caller that has one an hour."""
    signal = kind()
    assert said(signal, working_days(10, 1, **members)) == []
    assert said(signal, hour_of(10, 9, 90, **members)) == []


def test_a_nightly_job() -> None:
    """A great number at one hour of the day is usual then, a weekly one too, and unusual at another hour."""
    signal = Rate()
    for day in range(14):
        assert said(signal, hour_of(day, 2, 2_000 if day % 7 else 5_000)) == []
        assert said(signal, (each for hour in range(8, 18) for each in hour_of(day, hour, 20))) == []
    assert said(signal, hour_of(14, 2, 5_000)) == []
    assert len(said(signal, hour_of(14, 14, 2_000))) == 1


def test_one_extreme_hour_hardly_changes_what_is_usual() -> None:
    """The next day, the same at another hour is reported again."""
    signal = Rate()
    said(signal, working_days(5, 50))
    assert len(said(signal, hour_of(5, 9, 20_000))) == 1
    assert len(said(signal, hour_of(5, 15, 20_000))) == 1


def test_an_outage_does_not_count() -> None:
    """Clients repeat what failed with 503."""
    signal = Rate()
    said(signal, working_days(5, 50))
    assert said(signal, hour_of(5, 9, 5_000, status=503)) == []


@pytest.mark.parametrize(
    ("status", "count", "ordinary", "texts"),
    [
        (422, 40, 0, ["30 of 30 requests in an hour were rejected, usually 0 in a hundred"]),
        (401, 40, 20, ["30 of 50 requests in an hour were rejected, usually 0 in a hundred"]),
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
    assert said(signal, hour_of(3, 9, count, status=status)) == texts


def test_who_is_always_rejected() -> None:
    """That becomes usual."""
    signal = Rejections()
    assert len(said(signal, working_days(3, 50, status=422))) < 20
    assert said(signal, hour_of(4, 9, 500, status=422)) == []


def urls(count: int, apart: float = 1, **members: Any) -> Iterator[Observation]:
    return (replace(PLAIN, time=apart * n, path=f"/{n}", **members) for n in range(count))


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (urls(10, endpoint=None, status=404), 1),
        (urls(500, endpoint=None, status=401), 1),
        (urls(9, endpoint=None, status=404), 0),
        (urls(500, apart=600, endpoint=None, status=404), 0),
        (urls(500, endpoint="item", status=404), 0),
        (urls(500, endpoint="item", status=403), 0),
        (urls(500, endpoint=None, status=200), 0),
        (urls(500, endpoint=None, status=503), 0),
        ((replace(PLAIN, time=n, endpoint=f"e{n}", status=403) for n in range(12)), 1),
        ((replace(PLAIN, time=n, endpoint=None, path="/favicon.ico", status=404) for n in range(99)), 0),
    ],
)
def test_scanning(seen: Iterator[Observation], found: int) -> None:
    """Different URLs that lead nowhere; each hour is reported once."""
    assert said(Scanning(), seen) == ["10 different URLs in an hour that do not exist or are not allowed"] * found


@pytest.mark.parametrize(("keys", "apart", "found"), [(10, 1, 1), (60, 1, 1), (9, 1, 0), (60, 600, 0)])
def test_credentials(keys: int, apart: int, found: int) -> None:
    """Different keys; the same wrong key of a client that goes on counts once."""
    signal = Credentials()
    seen = (replace(PLAIN, time=apart * n, status=401, claimed=f"key{n}") for n in range(keys))
    assert said(signal, seen) == ["10 different API keys rejected in an hour"] * found
    again = (replace(PLAIN, time=DAY + n, status=401, claimed="one") for n in range(500))
    assert said(signal, again) == []


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
    assert said(signal, from_networks(days, today)) == texts


def arrivals(count: int, mean: float, begin: float, spread: float | None = None) -> Iterator[Observation]:
    """Yield requests at random, or at intervals that vary by a share."""
    chance, now = random.Random(1), begin
    for _ in range(count):
        now += chance.expovariate(1 / mean) if spread is None else mean * chance.uniform(1 - spread, 1 + spread)
        yield replace(PLAIN, time=now)


def test_a_bot() -> None:
    """A person's key, used like a clock for half an hour and longer; reported once."""
    signal = Regularity()
    assert said(signal, arrivals(1_000, 60, 0)) == []
    (text,) = said(signal, arrivals(800, 20, 10 * DAY, 0.02))
    assert text == "a request every 19.9 s: 100 in a hundred gaps are the same within 10 %, usually 10"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (arrivals(1_000, 60, 0, 0.01), arrivals(800, 20, 10 * DAY, 0.02)),
        ((), arrivals(2_000, 60, 0, 0.01)),
        (arrivals(1_000, 60, 0), arrivals(2_000, 0.5, 10 * DAY, 0.02)),
        (arrivals(1_000, 60, 0), arrivals(800, 20, 10 * DAY, 0.9)),
        (arrivals(1_000, 60, 0), arrivals(800, 2 * HOUR, 10 * DAY, 0.01)),
    ],
    ids=["was regular", "new and regular", "for some minutes", "not regular", "hours apart"],
)
def test_no_bot(before: Iterable[Observation], after: Iterable[Observation]) -> None:
    """A monitor, a batch, a person."""
    signal = Regularity()
    assert said(signal, before) == []
    assert said(signal, after) == []


@pytest.mark.parametrize(
    ("requests", "apart", "days", "texts"),
    [
        (30, DAY, 20, ["the first request in 20 days, where 1.0 was the longest gap"]),
        (30, DAY, 13, []),
        (30, 10 * DAY, 25, []),
        (10, DAY, 20, []),
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
    """No signal fails, whatever the times are."""
    signal, chance = kind(), random.Random(2)
    for _ in range(3_000):
        status = chance.choice([200, 401, 404, 422])
        seen = replace(PLAIN, time=chance.uniform(-1e6, 1e7), status=status, rows=2**53, size=2**53, claimed="x")
        signal.observe(seen)


def test_a_set_is_bounded() -> None:
    """Further values are not counted, and a new window begins empty."""
    found = Distinct(HOUR, 64)
    assert sum(found.add(1, n) for n in range(10_000)) == len(found) == 64
    assert found.add(HOUR, "x")
    assert len(found) == 1
