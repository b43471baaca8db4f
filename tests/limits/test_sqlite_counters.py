"""Counters in a file: charges, the size of the file, and time across restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from counter_files import HOURLY, IN_FLIGHT, KEY, charge, lease, opened, rows, used
from flask_secure_ml.limits.counters import LEASE_SECONDS, Backoff, Charge, Settlement
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.testing import FakeClock

DAY = 86_400.0


class Machine:
    """A clock whose two times a test sets, as the machine it runs on does."""

    def __init__(self, wall: float = 1_800_000_000.0, monotonic: float = 1000.0) -> None:
        self.wall = wall
        self.uptime = monotonic

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.uptime

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db-limits"


@pytest.fixture
def counters(path: Path, clock: FakeClock) -> SqliteCounters:
    return SqliteCounters(path, clock)


# --- charges ---------------------------------------------------------------------------------------------


def test_all_or_nothing(counters: SqliteCounters) -> None:
    """If one price does not fit, none of the keys is charged; each verdict reports its own rules."""
    small = RuleSet([Rule("small", Kind.GCRA, 2, 60.0), Rule("in-flight", Kind.LEASES, 9, 0)])
    other = key_of("route")
    charges = [Charge(KEY, HOURLY, (3,)), Charge(other, small, (1, 1), lease(1))]
    assert [each.allowed for each in counters.charge(charges)] == [True, True]
    rejected = counters.charge([Charge(KEY, HOURLY, (3,)), Charge(other, small, (2, 1), lease(2))])
    assert [each.allowed for each in rejected] == [True, False]
    assert [[count.wait > 0 for count in each.counts] for each in rejected] == [[False], [True, False]]
    assert [[count.used for count in each.counts] for each in rejected] == [[3], [pytest.approx(1), 1]]
    assert used(counters) == [3]
    assert used(counters, small, other) == [pytest.approx(1), 1]


def test_one_key_twice_in_a_call(counters: SqliteCounters) -> None:
    """The second charge counts on top of the first, and nothing is charged when both do not fit."""
    assert [each.counts[0].used for each in counters.charge([Charge(KEY, HOURLY, (3,))] * 2)] == [3, 6]
    assert [each.allowed for each in counters.charge([Charge(KEY, HOURLY, (3,))] * 2)] == [True, False]
    assert used(counters) == [6]


def test_charge_of_nothing(counters: SqliteCounters, path: Path) -> None:
    """It reports, and leaves no row, and no lease."""
    assert charge(counters, 0, name="alice").counts[0].used == 0
    assert charge(counters, 0, IN_FLIGHT, lease=lease(1)).counts[0].used == 0
    assert (rows(path), counters.callers()) == (0, {})


def test_rules_of_other_sets_are_kept(counters: SqliteCounters, clock: FakeClock, path: Path) -> None:
    """A caller that changes its plan back and forth does not get everything anew."""
    monthly = RuleSet([Rule("monthly", Kind.SLIDING, 5, 30 * DAY)])
    charge(counters, 5, monthly)
    for _ in range(3):
        charge(counters)
        clock.advance(3600)
    assert not charge(counters, 1, monthly).allowed
    clock.advance(60 * DAY)
    charge(counters)
    with opened(path) as connection:
        # 44 bytes each: the quota is over, so that it takes no space any more.
        assert connection.execute("SELECT length(windows) FROM counters").fetchall() == [(44,)]


def test_leases(counters: SqliteCounters, clock: FakeClock) -> None:
    """One id counts once, a release makes room, and what is renewed outlives what is not."""
    assert [charge(counters, 1, IN_FLIGHT, lease=lease(id_)).allowed for id_ in (1, 1, 2, 3)] == [True] * 3 + [False]
    counters.settle([Settlement(KEY, IN_FLIGHT, (0,), (0.0,), lease(1))])
    assert charge(counters, 1, IN_FLIGHT, lease=lease(3)).counts[0].used == 2
    clock.advance(LEASE_SECONDS - 1)
    counters.renew([(KEY, IN_FLIGHT, lease(3))])
    rejected = charge(counters, 1, IN_FLIGHT, lease=lease(4))
    assert not rejected.allowed
    assert rejected.counts[0].wait == 1
    clock.advance(1)
    assert used(counters, IN_FLIGHT) == [1]
    assert charge(counters, 1, IN_FLIGHT, lease=lease(4)).allowed
    assert not charge(counters, 1, IN_FLIGHT, lease=lease(5)).allowed
    clock.advance(LEASE_SECONDS)
    counters.renew([(KEY, IN_FLIGHT, lease(4))])
    assert used(counters, IN_FLIGHT) == [0]


def test_lease_without_a_name(counters: SqliteCounters) -> None:
    """It would be the same lease for all requests, so it is an error."""
    with pytest.raises(ValueError, match="8 bytes"):
        charge(counters, 1, IN_FLIGHT)
    assert used(counters, IN_FLIGHT) == [0]


def test_peek(counters: SqliteCounters) -> None:
    """It charges nothing, returns the wait for given prices, and does not wait for charges."""
    charge(counters, 8)
    other = SqliteCounters(counters._file._counts.path, FakeClock())
    with counters._file.transaction():
        assert [other.peek(KEY, HOURLY, prices).allowed for prices in ((), (2,), (3,))] == [True, True, False]
        assert other.peek(KEY, HOURLY, (3,)).counts[0][:3] == (8, 3600, 3600)
    assert used(counters) == [8]


@pytest.mark.parametrize("kind", [Kind.FIXED, Kind.SLIDING, Kind.GCRA])
def test_settlement(counters: SqliteCounters, clock: FakeClock, kind: Kind) -> None:
    """A correction counts in the window that was charged, and is dropped when that is over."""
    rules = RuleSet([Rule("rows", kind, 10, 60.0, unit="rows"), *IN_FLIGHT.rules])
    verdict = counters.charge([Charge(KEY, rules, (8, 1), lease(1))])[0]
    starts = tuple(count.start for count in verdict.counts)
    counters.settle_later([Settlement(KEY, rules, (-5, 0), starts, lease(1))])
    assert used(counters, rules) == [pytest.approx(3), 0]
    clock.advance(150)
    counters.settle([Settlement(KEY, rules, (-3, 0), starts)])
    assert charge(counters, 1, RuleSet(rules.rules[:1])).counts[0].used == pytest.approx(1)


def test_backoff(path: Path, clock: FakeClock) -> None:
    """A caller that continues beyond a limit is rejected for longer than the window, until cleared; others are not."""
    backoff = Backoff(tolerance=2, base=100.0, jitter=0.0)
    counters = SqliteCounters(path, clock, backoff)
    rules = RuleSet([Rule("minute", Kind.FIXED, 1, 60.0)], backs_off=True)
    assert charge(counters, 1, rules, name="alice").allowed
    # A price that never fits is no reason to come back, so it is no strike either.
    for _ in range(5):
        clock.advance(1)
        assert charge(counters, 5, rules).penalty == 0
    penalties = []
    for _ in range(4):
        clock.advance(2)
        penalties.append(charge(counters, 1, rules).penalty)
    assert penalties == [0, 0, 0, 100]
    clock.advance(60)
    verdict = SqliteCounters(path, clock, backoff).peek(KEY, rules)
    assert (round(verdict.penalty), verdict.strikes) == (40, 1)
    assert not charge(counters, 1, rules).allowed
    assert charge(counters, 1, rules, key_of("bob")).allowed
    assert counters.clear(KEY)
    assert charge(counters, 1, rules).allowed


def test_rejection_of_one_is_no_strike_for_another(path: Path, clock: FakeClock) -> None:
    """A caller whose own limits allow the request is not at fault when the route is full."""
    counters = SqliteCounters(path, clock, Backoff(tolerance=0, jitter=0.0))
    route, caller = (RuleSet([Rule("minute", Kind.FIXED, amount, 60.0)], backs_off=True) for amount in (1, 100))
    for _ in range(5):
        clock.advance(2)
        found = counters.charge([Charge(key_of("route"), route, (1,)), Charge(KEY, caller, (1,))])
    assert [each.strikes > 0 for each in found] == [True, False]


def test_clear_and_callers(counters: SqliteCounters, clock: FakeClock, path: Path) -> None:
    """Callers are found by name, page by page, until all are cleared."""
    names = {key_of(str(number)): f"caller {number}" for number in range(1100)}
    for key, name in names.items():
        charge(counters, key=key, name=name)
    charge(counters)
    assert counters.callers() == names
    first = next(iter(names))
    assert [counters.clear(first), counters.clear(first), counters.clear(key_of("nobody"))] == [True, False, False]
    assert (used(counters, key=first), first in counters.callers(), rows(path)) == ([0], False, 1100)
    clock.advance(3600)
    assert counters.callers() == {}
    assert not counters.clear(KEY)


# --- size ------------------------------------------------------------------------------------------------


def test_too_many_keys(path: Path, clock: FakeClock) -> None:
    """A flood of others neither grows the file nor lifts a limit that is used up, a penalty, or a lease."""
    counters = SqliteCounters(path, clock, Backoff(tolerance=0, base=600.0), max_keys=50)
    strict = RuleSet([Rule("minute", Kind.FIXED, 1, 60.0)], backs_off=True)
    charge(counters, 10)
    for _ in range(3):
        charge(counters, 1, strict, key_of("penalty"))
        clock.advance(1.5)
    # Its window is over, and the penalty goes on.
    clock.advance(60)
    assert not charge(counters, 1, strict, key_of("penalty")).allowed
    charge(counters, 1, IN_FLIGHT, key_of("busy"), lease=lease(1))
    for number in range(500):
        assert charge(counters, key=key_of("flood", str(number))).allowed
    assert rows(path) <= 50
    assert not charge(counters).allowed
    assert used(counters, IN_FLIGHT, key_of("busy")) == [1]
    assert counters.peek(key_of("penalty"), strict).penalty > 400


def test_flood_of_keys_that_are_used_up(path: Path, clock: FakeClock) -> None:
    """Even then the file does not grow."""
    counters = SqliteCounters(path, clock, max_keys=50)
    for number in range(300):
        assert charge(counters, 10, key=key_of("flood", str(number))).allowed
    assert rows(path) <= 50


def test_old_rows_are_deleted(counters: SqliteCounters, clock: FakeClock, path: Path) -> None:
    """A few at a time, also without new callers."""
    for number in range(300):
        charge(counters, key=key_of(str(number)))
    clock.advance(3600)
    found = []
    for _ in range(12):
        clock.advance(1)
        charge(counters)
        found.append(rows(path))
    assert found[0] > 200
    assert found[-1] == 1


# --- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [DAY, -DAY, 400 * DAY, -400 * DAY])
def test_time_of_day_that_is_set(path: Path, step: float) -> None:
    """It neither lifts nor extends a limit, for new workers too."""
    machine = Machine()
    counters = SqliteCounters(path, machine, boot="one")
    charge(counters, 10)
    machine.advance(600)
    machine.wall += step
    for each in (counters, SqliteCounters(path, machine, boot="one")):
        assert charge(each).counts[0].wait == pytest.approx(3000)
    machine.advance(3000)
    assert charge(counters).allowed


@pytest.mark.parametrize("boots", [("one", "two"), ("unknown", "unknown")], ids=["boot ids", "no boot ids"])
@pytest.mark.parametrize(("wall", "wait"), [(900.0, 2700.0), (-DAY, 3000.0)], ids=["right", "set back"])
def test_restart_of_the_machine(path: Path, boots: tuple[str, str], wall: float, wait: float) -> None:
    """Time continues from the time of day, or from the last known time if that is later."""
    machine = Machine()
    charge(SqliteCounters(path, machine, boot=boots[0]), 10)
    machine.advance(600)
    assert charge(SqliteCounters(path, machine, boot=boots[0])).counts[0].wait == pytest.approx(3000)
    after = Machine(Machine().wall + wall, monotonic=5.0)
    counters = SqliteCounters(path, after, boot=boots[1])
    assert charge(counters).counts[0].wait == pytest.approx(wait)
    after.advance(wait)
    assert charge(SqliteCounters(path, after, boot=boots[1])).allowed


def test_boot_id(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's, and something constant where there is none."""
    from flask_secure_ml.limits import sqlite_file

    monkeypatch.setattr(sqlite_file, "_BOOT_ID", path)
    assert sqlite_file.boot_id() == "unknown"
    path.write_text("e4d1\n")
    assert sqlite_file.boot_id() == "e4d1"
