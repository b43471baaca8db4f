"""Usage for billing: each charged request once, despite failing workers, at its final price."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from marshmallow import Schema

from counting import CountedIn, use, use_until_killed
from flask_secure_ml import ConfigError, Exchange, Principal, current_exchange, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.limits.counters import Charge, Counters, Settlement, Verdict
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.limits.usage import DAY, MAX_FIELDS, OTHERS, Usage, Used
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from support import HTTPS, MakeApp, NameAuthenticator, caller
from waits import HANG

KEY, OTHER = key_of("caller", "bob"), key_of("caller", "eve")
RULES = RuleSet([Rule("requests", Kind.FIXED, 10, 3600.0), Rule("rows", Kind.FIXED, 1000, 3600.0, unit="rows")])
TODAY = 20_000
MANY = int(os.environ.get("MANY_REQUESTS", "1"))


def usage(rows: int = 5, *, day: int = TODAY, plan: str = "gold", route: str = "predict") -> Usage:
    return Usage(day, plan, route, 1, rows, rows)


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/s.db" if request.param == "sqlite" else request.getfixturevalue("address")


@pytest.fixture
def open_counters(where: str, clock: FakeClock) -> CountedIn:
    return CountedIn(where, clock)


@pytest.fixture
def counters(open_counters: CountedIn) -> Counters:
    return open_counters(400)


def charge(counters: Counters, used: Usage | None, *, key: bytes = KEY, prices: tuple[int, int] = (1, 5)) -> Verdict:
    (verdict,) = counters.charge([Charge(key, RULES, prices, b"", key.hex()[:4], used)])
    return verdict


def found(
    counters: Counters, since: int = TODAY, until: int = TODAY
) -> dict[tuple[str, str, str, int], tuple[int, ...]]:
    return {each[:4]: each[4:] for each in counters.used(since, until)}


# --- in a store -------------------------------------------------------------------------------------------------


def test_groups(counters: Counters) -> None:
    """By caller, plan, route and day."""
    for used in (usage(), usage(2), usage(route="other"), usage(plan="free"), usage(day=TODAY + 1), None):
        charge(counters, used)
    charge(counters, usage(9), key=OTHER)
    bob, eve = KEY.hex()[:4], OTHER.hex()[:4]
    everything = {
        (bob, "gold", "predict", TODAY): (2, 7, 7),
        (bob, "gold", "other", TODAY): (1, 5, 5),
        (bob, "free", "predict", TODAY): (1, 5, 5),
        (eve, "gold", "predict", TODAY): (1, 9, 9),
    }
    assert found(counters) == everything
    tomorrow = {(bob, "gold", "predict", TODAY + 1): (1, 5, 5)}
    assert found(counters, TODAY, TODAY + 1) == everything | tomorrow
    assert found(counters, TODAY + 1, TODAY + 9) == tomorrow
    assert found(counters, TODAY + 2, TODAY + 9) == {}


def test_rejected_requests_are_not_counted(counters: Counters) -> None:
    """Neither by limits of the caller, nor when another key rejects the request."""
    assert [charge(counters, usage()).allowed for _ in range(15)].count(True) == 10
    narrow = RuleSet([Rule("flight", Kind.LEASES, 1, 0.0, unit="concurrent-requests")])
    for number in (1, 2, 3):
        lease = b"lease--%d" % number
        counters.charge([Charge(OTHER, RULES, (1, 5), b"", "eve", usage()), Charge(key_of("r"), narrow, (1,), lease)])
    assert found(counters) == {
        (KEY.hex()[:4], "gold", "predict", TODAY): (10, 50, 50),
        ("eve", "gold", "predict", TODAY): (1, 5, 5),
    }


def test_settlement_belongs_to_the_day_of_the_charge(counters: Counters, clock: FakeClock) -> None:
    """Also when it arrives after midnight and after the window; it counts neither requests nor rows."""
    verdict = charge(counters, usage())
    clock.advance(2 * DAY)
    charge(counters, usage(day=TODAY + 2))
    starts = tuple(count.start for count in verdict.counts)
    for cost in (-3, 40):
        counters.settle([Settlement(KEY, RULES, (0, cost), starts, b"", usage().corrected(cost))])
    name = KEY.hex()[:4]
    assert found(counters, TODAY, TODAY + 2) == {
        (name, "gold", "predict", TODAY): (1, 5, 42),
        (name, "gold", "predict", TODAY + 2): (1, 5, 5),
    }


def test_settlement_of_what_is_gone(counters: Counters) -> None:
    """It is dropped: usage is never negative."""
    counters.settle([Settlement(KEY, RULES, (0, -3), (0.0, 0.0), b"", usage().corrected(-3))])
    charge(counters, usage())
    counters.settle([Settlement(KEY, RULES, (0, -3), (0.0, 0.0), b"", usage(route="gone").corrected(-3))])
    assert found(counters) == {(KEY.hex()[:4], "gold", "predict", TODAY): (1, 5, 5)}


def test_bounded(counters: Counters) -> None:
    """So many pairs of a plan and a route in a day; the rest is counted together, and corrected there."""
    for number in range(MAX_FIELDS + 5):
        charge(counters, usage(route=str(number)), prices=(0, 0))
    counters.settle([Settlement(KEY, RULES, (0, 0), (0.0, 0.0), b"", usage(route="new").corrected(-2))])
    charge(counters, usage(route="7"), prices=(0, 0))
    name, kept = KEY.hex()[:4], found(counters)
    assert len(kept) == MAX_FIELDS + 1
    assert kept[name, OTHERS, OTHERS, TODAY] == (5, 25, 23)
    assert kept[name, "gold", "7", TODAY] == (2, 10, 10)


def test_many_callers(counters: Counters) -> None:
    """They are read a part at a time, each once."""
    names = [str(number) for number in range(1050)]
    for first in range(0, len(names), 50):
        part = names[first : first + 50]
        counters.charge([Charge(key_of("caller", name), RULES, (1, 5), b"", name, usage()) for name in part])
    assert sorted(each.client for each in counters.used(TODAY, TODAY)) == sorted(names)


def test_clearing_the_limits_of_a_caller_keeps_the_bill(counters: Counters) -> None:
    """Recorded usage is not changed."""
    charge(counters, usage())
    assert counters.clear(KEY)
    assert len(found(counters)) == 1


def test_off(open_counters: CountedIn) -> None:
    """Usage is not counted, and a settlement has no effect."""
    counters = open_counters(0)
    charge(counters, usage())
    counters.settle([Settlement(KEY, RULES, (0, -3), (0.0, 0.0), b"", usage().corrected(-3))])
    assert found(counters) == {}


def test_expires_in_a_file(tmp_path: Path, clock: FakeClock) -> None:
    """A number of days after the day of use, oldest first; later usage of the caller is kept."""
    counters = SqliteCounters(tmp_path / "s.db", clock, usage_days=3)
    for day in range(10):
        charge(counters, usage(day=TODAY + day), key=KEY if day % 2 else OTHER)
        clock.advance(DAY)
    assert [each.day - TODAY for each in counters.used(0, TODAY + 99)] == [6, 7, 8, 9]


def test_expires_on_a_server(address: str, admin: Any) -> None:
    """The server deletes each day of a caller by itself."""
    counters = RedisCounters(address, None, SystemClock(), connect_timeout=HANG, usage_days=3)
    for day in (TODAY, TODAY, TODAY + 1):
        charge(counters, usage(day=day))
    names = sorted(admin.keys("flask-secure-ml:usage:*"))
    assert names == [f"flask-secure-ml:usage:{{{KEY.hex()}}}:{TODAY + day}".encode() for day in (0, 1)]
    assert all(4 * DAY - 60 < admin.ttl(name) <= 4 * DAY for name in names)


def test_one_write_for_each_request(address: str, admin: Any) -> None:
    """The same script: no other command, and no second round trip."""
    counters = RedisCounters(address, None, SystemClock(), connect_timeout=HANG, usage_days=3)
    charge(counters, usage())
    before = admin.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert charge(counters, usage()).allowed
    assert admin.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert "cmdstat_hset" in admin.info("commandstats")


# --- exact ------------------------------------------------------------------------------------------------------

PROCESSES, TIMES = 4, 60 * MANY


def test_exact_between_processes_and_with_settlements(where: str, open_counters: CountedIn) -> None:
    """Every request, every row and every correction of four processes with two threads each."""
    spawn = get_context("spawn")
    with spawn.Pool(PROCESSES) as pool:
        made = pool.starmap(use, [(where, number, TIMES) for number in range(PROCESSES)])
    expected: Counter[tuple[str, str, str, int]] = Counter()
    for each in made:
        expected.update(each)
    counted = found(open_counters(400), TODAY, TODAY + 1)
    flat = {
        (plan, route, name, day): n
        for (_, plan, route, day), ns in counted.items()
        for name, n in zip(Used._fields[4:], ns, strict=True)
    }
    assert flat == dict(expected)
    assert sum(n for (_, _, name, _), n in flat.items() if name == "requests") == PROCESSES * TIMES


def test_a_worker_that_is_killed_loses_nothing(where: str) -> None:
    """Exactly the charged requests are counted, with kill -9 at any instant."""
    spawn = get_context("spawn")
    told = 0
    for _ in range(3 * MANY):
        mine, theirs = spawn.Pipe()
        process = spawn.Process(target=use_until_killed, args=(where, theirs))
        process.start()
        theirs.close()
        for _ in range(20):
            assert mine.poll(HANG)
            told += mine.recv()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(HANG)
        while mine.poll(0):
            try:
                told += mine.recv()
            except EOFError:
                break
    counters = CountedIn(where)(400)
    ((_, _, _, _, requests, rows, _),) = counters.used(TODAY, TODAY)
    charged = counters.peek(KEY, RuleSet([Rule("requests", Kind.FIXED, 10**9, 1e9)])).counts[0].used
    assert requests == charged
    assert rows == 5 * requests
    assert told <= requests <= told + 3 * MANY


# --- in an app --------------------------------------------------------------------------------------------------


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


class PlannedCallers(NameAuthenticator):
    """The first scope names the plan."""

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        principal = super().verify(credential, exchange)
        return replace(principal, plan=next(iter(principal.scopes), "default"))


@pytest.fixture
def app(protected: MakeApp, tmp_path: Path) -> Flask:
    plans = {"default": {"requests": ["20/minute"]}, "gold": {}, "narrow": {"quotas": ["100/day"], "in_flight": 1}}
    app = protected(
        STORE_URI=f"sqlite:{tmp_path}/s.db", PLANS=plans, USAGE_DAYS=30, parts={"authenticators": [PlannedCallers()]}
    )
    app.config["PROPAGATE_EXCEPTIONS"] = False

    def view(payload: Any) -> Any:
        rows = len(payload["instances"])
        if rows == 7:
            raise ValueError
        if rows == 8:
            exchange = current_exchange._get_current_object()  # type: ignore[attr-defined]

            def parts() -> Iterator[str]:
                yield "a"
                exchange.charge(80)

            return Response(parts())
        if rows == 9:
            current_exchange.charge(2)
        return "ok"

    app.add_url_rule("/predict", "predict", protect(body=Rows, cost="instances")(view), methods=["POST"])
    app.add_url_rule("/free", "free", protect()(lambda: "ok"))
    app.add_url_rule("/open", "open", public(lambda: "ok"))
    return app


def post(app: Flask, rows: int, name: str = "ada", plan: str = "gold") -> int:
    body = {"instances": [[0, 1]] * rows} if rows else {"instances": "no"}
    with app.test_client().post("/predict", base_url=HTTPS, headers=caller(name, plan), json=body) as response:
        assert response.get_data()
        return response.status_code


def billed(app: Flask) -> dict[tuple[str, str, str], tuple[int, ...]]:
    return {each[:3]: each[4:] for each in state_of(app).limiter.counters.used(0, 10**6)}


@pytest.mark.parametrize("plan", ["gold", "narrow"])
def test_costs(app: Flask, plan: str) -> None:
    """Reserved rows and corrections, also under a plan without limits; rejected bodies count."""
    sent = {0: 422, 3: 200, 7: 500, 8: 200, 9: 200}
    for rows, status in sent.items():
        assert post(app, rows, plan=plan) == status
        if rows == 8 and plan == "narrow":
            state_of(app).limiter.counters.clear(key_of("caller", "test:ada"))
    assert billed(app) == {("test:ada", plan, "predict"): (5, 27, 3 + 80 + 2)}


def test_routes_without_a_price(app: Flask) -> None:
    """They count as requests, and so do URLs without a route; anonymous callers and rejected requests do not."""
    client = app.test_client()
    for path in ("/free", "/nothing", "/open"):
        client.get(path, base_url=HTTPS, headers=caller("ada"))
    for _ in range(3):
        assert client.get("/open", base_url=HTTPS).status_code == 200
    assert [client.get("/free", base_url=HTTPS, headers=caller("bob")).status_code for _ in range(30)].count(429) == 10
    assert billed(app) == {
        ("test:ada", "default", "free"): (1, 0, 0),
        ("test:ada", "default", "(none)"): (1, 0, 0),
        ("test:bob", "default", "free"): (20, 0, 0),
    }


def test_day_of_the_request(app: Flask, clock: FakeClock) -> None:
    """UTC."""
    clock.advance(DAY - clock.now() % DAY - 1)
    post(app, 1)
    clock.advance(2)
    post(app, 1)
    first, second = state_of(app).limiter.counters.used(0, 10**6)
    assert (first.day + 1, first.rows) == (second.day, second.rows)
    assert second.day == clock.now() // DAY


def test_memory_is_a_mistake(protected: MakeApp) -> None:
    """A bill that nobody can read is not counted in silence."""
    with pytest.raises(ConfigError, match="SECURE_ML_USAGE_DAYS requires a persistent store"):
        protected(USAGE_DAYS=1)


def test_threads(app: Flask) -> None:
    """Requests at the same time are all counted."""
    # On a busy machine a request could be admitted as during an outage, and is not counted then.
    counters: Any = state_of(app).limiter.counters
    counters._file._timeout = HANG
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: post(app, 3), range(60))) == {200}
    assert billed(app) == {("test:ada", "gold", "predict"): (60, 180, 180)}
