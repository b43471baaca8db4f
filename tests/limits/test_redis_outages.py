"""Counters on a server that hangs, dies, is full or read-only: requests wait as long as they may, and then not."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import Backoff, Charge, Settlement, Verdict
from flask_secure_ml.limits.redis import CONNECT_TIMEOUT, TIMEOUT, RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores.redis_nodes import PAUSE
from flask_secure_ml.testing import FakeClock
from servers import free_port, valkey
from waits import HANG, assert_bounded

pytestmark = pytest.mark.usefixtures("no_jitter")
KEY = key_of("caller", "bob")
NAME = f"flask-secure-ml:limits:{{{KEY.hex()}}}"
ONE = RuleSet([Rule("limit", Kind.FIXED, 2, 3600.0)])
FOUR = RuleSet(
    [
        Rule("second", Kind.SLIDING, 1000, 1.0),
        Rule("minute", Kind.FIXED, 5000, 60.0),
        Rule("rows", Kind.GCRA, 100_000, 86_400.0, unit="rows"),
        Rule("flight", Kind.LEASES, 10, 0.0, unit="concurrent-requests"),
    ],
    backs_off=True,
)


@pytest.fixture
def counters(address: str, clock: FakeClock) -> RedisCounters:
    return RedisCounters(address, None, clock, connect_timeout=HANG, backoff=Backoff())


def charge(counters: RedisCounters, rules: RuleSet = ONE) -> Verdict:
    (verdict,) = counters.charge([Charge(KEY, rules, rules.prices(5), os.urandom(8))])
    return verdict


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        action()
    return caught.value.reason


def test_server_that_hangs(tmp_path: Path, clock: FakeClock, socket_waits: list[float | None]) -> None:
    """A request waits for its time-out, the next ones not at all, and all is well a second after the server is."""
    with valkey(tmp_path) as running:
        counters = RedisCounters(f"redis://127.0.0.1:{running.port}", None, clock, connect_timeout=HANG)
        while not _works(counters):
            clock.advance(PAUSE)
        os.kill(running._process.pid, signal.SIGSTOP)
        try:
            socket_waits.clear()
            assert "TimeoutError" in fails(lambda: charge(counters))
            assert_bounded(socket_waits, TIMEOUT)
            socket_waits.clear()
            assert "a moment ago" in fails(lambda: charge(counters))
            assert counters.settle_later([Settlement(KEY, ONE, (-1,), (0.0,))]) is None
            assert socket_waits == []
        finally:
            os.kill(running._process.pid, signal.SIGCONT)
        clock.advance(PAUSE)
        while not _works(counters):
            clock.advance(PAUSE)


def _works(counters: RedisCounters) -> bool:
    """Return whether a server responds in time, which a busy machine may prevent."""
    with suppress(DependencyUnavailable):
        charge(counters)
        return True
    return False


def test_time_to_connect(clock: FakeClock, socket_waits: list[float | None]) -> None:
    """A quarter of a second, with all that is said before the first command."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counters = RedisCounters(f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/3", None, clock)
        assert "TimeoutError" in fails(lambda: charge(counters))
    assert_bounded(socket_waits, CONNECT_TIMEOUT)
    assert max(each or 0 for each in socket_waits) > TIMEOUT


def test_server_that_is_killed(tmp_path: Path, clock: FakeClock) -> None:
    """Its counts are lost; the first request after the pause is counted by the one that takes its place."""
    port = free_port()
    counters = RedisCounters(f"redis://127.0.0.1:{port}?socket_timeout={HANG}", None, clock, connect_timeout=HANG)
    with valkey(tmp_path, port) as running:
        charge(counters)
        pending = counters.settle_later([Settlement(KEY, ONE, (-1,), (0.0,))])
        assert pending is not None
        running.terminate()
        assert "ConnectionError" in fails(lambda: charge(counters))
        assert "a moment ago" in fails(lambda: charge(counters))
        pending()
        running.start()
        clock.advance(PAUSE)
        assert charge(counters).counts[0].used == 1


def test_server_that_restarts_between_two_requests(tmp_path: Path, clock: FakeClock) -> None:
    """No request fails for the connections of before."""
    port = free_port()
    counters = RedisCounters(f"redis://127.0.0.1:{port}?socket_timeout={HANG}", None, clock, connect_timeout=HANG)
    for _ in range(2):
        with valkey(tmp_path, port):
            assert charge(counters).allowed


def test_server_that_is_full(counters: RedisCounters, admin: Any, clock: FakeClock) -> None:
    """No charge is applied partially; operations that need no memory still work."""
    charge(counters, FOUR)
    before = admin.hgetall(NAME)
    admin.config_set("maxmemory", 1)
    try:
        assert "OutOfMemoryError" in fails(lambda: charge(counters, FOUR))
        assert admin.hgetall(NAME) == before
        clock.advance(PAUSE)
        assert counters.clear(KEY)
    finally:
        admin.config_set("maxmemory", 0)
    assert charge(counters, FOUR).allowed


def test_server_that_became_a_replica(counters: RedisCounters, admin: Any, clock: FakeClock) -> None:
    """It is read-only; its name may lead to the new primary after the pause."""
    charge(counters)
    admin.replicaof("127.0.0.1", free_port())
    try:
        assert "ReadOnlyError" in fails(lambda: charge(counters))
        assert "a moment ago" in fails(lambda: charge(counters))
    finally:
        admin.replicaof("NO", "ONE")
    clock.advance(PAUSE)
    assert charge(counters).counts[0].used == 2


def test_threads_while_the_server_is_killed(tmp_path: Path) -> None:
    """No reply ever reaches a request that it was not for."""
    port = free_port()
    address = f"redis://127.0.0.1:{port}?socket_timeout=0.02"
    counters = RedisCounters(address, None, SystemClock())
    wrong: list[Verdict] = []
    stopped = threading.Event()

    def work(number: int) -> None:
        rules = RuleSet([Rule("limit", Kind.FIXED, 10**6 + number, 1e9)] * (1 + number % 3))
        while not stopped.is_set():
            with suppress(DependencyUnavailable):
                (verdict,) = counters.charge([Charge(bytes([number] * 16), rules, (1,) * len(rules.rules))])
                if len(verdict.counts) != len(rules.rules) or not verdict.allowed or math.isinf(verdict.penalty):
                    wrong.append(verdict)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with valkey(tmp_path, port) as running:
        for thread in threads:
            thread.start()
        for _ in range(4):
            os.kill(running._process.pid, signal.SIGSTOP)
            stopped.wait(0.05)
            os.kill(running._process.pid, signal.SIGCONT)
            stopped.wait(0.1)
        stopped.set()
        for thread in threads:
            thread.join()
    assert wrong == []
