"""Objects that each process creates for itself, and calls that the threads of one process share."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import flask_secure_ml
from flask_secure_ml.refresh import PerProcess, SingleFlight

PACKAGE = Path(flask_secure_ml.__file__).parent
THREADS = 8


def run(code: str) -> None:
    """Run a script in a process of its own, which may fork and be patched."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=True)


def test_one_object_for_all_threads() -> None:
    """Also when they ask for it at the same time."""
    start = threading.Barrier(THREADS)

    def make() -> object:
        start.wait()
        return object()

    made = PerProcess(make)
    with ThreadPoolExecutor(THREADS) as pool:
        assert len(set(pool.map(lambda _: made.get(), range(THREADS)))) == 1


FORK = """
import os, signal, threading
from flask_secure_ml.refresh import process_lock
lock = process_lock()
thread = threading.Thread(target=lock.get().acquire)
thread.start()
thread.join()
if os.fork() == 0:
    signal.alarm(10)
    with lock.get():
        os._exit(0)
assert os.wait()[1] == 0
"""


def test_lock_that_a_thread_of_the_parent_holds() -> None:
    """A child is not blocked by it."""
    run(FORK)


def test_locks_are_made_for_each_process() -> None:
    """No module makes a lock itself; those that do have them in an object for each process."""
    kinds = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in kinds
    }
    assert found == {
        "observe/alerts/sender.py",
        "observe/anomalies/recorder.py",
        "observe/audit/writer.py",
        "refresh/process.py",
        "transport/drain.py",
    }


# --- one flight ------------------------------------------------------------------------------------------


class Calls:
    """Counts calls, each of which caches a value, and blocks them until the test releases them."""

    def __init__(self) -> None:
        self.count = 0
        self.value: str | None = None
        self.fault: BaseException | None = None
        self.begun = threading.Event()
        self.go = threading.Event()

    def cached(self) -> str | None:
        return self.value

    def fetch(self) -> str:
        self.count += 1
        self.begun.set()
        self.go.wait(10)
        if self.fault is not None:
            raise self.fault
        self.value = "value"
        return self.value


def test_callers_share_one_call() -> None:
    """Those that come while it runs wait for its result."""
    calls, flights = Calls(), SingleFlight()
    with ThreadPoolExecutor(THREADS) as pool:
        found = [pool.submit(flights.run, "k", calls.cached, calls.fetch, 10) for _ in range(THREADS)]
        assert calls.begun.wait(10)
        calls.go.set()
        assert [each.result(10) for each in found] == ["value"] * THREADS
    assert calls.count == 1


def test_keys_do_not_wait_for_each_other() -> None:
    """Each has a flight of its own."""
    slow, quick, flights = Calls(), Calls(), SingleFlight()
    quick.go.set()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flights.run, "slow", slow.cached, slow.fetch, 10)
        assert slow.begun.wait(10)
        assert flights.run("quick", quick.cached, quick.fetch, 10) == "value"
        slow.go.set()
        assert waiting.result(10) == "value"


@pytest.mark.parametrize("fault", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_error_reaches_the_caller_that_fetched(fault: BaseException) -> None:
    """The next one fetches again; callers do not wait for a call that has ended."""
    calls, flights = Calls(), SingleFlight()
    calls.fault = fault
    calls.go.set()
    for _ in range(2):
        with pytest.raises(type(fault)):
            flights.run("k", calls.cached, calls.fetch, 0.1)
    calls.fault = None
    assert flights.run("k", calls.cached, calls.fetch, 0.1) == "value"
    assert calls.count == 3


def test_call_that_takes_too_long() -> None:
    """Those that wait give up; the one that runs it does not."""
    calls, flights = Calls(), SingleFlight()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flights.run, "k", calls.cached, calls.fetch, 10)
        assert calls.begun.wait(10)
        with pytest.raises(TimeoutError, match="another thread"):
            flights.run("k", calls.cached, calls.fetch, 0.01)
        calls.go.set()
        assert running.result(10) == "value"


FORK_IN_FLIGHT = """
import os, signal, threading
from flask_secure_ml.refresh import SingleFlight
begun, flights = threading.Event(), SingleFlight()
def hang():
    begun.set()
    threading.Event().wait(20)
threading.Thread(target=flights.run, args=("k", lambda: None, hang, 1), daemon=True).start()
begun.wait(10)
if os.fork() == 0:
    signal.alarm(10)
    os._exit(0 if flights.run("k", lambda: None, lambda: 1, 5) == 1 else 1)
assert os.wait()[1] == 0
os._exit(0)
"""


def test_call_of_the_parent() -> None:
    """A child does not wait for a call that never ends there."""
    run(FORK_IN_FLIGHT)


GEVENT = """
import signal
from flask_secure_ml.refresh import SingleFlight
flights, found = SingleFlight(), []
flights.run("k", lambda: None, lambda: 1, 1)
from gevent import monkey
monkey.patch_all()
import gevent
signal.alarm(20)
def fetch():
    # The other greenlets run until they wait.
    gevent.sleep(0)
    found.append(1)
    return 1
cached = lambda: found[0] if found else None
jobs = [gevent.spawn(flights.run, "k", cached, fetch, 20) for _ in range(20)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == [1] * 20 and len(found) == 1
"""


def test_gevent_that_comes_later() -> None:
    """Greenlets of a process that was patched after the first use wait for each other without a deadlock."""
    pytest.importorskip("gevent")
    run(GEVENT)
