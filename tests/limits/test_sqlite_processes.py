"""Counting in a file by several processes, which are forked, stopped and killed, or run greenlets."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from counter_files import IN_FLIGHT, charge, run, worker
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import LEASE_SECONDS
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.testing import FakeClock

MANY = int(os.environ.get("MANY_REQUESTS", "1"))
"""How many times as many workers are killed as usual: for the long proof."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db-limits"


# Each thread charges until it was rejected several times in a row; the parent has used the file before it forks.
EXACT = """
processes, threads = int(sys.argv[2]), 3
route, other = key_of("route"), key_of("caller", "bob")
kinds = {kind: RuleSet([Rule(kind.name, kind, 2000, 1e8)]) for kind in (Kind.FIXED, Kind.SLIDING, Kind.GCRA)}
route_rules = RuleSet([Rule("route", Kind.FIXED, 500, 1e8)])
own = RuleSet([Rule("own", Kind.SLIDING, 400, 1e8)])
rows = RuleSet([Rule("rows", Kind.FIXED, 900, 1e8, unit="rows")])
counters = SqliteCounters(sys.argv[1], SystemClock(), timeout=PATIENT)
counters.charge([Charge(KEY, HOURLY, (1,))])

def until_rejected(attempt):
    allowed = rejected = 0
    while rejected < 3:
        made = attempt()
        allowed, rejected = allowed + made, 0 if made else rejected + 1
    return allowed

def strategy(rules):
    return lambda: counters.charge([Charge(KEY, rules, (3,))])[0].allowed

def two_keys():
    caller = random.choice((KEY, other))
    found = counters.charge([Charge(route, route_rules, (1,)), Charge(caller, own, (1,))])
    return found[0].allowed and found[1].allowed

def settled():
    found = counters.charge([Charge(KEY, rows, (5,))])[0]
    if found.allowed:
        counters.settle([Settlement(KEY, rows, (-3,), (found.counts[0].start,))])
    return found.allowed

def leases():
    return counters.charge([Charge(KEY, IN_FLIGHT, (1,), random.randbytes(8))])[0].allowed

jobs = [*map(strategy, kinds.values()), settled, two_keys, leases]

def work(sums):
    for number, job in enumerate(jobs):
        sums[number] += until_rejected(job)

read, write = os.pipe()
wait, start = os.pipe()
for _ in range(processes):
    if os.fork() == 0:
        signal.alarm(100)
        os.close(start)
        os.read(wait, 1)
        found = [[0] * len(jobs) for _ in range(threads)]
        running = [threading.Thread(target=work, args=(each,)) for each in found]
        for each in running: each.start()
        for each in running: each.join()
        os.write(write, (" ".join(str(sum(column)) for column in zip(*found)) + "\\n").encode())
        os._exit(0)
os.close(start)
assert all(os.wait()[1] == 0 for _ in range(processes))
os.close(write)
sums = [sum(map(int, column)) for column in zip(*(line.split() for line in os.fdopen(read)))]
used = lambda key, rules: [round(count.used) for count in counters.peek(key, rules).counts]
assert sums[:3] == [666, 666, 666], sums
assert [used(KEY, rules) for rules in kinds.values()] == [[1998]] * 3
# A charge of 5 is settled to 2; while others are not settled yet it may not fit.
assert used(KEY, rows) == [2 * sums[3]] and 2 * sums[3] <= 900 and sums[3] >= 900 // 5, sums
assert used(route, route_rules) == [500] and sums[4] == 500, sums
assert used(KEY, own)[0] + used(other, own)[0] == 500
assert sums[5] == 2
"""


@pytest.mark.parametrize("processes", [2, 4] if MANY == 1 else [2, 4, 8])
def test_exact_for_all_processes_and_threads(path: Path, processes: int) -> None:
    """Exactly the limit is accepted, for any prices."""
    run(EXACT, path, processes)


KILLED = """
random.seed(int(sys.argv[2]))
rules = RuleSet([Rule("a", Kind.FIXED, 10**6, 1e8), Rule("b", Kind.SLIDING, 10**6, 1e8)])
route = key_of("route")
counters = SqliteCounters(sys.argv[1], SystemClock(), timeout=PATIENT)
done, rounds = 0, 12
for _ in range(rounds):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.close(read)
        while True:
            charged = counters.charge([Charge(KEY, rules, (1, 1)), Charge(route, rules, (1, 1))])
            os.write(write, b"x" if charged[0].allowed else b"?")
    os.close(write)
    for _ in range(random.randrange(1, 60)):
        assert os.read(read, 1) == b"x"
        done += 1
    # Anywhere within a charge.
    ends = time.perf_counter() + random.random() * 2e-4
    while time.perf_counter() < ends: pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while os.read(read, 1): done += 1
    os.close(read)
counts = [count.used for key in (KEY, route) for count in counters.peek(key, rules).counts]
# A charge may be made, and its worker killed before it says so.
assert len(set(counts)) == 1 and done <= counts[0] <= done + rounds, (counts, done)
import sqlite3
assert sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"""


@pytest.mark.parametrize("seed", range(1, MANY + 1))
def test_workers_that_are_killed(path: Path, seed: int) -> None:
    """A charge is applied completely or not at all, and the next worker continues at once."""
    run(KILLED, path, seed)


def test_leases_of_a_killed_worker(path: Path) -> None:
    """They expire when they are not renewed."""
    clock = FakeClock()
    counters = SqliteCounters(path, clock)
    with worker(
        "[charge(1, IN_FLIGHT, each * 8) for each in (b'a', b'b')]; say(); hear()", path, -signal.SIGKILL
    ) as one:
        one.hear()
        one.process.kill()
    clock.advance(LEASE_SECONDS - 1)
    assert not charge(counters, 1, IN_FLIGHT, lease=b"c" * 8).allowed
    clock.advance(1)
    assert charge(counters, 1, IN_FLIGHT, lease=b"c" * 8).allowed


def test_worker_that_is_stopped_in_a_charge(path: Path) -> None:
    """The others get 503 after a bounded time, and continue when it does."""
    counters = SqliteCounters(path, FakeClock(), timeout=0.05)
    with worker("with counters._file.transaction(): say(); hear()", path) as process:
        process.hear()
        process.process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(DependencyUnavailable) as caught:
                charge(counters)
            assert "locked" in caught.value.reason
        process.process.send_signal(signal.SIGCONT)
        process.say()
    assert charge(counters).counts[0].used == 1


def test_thread_that_waits_for_another_one(path: Path) -> None:
    """That is bounded too."""
    counters = SqliteCounters(path, FakeClock(), timeout=0.05)
    with counters._file.transaction(), pytest.raises(DependencyUnavailable) as caught:
        charge(counters)
    assert "busy" in caught.value.reason


@pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("",)])
def test_file_that_was_removed_while_another_worker_has_it(path: Path, suffixes: tuple[str, ...]) -> None:
    """Also one that does not notice for a while, and its log and index are not taken for those of the new file."""
    counters = SqliteCounters(path, FakeClock())
    charge(counters, 2)
    many = "[counters.charge([Charge(key_of(str(each)), HOURLY, (1,))]) for each in range(300)]"
    with worker(f"{many}; say(); hear(); charge(); say(); hear()", path) as process:
        process.hear()
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink()
        assert [charge(counters).counts[0].used for _ in range(5)] == [1, 2, 3, 4, 5]
        with worker("charge(); say()", path) as new:
            new.hear()
        process.say()
        process.hear()
        assert charge(counters).counts[0].used == 8
        process.say()
    assert charge(counters).counts[0].used == 9


FORKED = """
HOURLY = RuleSet([Rule("hourly", Kind.FIXED, 10**6, 3600.0)])
counters = SqliteCounters(sys.argv[1], SystemClock(), timeout=PATIENT)
charge = lambda: counters.charge([Charge(KEY, HOURLY, (1,))])[0].allowed
stop = threading.Event()
made = [0]
def go_on():
    while made[0] < 30 or not stop.is_set():
        made[0] += charge()
running = threading.Thread(target=go_on)
running.start()
for _ in range(10):
    if os.fork() == 0:
        signal.alarm(30)
        os._exit(0 if charge() else 1)
    assert os.wait()[1] == 0
stop.set()
running.join()
assert counters.peek(KEY, HOURLY).counts[0].used == made[0] + 10
"""


def test_fork_while_a_thread_charges(path: Path) -> None:
    """Parent and child continue with separate connections, and no lock remains."""
    run(FORKED, path)


FULL_DISK = """
import logging, resource
lines = []
logging.getLogger().addHandler(type("Lines", (logging.Handler,), {"emit": lambda _, record: lines.append(record)})())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def fill(path, room):
    lines.clear()
    if room is None:
        SqliteCounters(path, SystemClock()).charge([Charge(KEY, HOURLY, (1,))])
    resource.setrlimit(resource.RLIMIT_FSIZE, (room or 0, hard))
    counters = SqliteCounters(path, SystemClock())
    failed = 0
    for number in range(300):
        try:
            counters.charge([Charge(key_of(str(number)), HOURLY, (1,))])
        except DependencyUnavailable as error:
            assert dict(error.extra_headers)["Retry-After"] == "1"
            failed += 1
    assert failed
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert counters.charge([Charge(key_of("new"), HOURLY, (1,))])[0].counts[0].used == 1
    assert lines[0].levelname == "ERROR" and lines[-1].levelname == "WARNING", lines

# Nothing fits, the file fits, some charges fit, and a disk that becomes full later.
for number, room in enumerate((0, 8192, 65536, None)):
    fill(sys.argv[1] + str(number), room)
"""


def test_disk_that_is_full(path: Path) -> None:
    """503 until there is room."""
    run(FULL_DISK, path)


READ_ONLY = """
counters = SqliteCounters(sys.argv[1], SystemClock())
counters.charge([Charge(KEY, HOURLY, (1,))])
del counters
os.chmod(sys.argv[1], 0o444)
os.chmod(os.path.dirname(sys.argv[1]), 0o755)
if os.getuid() == 0:
    os.seteuid(65534)
try:
    SqliteCounters(sys.argv[1], SystemClock())
except ValueError as error:
    assert "denied" in str(error)
else:
    raise SystemExit("no error")
"""


def test_file_that_others_own(path: Path) -> None:
    """It is a fault of the configuration, reported at start."""
    run(READ_ONLY, path)


GEVENT = """
HOURLY = RuleSet([Rule("hourly", Kind.FIXED, 100, 3600.0)])
counters = SqliteCounters(sys.argv[1], SystemClock(), timeout=0.25)
from gevent import monkey
monkey.patch_all()
import gevent
import sqlite3
jobs = [gevent.spawn(lambda: [counters.charge([Charge(KEY, HOURLY, (1,))]) for _ in range(8)]) for _ in range(10)]
gevent.joinall(jobs, raise_error=True)
assert counters.peek(KEY, HOURLY).counts[0].used == 80
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
ticks = [0]
def tick():
    while True:
        ticks[0] += 1
        gevent.sleep(0)
ticking = gevent.spawn(tick)
def rejected():
    try:
        counters.charge([Charge(KEY, HOURLY, (1,))])
    except DependencyUnavailable:
        return True
waiting = [gevent.spawn(rejected) for _ in range(3)]
gevent.joinall(waiting, raise_error=True)
assert all(each.value for each in waiting)
# The waiting pauses a hundred times at least.
assert ticks[0] > 50, ticks
killed = gevent.spawn(rejected)
gevent.sleep(0.01)
killed.kill()
other.execute("ROLLBACK")
ticking.kill()
assert counters.charge([Charge(KEY, HOURLY, (1,))])[0].counts[0].used == 81
"""


def test_greenlets(path: Path) -> None:
    """gevent may patch the worker later, others run while one waits, and a killed one leaves no lock."""
    pytest.importorskip("gevent")
    run(GEVENT, path)
