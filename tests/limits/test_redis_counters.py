"""Counters on a server: concurrent processes, round trips, stored data, and a failing server."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from counting import ServerClock, die_in_flight, hammer, in_flight, on_time_of
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import LEASE_SECONDS, Backoff, Charge, Settlement, Verdict
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock
from waits import HANG

pytestmark = pytest.mark.usefixtures("no_jitter")
KEY, OTHER = key_of("caller", "bob"), key_of("route", "/predict")
FOUR = RuleSet(
    [
        Rule("second", Kind.SLIDING, 1000, 1.0),
        Rule("minute", Kind.FIXED, 5000, 60.0),
        Rule("rows", Kind.GCRA, 100_000, 86_400.0, unit="rows"),
        Rule("flight", Kind.LEASES, 10, 0.0, unit="concurrent-requests"),
    ],
    backs_off=True,
)
ONE = RuleSet([Rule("limit", Kind.FIXED, 2, 3600.0)])
FLIGHT = RuleSet([Rule("flight", Kind.LEASES, 3, 0.0, unit="concurrent-requests")])
PROCESSES = 4
MANY = int(os.environ.get("MANY_REQUESTS", "1"))
"""How many times as many requests as usual: for the long proof."""
AGE = 1e9
"""Seconds of a window in which nothing comes back while a test runs."""


@pytest.fixture
def counters(address: str, clock: FakeClock) -> RedisCounters:
    return RedisCounters(address, None, clock, connect_timeout=HANG, backoff=Backoff())


def name_of(key: bytes) -> str:
    return f"flask-secure-ml:limits:{{{key.hex()}}}"


def charge(counters: RedisCounters, rules: RuleSet = ONE, key: bytes = KEY, name: str = "") -> Verdict:
    (verdict,) = counters.charge([Charge(key, rules, rules.prices(5), os.urandom(8), name)])
    return verdict


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        action()
    return caught.value.reason


# --- many processes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def callers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield pool


def spent(callers: ProcessPoolExecutor, *arguments: Any) -> int:
    """Let all processes charge at once; return what they were granted."""
    return sum(each.result() for each in [callers.submit(hammer, *arguments) for _ in range(PROCESSES)])


@pytest.mark.parametrize("kind", [Kind.FIXED, Kind.SLIDING, Kind.GCRA])
def test_processes_get_exactly_the_limit(
    kind: Kind, callers: ProcessPoolExecutor, address: str, counters: RedisCounters
) -> None:
    """Requests one by one, rows at their prices, and what is given back meanwhile."""
    rules = RuleSet([Rule("requests", kind, 203 * MANY, AGE)])
    assert spent(callers, address, KEY, rules, [(1,)] * 100 * MANY) == 203 * MANY
    quota = RuleSet([Rule("rows", kind, 2000 * MANY, AGE), Rule("requests", Kind.FIXED, 10**6, AGE)])
    granted = spent(callers, address, OTHER, quota, [(price, 1) for price in (13, 7, 29, 1)] * 30 * MANY)
    assert granted == pytest.approx(counters.peek(OTHER, quota).counts[0].used)
    assert granted == 2000 * MANY
    refunded = RuleSet([Rule("refunded", kind, 10**6, AGE)])
    left = PROCESSES * 40 * MANY * 3
    assert spent(callers, address, KEY, refunded, [(9,)] * 40 * MANY, 6) == left
    assert counters.peek(KEY, refunded).counts[0].used == pytest.approx(left)


def test_processes_hold_no_more_leases_than_there_are(
    callers: ProcessPoolExecutor, address: str, counters: RedisCounters
) -> None:
    """Never, and none is left when all are done."""
    flights = [callers.submit(in_flight, address, KEY, FLIGHT, 80 * MANY) for _ in range(PROCESSES)]
    assert 0 < max(each.result() for each in flights) <= 3
    assert counters.peek(KEY, FLIGHT).counts[0].used == 0


def test_lease_of_a_worker_that_was_killed(counters: RedisCounters, address: str, admin: Any) -> None:
    """Ten seconds later it is free, by the server's clock, and the server drops the key."""
    worker = get_context("spawn").Process(target=die_in_flight, args=(address, KEY, FLIGHT, 3))
    worker.start()
    worker.join(HANG * 3)
    assert worker.exitcode == -signal.SIGKILL
    ends = [struct.unpack_from("<d", admin.hget(name_of(KEY), "rule:flight"), at + 8)[0] for at in (0, 16, 32)]
    seconds, microseconds = admin.time()
    assert 0 < max(ends) - (seconds + microseconds / 1e6) <= LEASE_SECONDS
    assert 0 < admin.pttl(name_of(KEY)) <= LEASE_SECONDS * 1000
    on_time_of(counters)
    admin.set("now", repr(min(ends) - 0.01))
    assert not charge(counters, FLIGHT).allowed
    admin.set("now", repr(max(ends) + 0.01))
    assert [charge(counters, FLIGHT).allowed for _ in range(4)] == [True, True, True, False]


def test_lease_that_is_renewed(address: str, admin: Any) -> None:
    """It lasts; the others end by themselves, and what was released is not taken again."""
    clock = ServerClock(admin)
    counters = on_time_of(RedisCounters(address, None, SystemClock(), connect_timeout=HANG))
    kept = b"lease--9"
    counters.charge([Charge(KEY, FLIGHT, (1,), kept)])
    assert [charge(counters, FLIGHT).allowed for _ in range(3)] == [True, True, False]
    clock.step(9.9)
    counters.renew([(KEY, FLIGHT, kept), (KEY, FLIGHT, b"released"), (OTHER, FLIGHT, kept)])
    assert not charge(counters, FLIGHT).allowed
    clock.step(0.2)
    assert [charge(counters, FLIGHT).allowed for _ in range(3)] == [True, True, False]
    assert counters.peek(OTHER, FLIGHT).counts[0].used == 0


def test_many_leases(proxy: Proxy, clock: FakeClock) -> None:
    """Those of one key are renewed at once, and those of many keys a few hundred keys at a time, each in time."""
    counters = RedisCounters(proxy.address, None, clock, connect_timeout=HANG, lease_seconds=30.0)
    rules = RuleSet([Rule("flight", Kind.LEASES, 500, 0.0)])
    keys = [key_of("caller", str(number)) for number in range(500)]
    leases = [b"%08d" % number for number in range(500)]
    counters.charge([Charge(KEY, rules, (1,), lease) for lease in leases])
    counters.charge([Charge(key, rules, (1,), leases[0]) for key in keys])

    def trips(renewed: list[tuple[bytes, RuleSet, bytes]]) -> int:
        proxy.writes = 0
        counters.renew(renewed)
        return proxy.writes

    assert trips([(KEY, rules, leases[0])]) >= 1
    assert trips([(KEY, rules, lease) for lease in leases]) == 1
    assert trips([(key, rules, leases[0]) for key in keys]) >= 3
    assert counters.peek(KEY, rules).counts[0].used == 500


def test_lease_that_is_never_released(address: str, admin: Any) -> None:
    """The server drops the whole key when it ends."""
    counters = RedisCounters(address, None, SystemClock(), connect_timeout=HANG, lease_seconds=30.0)
    charge(counters, FLIGHT)
    assert 29_000 < admin.pttl(name_of(KEY)) <= 30_000


# --- what lies on the server -----------------------------------------------------------------------------


def test_server_forgets_by_itself(counters: RedisCounters, admin: Any) -> None:
    """A key lasts as long as what lasts longest of it, whichever rules were charged last."""
    long, short = RuleSet([Rule("day", Kind.SLIDING, 9, 600.0)]), RuleSet([Rule("second", Kind.FIXED, 9, 5.0)])
    charge(counters, short)
    assert 4_000 < admin.pttl(name_of(KEY)) <= 5_000
    charge(counters, long)
    charge(counters, short)
    assert 1_199_000 < admin.pttl(name_of(KEY)) <= 1_200_000


def test_one_hash_for_a_key(counters: RedisCounters, admin: Any) -> None:
    """A report and a rejection write nothing; the name of a caller that changed is written."""
    counters.peek(KEY, FOUR)
    counters.charge([Charge(KEY, FOUR, (0, 0, 0, 0))])
    assert admin.keys() == []
    charge(counters, FOUR, name="bob")
    assert set(admin.hkeys(name_of(KEY))) == {b"rule:second", b"rule:minute", b"rule:rows", b"rule:flight", b"caller"}
    charge(counters, FOUR, name="b\N{LATIN SMALL LETTER O WITH DIAERESIS}b \udcff")
    assert counters.callers() == {KEY: "b\N{LATIN SMALL LETTER O WITH DIAERESIS}b \udcff"}


@pytest.mark.parametrize("name", ["caller", "penalty", "x" * 200, "5 per 1 minute \N{SNOWMAN}\"'\\"])
def test_any_name_of_a_rule(counters: RedisCounters, name: str) -> None:
    """It is never taken for another field."""
    rules = RuleSet([Rule(name, Kind.FIXED, 2, 100.0)], backs_off=True)
    assert [charge(counters, rules, name="bob").allowed for _ in range(4)] == [True, True, False, False]
    assert counters.callers() == {KEY: "bob"}


def test_rule_of_another_kind(counters: RedisCounters) -> None:
    """The state of a limit with the same name but another kind causes no error."""
    for kind in (Kind.LEASES, Kind.FIXED, Kind.LEASES):
        rules = RuleSet([Rule("limit", kind, 2, 100.0)])
        assert [charge(counters, rules).allowed for _ in range(3)] == [True, True, False]


def test_many_callers(counters: RedisCounters) -> None:
    """All are found, in more than one page."""
    keys = {key_of("caller", str(number)): str(number) for number in range(2500)}
    for key, name in keys.items():
        charge(counters, ONE, key, name)
    charge(counters, ONE, OTHER)
    assert counters.callers() == keys


def test_user_of_the_server(address: str, admin: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented permissions are sufficient."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "shared_state.rst").read_text()
    words = page.partition("Limits on a server\n")[2].partition("resetchannels -@all\n")[2].partition("\n\n")[0].split()
    admin.acl_setuser(
        "model", enabled=True, passwords="+a-long-password", keys=["flask-secure-ml:limits:*"], commands=words
    )
    monkeypatch.setenv("PASSWORD", "a-long-password")
    try:
        user = address.replace("//", "//model@")
        counters = RedisCounters(user, SecretRing(Secret("env:PASSWORD", 8)), clock, connect_timeout=HANG)
        verdict = charge(counters, FOUR, name="bob")
        starts = tuple(count.start for count in verdict.counts)
        counters.settle([Settlement(KEY, FOUR, (0, 0, -1, 0), starts, os.urandom(8))])
        counters.renew([(KEY, FOUR, os.urandom(8))])
        assert counters.callers() == {KEY: "bob"}
        assert counters.clear(KEY)
    finally:
        admin.acl_deluser("model")


# --- round trips -----------------------------------------------------------------------------------------


class Proxy:
    """Counts how often a client writes after it read, and how many bytes it did not wait for."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self.address = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout={HANG}"
        self.writes = 0
        self.held = threading.Event()
        self.held.set()
        self._listener = listener
        self._port = port

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 20):
                self.writes += counts
                if not counts:
                    self.held.wait(HANG)
                target.sendall(data)


@pytest.fixture
def proxy(server: Any, admin: Any) -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Proxy(listener, server.port)
        threading.Thread(target=made.run, daemon=True).start()
        yield made
        made.held.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_round_trips(proxy: Proxy, clock: FakeClock) -> None:
    """One for four limits, for two keys and for any number of settlements; one more to give back."""
    counters = RedisCounters(proxy.address, None, clock, connect_timeout=HANG, backoff=Backoff())
    charge(counters, FOUR)

    def trips(action: Callable[[], object]) -> int:
        proxy.writes = 0
        action()
        return proxy.writes

    both = [Charge(KEY, FOUR, FOUR.prices(1), os.urandom(8)), Charge(OTHER, ONE, (1,))]
    assert trips(lambda: charge(counters, FOUR)) == 1
    assert [trips(lambda: counters.charge(both)) for _ in range(3)] == [1, 1, 2]
    settlement = Settlement(KEY, FOUR, (0, 0, -1, 0), (0.0,) * 4, os.urandom(8))
    # The script of settlements is there since the charge that was given back.
    assert trips(lambda: counters.settle([settlement] * 20)) == 1
    assert trips(lambda: counters.peek(KEY, FOUR)) == 1


def test_settlement_without_waiting(proxy: Proxy, clock: FakeClock) -> None:
    """It is sent when the call returns; its connection is not reused until the replies are read."""
    counters = RedisCounters(proxy.address, None, clock, connect_timeout=HANG)
    charge(counters)
    start = charge(counters).counts[0].start
    proxy.held.clear()
    read = counters.settle_later([Settlement(KEY, ONE, (-1,), (start,))])
    proxy.held.set()
    assert read is not None
    assert [charge(counters).allowed for _ in range(2)] == [True, False]
    for _ in range(2):
        read()
    assert not charge(counters).allowed
    counters.clear(KEY)
    dropped = counters.settle_later([Settlement(KEY, ONE, (-1,), (start,))])
    assert dropped is not None
    del dropped
    assert [charge(counters).counts[0].used for _ in range(2)] == [1, 2]


def test_script_that_the_server_lost(counters: RedisCounters, admin: Any) -> None:
    """It is sent again, and nothing is charged twice."""
    for used in (1, 2):
        admin.script_flush()
        assert charge(counters).counts[0].used == used
    admin.script_flush()
    counters.charge([Charge(KEY, FOUR, FOUR.prices(1), b"lease--1"), Charge(OTHER, ONE, (1,))])
    read = counters.settle_later([Settlement(KEY, FOUR, (0, 0, 0, 0), (0.0,) * 4, b"lease--1")])
    assert read is not None
    read()
    assert [count.used for count in counters.peek(KEY, FOUR).counts][3] == 0
    assert counters.peek(OTHER, ONE).counts[0].used == 1
