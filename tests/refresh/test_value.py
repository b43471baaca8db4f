"""A value that one caller refreshes: who fetches, who waits and for how long, and stale values."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Condition, Event
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.refresh import Attempt, Refreshed
from flask_secure_ml.testing import FakeClock

THREADS = 8
USUAL: dict[str, Any] = {"fresh": 0.5, "timeout": 0.25, "promised": 1.0, "keep": 60.0, "pause": 0.4}


class Source:
    """Something that is fetched: its value is a number, and it can be down, slow, or hang."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.value = 1
        self.fetches = 0
        self.fault: BaseException | None = None
        self.seconds = 0.0
        self.asked = Event()
        self.go = Event()
        self.go.set()
        self.given: list[int | None] = []

    def fetch(self, previous: int | None, attempt: Attempt) -> int:
        self.fetches += 1
        self.given.append(previous)
        value = self.value
        self.asked.set()
        self.go.wait(20)
        self.clock.advance(self.seconds)
        if self.fault is not None:
            raise self.fault
        return value

    def hang(self) -> None:
        self.asked.clear()
        self.go.clear()


@pytest.fixture
def source(clock: FakeClock) -> Source:
    return Source(clock)


@pytest.fixture
def refreshed(source: Source) -> Refreshed[int]:
    return make(source)


def make(source: Source, **changes: Any) -> Refreshed[int]:
    options: dict[str, Any] = {"name": "values", "uniform": lambda _low, high: high, **USUAL, **changes}
    return Refreshed(source.fetch, source.clock, **options)


class Landed:
    """The event of an attempt, whose waits take no time: they end when it is set, or when the test ends them."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._changed = Condition()
        self._waiting = 0
        self._round = 0
        self._is_set = False

    def wait(self, seconds: float) -> bool:
        with self._changed:
            before = self._round
            self.waits.append(round(seconds, 6))
            self._waiting += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._is_set or self._round != before, 10)
            return self._round == before

    def set(self) -> None:
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def time_out(self, callers: int, first: Callable[[], object]) -> None:
        """Let the waits of this many callers end, after another event."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting == callers, 10)
            first()
            self._waiting = 0
            self._round += 1
            self._changed.notify_all()


def started(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def run(code: str) -> None:
    """Run a script in a process of its own, which may fork and be patched."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=True)


# --- one caller ------------------------------------------------------------------------------------------


def test_fresh_value_costs_nothing(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """The source is called only when the value is due; the fetch gets the last value."""
    assert [refreshed.get() for _ in range(100)] == [1] * 100
    source.value = 2
    clock.advance(0.499)
    assert (refreshed.get(), source.fetches) == (1, 1)
    clock.advance(0.001)
    assert (refreshed.get(), source.fetches) == (2, 2)
    assert source.given == [None, 1]


def test_age_counts_from_the_start_of_the_fetch(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """A change during the fetch may be missing in the value."""
    source.seconds = 0.2
    refreshed.get()
    clock.advance(0.3)
    refreshed.get()
    assert source.fetches == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"fresh": 0.75},
        {"timeout": 0.5},
        {"promised": 0.75},
        {"keep": 0.9},
        {"total": 0.2},
        {"fresh": 0},
        {"timeout": 0},
        {"pause": 0},
        {"fresh": float("nan")},
        {"promised": float("nan")},
    ],
    ids=str,
)
def test_durations_that_cannot_keep_the_promise(source: Source, changes: dict[str, float]) -> None:
    """They are found when it is built."""
    with pytest.raises(ValueError, match="promised"):
        make(source, **changes)


def test_source_that_is_down(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """The last value serves until ``keep`` has passed, and the source is left alone for the pause."""
    refreshed.get()
    source.fault = DependencyUnavailable("no route")
    clock.advance(0.5)
    assert [refreshed.get() for _ in range(9)] == [1] * 9
    assert source.fetches == 2
    clock.advance(0.479)
    refreshed.get()
    assert source.fetches == 2
    clock.advance(0.001)
    refreshed.get()
    assert source.fetches == 3
    clock.advance(59.019)
    assert refreshed.get() == 1
    clock.advance(0.001)
    with pytest.raises(DependencyUnavailable) as caught:
        refreshed.get()
    assert "values" in caught.value.reason
    assert dict(caught.value.extra_headers)["Retry-After"]


def test_source_that_was_never_up(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """No value is returned, and not every caller fetches."""
    source.fault = DependencyUnavailable("no route")
    for _ in range(9):
        with pytest.raises(DependencyUnavailable):
            refreshed.get()
    assert source.fetches == 1
    source.fault = None
    clock.advance(0.5)
    assert refreshed.get() == 1


def test_pause_varies_by_a_fifth(source: Source, clock: FakeClock) -> None:
    """Workers that failed together do not come back together."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    refreshed = make(source, uniform=uniform)
    source.fault = DependencyUnavailable("no route")
    for seconds in (0.0, 0.319, 0.001):
        clock.advance(seconds)
        with pytest.raises(DependencyUnavailable):
            refreshed.get()
    assert (asked, source.fetches) == ([(0.8, 1.2)] * 2, 2)


def test_outage_is_logged_once(
    source: Source, refreshed: Refreshed[int], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When it begins and when it ends."""
    for fault in (None, OSError("gone"), OSError("gone"), None, None):
        source.fault = fault
        make_due(clock)
        if fault is None:
            refreshed.get()
        else:
            with pytest.raises(OSError, match="gone"):
                refreshed.get()
    assert caplog.records == []
    other = make(source, errors=(OSError,))
    for fault in (None, OSError("gone"), OSError(), None, None):
        source.fault = fault
        make_due(clock)
        other.get()
    assert [each.getMessage() for each in caplog.records] == [
        "values are not up to date: gone",
        "values are up to date again",
    ]


def make_due(clock: FakeClock) -> None:
    clock.advance(1)


def test_error_of_its_own(source: Source) -> None:
    """The user of the value defines which errors are failures, and what to raise."""
    source.fault = OSError("gone")
    refreshed = make(source, errors=(OSError,), unavailable=LookupError)
    with pytest.raises(LookupError, match="values"):
        refreshed.get()


@pytest.mark.parametrize("fault", [KeyError("bug"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()], ids=repr)
def test_whatever_is_raised_ends_the_attempt(source: Source, refreshed: Refreshed[int], fault: BaseException) -> None:
    """It reaches the caller that fetched; the next one fetches again, and no caller waits for the old attempt."""
    source.fault = fault
    for count in (1, 2):
        with pytest.raises(type(fault)):
            refreshed.get()
        assert source.fetches == count
    source.fault = None
    assert refreshed.get() == 1


@pytest.mark.parametrize("seconds", [-3600, -0.001])
def test_clock_that_is_set_back(source: Source, refreshed: Refreshed[int], clock: FakeClock, seconds: float) -> None:
    """A negative age, or a pause in the future, is unknown."""
    refreshed.get()
    source.value = 2
    clock.advance(seconds)
    assert refreshed.get() == 2
    source.fault = DependencyUnavailable("no route")
    clock.advance(0.5)
    assert refreshed.get() == 2
    clock.advance(-3600)
    with pytest.raises(DependencyUnavailable):
        refreshed.get()
    source.fault = None
    clock.advance(-3600)
    assert refreshed.get() == 2


def test_source_that_is_slower_than_promised(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """A value that is too old on arrival is fetched again a few times; then the source counts as down."""
    source.seconds = 1.0
    assert refreshed.get() == 1
    assert source.fetches == 3
    source.value, source.seconds = 2, 0.9
    assert refreshed.get() == 2
    source.seconds = 61
    with pytest.raises(DependencyUnavailable):
        refreshed.get()


def test_own_change_is_seen_at_once(source: Source, refreshed: Refreshed[int]) -> None:
    """Also while an attempt is under way that began before it."""
    refreshed.get()
    source.value = 2
    refreshed.invalidate()
    assert refreshed.get() == 2
    source.hang()
    refreshed.invalidate()
    thread = started(refreshed.get)
    assert source.asked.wait(10)
    source.value = 3
    refreshed.invalidate()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(refreshed.get)
        source.go.set()
        assert found.result(10) == 3
    thread.join(10)


def test_caller_that_needs_a_younger_value(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """It causes an earlier fetch, but not more often than the requested age."""
    refreshed.get()
    clock.advance(0.125)
    assert [refreshed.get(max_age=0.25), source.fetches] == [1, 1]
    source.value = 2
    clock.advance(0.125)
    assert [refreshed.get() for _ in range(3)] == [1] * 3
    assert [refreshed.get(max_age=0.25) for _ in range(3)] == [2] * 3
    assert source.fetches == 2
    clock.advance(0.5)
    assert refreshed.get(max_age=60) == 2
    assert source.fetches == 3


def test_younger_value_of_a_source_that_is_down(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """The last good value serves such a caller too, and the pause applies."""
    refreshed.get()
    source.fault = DependencyUnavailable("no route")
    clock.advance(0.25)
    assert [refreshed.get(max_age=0.25) for _ in range(5)] == [1] * 5
    assert source.fetches == 2


def test_poll(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """It keeps the value current for others, and does not fetch while it is young enough."""
    for _ in range(3):
        refreshed.poll(10)
    assert source.fetches == 1
    clock.advance(10)
    source.value = 2
    refreshed.poll(10)
    source.fault = DependencyUnavailable("no route")
    assert refreshed.get() == 2
    clock.advance(59)
    assert refreshed.get() == 2


@pytest.mark.parametrize("fault", [DependencyUnavailable("no route"), KeyError("bug")], ids=repr)
def test_poll_raises_nothing(
    source: Source, refreshed: Refreshed[int], fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that is down is logged once, and left alone for the pause."""
    source.fault = fault
    for _ in range(5):
        refreshed.poll(10)
    assert source.fetches == (1 if isinstance(fault, DependencyUnavailable) else 5)
    assert len(caplog.records) == isinstance(fault, DependencyUnavailable)


def test_poll_waits_for_nobody(source: Source, refreshed: Refreshed[int]) -> None:
    """While another caller fetches, it returns at once."""
    source.hang()
    fetching = started(refreshed.get)
    assert source.asked.wait(10)
    refreshed.poll(10)
    assert source.fetches == 1
    source.go.set()
    fetching.join(10)


# --- several reads ---------------------------------------------------------------------------------------


def test_value_that_takes_several_reads(clock: FakeClock) -> None:
    """Each has the time of one fetch, all have ``total``, and the age counts from the last."""
    left: list[float] = []

    def fetch(_: int | None, attempt: Attempt) -> int:
        for seconds in (0.2, 0.2, 0.2):
            clock.advance(seconds)
            left.append(round(attempt.remaining(), 3))
            attempt.read_on()
            left.append(round(attempt.remaining(), 3))
        clock.advance(0.1)
        return len(left)

    refreshed = Refreshed(fetch, clock, name="values", total=0.7, **USUAL)
    assert refreshed.get() == 6
    assert left == [0.05, 0.25, 0.05, 0.25, 0.05, 0.1]
    clock.advance(0.399)
    assert refreshed.get() == 6
    clock.advance(0.002)
    assert refreshed.get() == 12


def test_others_wait_while_the_reads_go_on(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first content may take longer than one read; callers that need it get it in the end."""
    landed = Landed()
    monkeypatch.setattr("flask_secure_ml.refresh.value.threading", SimpleNamespace(Event=lambda: landed))

    def fetch(_: int | None, attempt: Attempt) -> int:
        for _number in range(3):
            # Each read ends before the patience of the others does, which does before all reads end.
            landed.time_out(3, attempt.read_on)
        return 7

    refreshed = Refreshed(fetch, clock, name="values", total=60, **USUAL)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(refreshed.get) for _ in range(4)]
        assert [each.result(10) for each in found] == [7] * 4
    assert landed.waits == [0.5] * 3 * 4


# --- several callers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [5, 40, 61])
def test_burst_after_a_quiet_time(source: Source, refreshed: Refreshed[int], clock: FakeClock, quiet: float) -> None:
    """No caller gets the old value, and one fetches for all."""
    refreshed.get()
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(2, 22):
            source.value = number
            clock.advance(quiet)
            source.fetches = 0
            start = Barrier(THREADS)
            found = pool.map(lambda _, start=start: (start.wait(), refreshed.get())[1], range(THREADS))
            assert (list(found), source.fetches) == ([number] * THREADS, 1)


def test_caller_that_comes_when_another_one_just_landed(source: Source, refreshed: Refreshed[int]) -> None:
    """Between its look at the value and its turn a fetch may have ended; it then looks again and does not fetch."""
    seen, paused = refreshed._good, refreshed._paused
    refreshed.get()
    attempt = Attempt(source.clock, 1, 1, 1, object())
    assert refreshed._take_off(attempt, seen, paused) is None
    assert refreshed._attempt is None
    refreshed.invalidate()
    source.fault = DependencyUnavailable("no route")
    seen, paused = refreshed._good, refreshed._paused
    refreshed.get()
    assert refreshed._take_off(attempt, seen, paused) is None
    assert refreshed._attempt is None


def test_others_go_on_with_what_is_promised(source: Source, refreshed: Refreshed[int], clock: FakeClock) -> None:
    """While one fetches, the last value serves until its age is that of the promise."""
    refreshed.get()
    source.hang()
    clock.advance(0.5)
    fetching = started(refreshed.get)
    assert source.asked.wait(10)
    source.value = 2
    clock.advance(0.499)
    assert refreshed.get() == 1
    with ThreadPoolExecutor(THREADS) as pool:
        clock.advance(0.001)
        waiting = [pool.submit(refreshed.get) for _ in range(THREADS)]
        source.go.set()
        # The attempt began before the change, and its result is too old; the next one has it.
        assert {each.result(10) for each in waiting} <= {1, 2}
    fetching.join(10)
    assert refreshed.get() == 2


def test_nobody_waits_long_for_a_fetch_that_hangs(source: Source, clock: FakeClock) -> None:
    """The first ones wait for a moment, the later ones not at all; the last good value serves."""
    refreshed = make(source)
    refreshed.get()
    clock.advance(5)
    source.hang()
    fetching = started(refreshed.get)
    assert source.asked.wait(10)
    attempt = refreshed._attempt
    assert attempt is not None
    landed, waits = attempt.landed, []

    def wait(seconds: float) -> bool:
        waits.append(round(seconds, 6))
        return Event.wait(landed, seconds)

    landed.wait = wait  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(lambda _: refreshed.get(), range(THREADS))) == [1] * THREADS
    assert waits == [0.5] * THREADS
    clock.advance(0.6)
    assert [refreshed.get() for _ in range(20)] == [1] * 20
    assert waits[THREADS:] == [0.0] * 20
    clock.advance(60)
    with pytest.raises(DependencyUnavailable):
        refreshed.get()
    assert source.fetches == 2
    source.go.set()
    fetching.join(10)
    assert refreshed.get() == 1


def test_fetch_that_hangs_is_logged(
    source: Source, refreshed: Refreshed[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Once, by callers that stop waiting for it, as it cannot log itself; and when it ends."""
    source.hang()
    fetching = started(refreshed.get)
    assert source.asked.wait(10)
    source.clock.advance(5)
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            refreshed.get()
    source.go.set()
    fetching.join(10)
    refreshed.get()
    assert [each.getMessage() for each in caplog.records] == [
        "values are not up to date: the source does not respond in time",
        "values are up to date again",
    ]


def test_own_change_ends_a_pause(source: Source, refreshed: Refreshed[int]) -> None:
    """The change has reached the source, so it is called at once."""
    refreshed.get()
    refreshed.invalidate()
    source.fault = DependencyUnavailable("no route")
    assert refreshed.get() == 1
    source.fault, source.value = None, 2
    assert refreshed.get() == 1
    refreshed.invalidate()
    assert refreshed.get() == 2


def test_failure_reaches_those_who_wait(source: Source, refreshed: Refreshed[int]) -> None:
    """They do not fetch again."""
    source.hang()
    source.fault = DependencyUnavailable("no route")
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(refreshed.get) for _ in range(THREADS)]
        assert source.asked.wait(10)
        source.go.set()
        assert {type(each.exception(10)) for each in waiting} == {DependencyUnavailable}
    assert source.fetches == 1


def test_thread_that_is_interrupted(source: Source, refreshed: Refreshed[int]) -> None:
    """A waiting caller fetches instead."""
    import ctypes

    source.hang()
    ended: list[type[BaseException]] = []

    def interrupted() -> None:
        try:
            refreshed.get()
        except SystemExit:
            ended.append(SystemExit)

    thread = started(interrupted)
    assert source.asked.wait(10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refreshed.get)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        source.go.set()
        assert waiting.result(10) == 1
    thread.join(10)
    assert ended == [SystemExit]


FORK = """
import os, signal, threading
from flask_secure_ml.refresh import Refreshed
from flask_secure_ml.testing import FakeClock
clock = FakeClock()
inside, pids = threading.Event(), []
def fetch(previous, attempt):
    pids.append(os.getpid())
    if len(pids) == 2 and os.getpid() == parent:
        inside.set()
        threading.Event().wait(20)
    return os.getpid()
parent = os.getpid()
made = Refreshed(fetch, clock, name="x", fresh=0.01, timeout=0.01, promised=0.03, keep=60, pause=0.1)
made.get()
"""
FORK_IN_MID_FLIGHT = (
    FORK
    + """
clock.advance(0.05)
threading.Thread(target=made.get, daemon=True).start()
inside.wait(10)
child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(0 if made.get() == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""
)
FORK_WITH_THE_MUTEX = (
    FORK
    + """
with made._lock.get():
    clock.advance(0.05)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        found = []
        thread = threading.Thread(target=lambda: found.append(made.get()))
        thread.start()
        thread.join(5)
        os._exit(0 if found == [os.getpid()] else 1)
assert os.waitpid(child, 0)[1] == 0
"""
)


@pytest.mark.parametrize("code", [FORK_IN_MID_FLIGHT, FORK_WITH_THE_MUTEX], ids=["in mid-flight", "with the mutex"])
def test_fork(code: str) -> None:
    """A child waits for no thread that it does not have."""
    run(code)


GEVENT = """
import signal
from flask_secure_ml.refresh import Refreshed
from flask_secure_ml.testing import FakeClock
def fetch(previous, attempt):
    calls.append(1)
    meanwhile()
    return len(calls)
calls, meanwhile = [], lambda: None
# The others wait for as long as the script may run.
made = Refreshed(fetch, FakeClock(), name="x", fresh=0.5, timeout=0.25, promised=60, keep=60, pause=0.4)
if LOADED_AND_USED:
    made.get()
    made.invalidate()
    calls.clear()
from gevent import monkey
monkey.patch_all()
import gevent
from gevent.event import Event
signal.alarm(20)
# The other greenlets run until they wait.
meanwhile = lambda: gevent.sleep(0)
jobs = [gevent.spawn(made.get) for _ in range(20)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == [1] * 20
# A greenlet that is killed while it fetches leaves nothing behind.
inside = Event()
def meanwhile():
    inside.set()
    Event().wait()
made.invalidate()
killed = gevent.spawn(made.get)
inside.wait()
meanwhile = lambda: None
waiting = gevent.spawn(made.get)
gevent.sleep(0)
assert len(calls) == 2
killed.kill()
assert waiting.get() == 3
"""


@pytest.mark.parametrize("used", [False, True], ids=["made before", "used before"])
def test_gevent_that_comes_later(used: bool) -> None:
    """A server that loads the app first and patches its workers afterwards does not hang."""
    pytest.importorskip("gevent")
    run(GEVENT.replace("LOADED_AND_USED", str(used)))


# --- against a model -------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 1.0, 5.0, 59.0])),
        st.tuples(st.just("down"), st.booleans()),
        st.tuples(st.just("slow"), st.sampled_from([0.0, 0.1, 0.2])),
        st.tuples(st.just("own"), st.just(0)),
        st.tuples(st.just("get"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_promise(steps: list[tuple[str, float]]) -> None:
    """Never older than promised while the source works, never older than ``keep``, and without idling."""
    clock = FakeClock(1000.0)
    source = Source(clock)
    history = [(clock.monotonic(), source.value)]
    refreshed = make(source)
    failed_at, own = -100.0, 0
    for step, amount in steps:
        if step == "wait":
            clock.advance(amount)
            source.value += 1
            history.append((clock.monotonic(), source.value))
        elif step == "down":
            source.fault = DependencyUnavailable("down") if amount else None
        elif step == "slow":
            source.seconds = amount
        elif step == "own":
            source.value += 1
            own = source.value
            # Whoever changed it has just reached it.
            failed_at = -100.0
            history.append((clock.monotonic(), source.value))
            refreshed.invalidate()
        else:
            began, before = clock.monotonic(), source.fetches
            try:
                found = refreshed.get()
            except DependencyUnavailable:
                found = None
            fetched = source.fetches - before
            if fetched and source.fault:
                failed_at = clock.monotonic()
            paused = began < failed_at + 0.48
            works = source.fault is None and not paused
            assert fetched <= 1
            if works:
                assert found is not None
                assert found >= max([value for at, value in history if at <= clock.monotonic() - 1.0], default=0)
                assert found >= own
            if found is not None:
                assert found >= max([value for at, value in history if at <= clock.monotonic() - 60.0], default=0)
            assert not (paused and failed_at < began and fetched)
