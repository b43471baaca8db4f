"""Guessing: blocks that grow for an address, and a limit for a key that never locks its owner out (STANDARDS K4)."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask, Request

from flask_secure_ml import Exchange, Principal
from flask_secure_ml.errors import DependencyUnavailable, NotAuthenticated, RateLimited
from flask_secure_ml.limits.failure_throttle import DAY, LONGEST, FailureThrottle
from flask_secure_ml.policy.limits import LimitList
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock
from limiters import limiter_of
from servers import free_port, valkey, wait_until
from support import HTTPS, MakeApp

ATTACKER, OTHER = "192.0.2.1", "192.0.2.2"
MakeThrottle = Callable[..., FailureThrottle]


@pytest.fixture
def throttle_of(clock: FakeClock) -> MakeThrottle:
    """Make a throttle with a storage of its own, unless one is named."""

    def make(address: str = "3/day", key: str = "5/day", uri: str = "memory://", outage: str = "degrade") -> Any:
        limiter = limiter_of(clock, outage, uri)
        return FailureThrottle(
            limiter,
            LimitList().deserialize([address] if address else []),
            LimitList().deserialize([key] if key else []),
            clock,
            MemoryStore(clock),
        )

    return make


def exchange_from(client: str = ATTACKER) -> Exchange:
    return Exchange("r1", 0.0, 0.0, client, client, secure=True)


def admitted(throttle: FailureThrottle, client: str = ATTACKER) -> int:
    """Return 0 for an address that may try a password, else its Retry-After."""
    return _wait(lambda: throttle.admit(exchange_from(client), ""))


def failed(throttle: FailureThrottle, client: str = ATTACKER, claimed: str = "") -> int:
    """Send an invalid credential; return 0 for a 401, or the Retry-After of a 429."""
    error = NotAuthenticated("wrong")
    error.claimed = claimed
    return _wait(lambda: throttle.failed(exchange_from(client), error))


def _wait(action: Callable[[], None]) -> int:
    try:
        action()
    except RateLimited as rejection:
        return int(dict(rejection.extra_headers)["Retry-After"])
    return 0


def test_an_address_is_blocked(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """Past its limit invalid credentials get 429, for a minute; those of others do not."""
    throttle = throttle_of()
    assert [failed(throttle) for _ in range(4)] == [0, 0, 0, 60]
    assert admitted(throttle) == 60
    assert admitted(throttle, OTHER) == 0
    clock.advance(59.5)
    assert admitted(throttle) == 1
    clock.advance(0.5)
    assert admitted(throttle) == 0


def test_below_the_limit_nobody_waits(throttle_of: MakeThrottle) -> None:
    """As many as the limit allows are only counted."""
    throttle = throttle_of()
    assert [failed(throttle) for _ in range(3)] == [0, 0, 0]
    assert admitted(throttle) == 0


def test_blocks_double(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """Each further time over the limit costs twice the wait, up to an hour."""
    throttle = throttle_of("1/day")
    assert failed(throttle) == 0
    found = []
    for _ in range(8):
        found.append(failed(throttle))
        clock.advance(found[-1])
        assert admitted(throttle) == 0
    assert found == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_blocked_attempts_are_not_counted(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """Neither at admission nor when a request that was under way fails: the block stays as long as it was."""
    throttle = throttle_of("1/day")
    failed(throttle)
    assert failed(throttle) == 60
    assert {admitted(throttle) for _ in range(20)} == {60}
    assert {failed(throttle) for _ in range(20)} == {60}
    clock.advance(60)
    assert failed(throttle) == 120


def test_the_next_day_starts_again(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """The strikes expire a day after the first block."""
    throttle = throttle_of("1/hour")
    failed(throttle)
    assert failed(throttle) == 60
    clock.advance(DAY - 3601)
    failed(throttle)
    assert failed(throttle) == 120
    clock.advance(3601)
    assert admitted(throttle) == 0
    failed(throttle)
    assert failed(throttle) == 60


class SteppedClock(FakeClock):
    """A clock whose time of day can be set, as an administrator or NTP does."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0.0

    def now(self) -> float:
        return super().now() + self.step


@pytest.mark.parametrize("step", [-DAY, -1, 1, DAY])
def test_time_of_day_that_is_set(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block lasts exactly as long as reported."""
    clock = SteppedClock()
    monkeypatch.setattr(time, "time", clock.now)
    limiter, limits = limiter_of(clock), LimitList().deserialize(["1/day"])
    throttle, later, last = (FailureThrottle(limiter, limits, (), clock, MemoryStore(clock)) for _ in range(3))
    failed(throttle)
    assert failed(throttle) == 60
    clock.step = step
    # Those that did not begin the block read it from the storage.
    assert admitted(throttle) == admitted(later) == 60
    clock.advance(40)
    assert admitted(throttle) == admitted(later) == admitted(last) == 20
    clock.advance(20)
    assert admitted(throttle) == admitted(later) == 0
    assert failed(throttle) == 120


def test_a_block_is_never_longer_than_it_was(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """A clock that is set back, that of ages too, does not lock a network out."""
    throttle = throttle_of("1/day")
    failed(throttle)
    failed(throttle)
    clock.advance(-10 * LONGEST)
    assert admitted(throttle) == 60


def test_ipv6_is_blocked_by_network(throttle_of: MakeThrottle) -> None:
    """A client with a /64 controls all of its addresses."""
    throttle = throttle_of("1/day")
    assert [failed(throttle, f"2001:db8::{number}") for number in (1, 2)] == [0, 60]
    assert admitted(throttle, "2001:db8::3") == 60
    assert admitted(throttle, "2001:db8:0:1::3") == 0


def test_every_limit_counts(throttle_of: MakeThrottle, clock: FakeClock) -> None:
    """The one that is used up first blocks, and the others were charged meanwhile."""
    limiter = limiter_of(clock)
    throttle = FailureThrottle(limiter, LimitList().deserialize(["2/day", "9/day"]), (), clock, MemoryStore(clock))
    assert [failed(throttle) for _ in range(3)] == [0, 0, 60]


@pytest.mark.parametrize("claimed", ["", "k1"])
def test_a_throttle_that_is_off(throttle_of: MakeThrottle, claimed: str) -> None:
    """With empty lists, failures are not counted."""
    throttle = throttle_of("", "")
    assert {failed(throttle, claimed=claimed) for _ in range(40)} == {0}
    assert admitted(throttle) == 0


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_that_is_guessed_at(throttle_of: MakeThrottle) -> None:
    """From many addresses together: past the limit wrong secrets get 429, and no address is blocked for it."""
    throttle = throttle_of()
    found = [failed(throttle, f"192.0.2.{number}", "k1") for number in range(1, 8)]
    assert found[:5] == [0] * 5
    assert all(0 < wait <= DAY for wait in found[5:])
    assert admitted(throttle, "192.0.2.6") == 0
    assert failed(throttle, "192.0.2.9", "k2") == failed(throttle, "192.0.2.10") == 0


def test_the_address_is_charged_too(throttle_of: MakeThrottle) -> None:
    """A limit of the key that is used up does not spare the address."""
    throttle = throttle_of("3/day", "1/day")
    waits = [failed(throttle, claimed="k1") for _ in range(4)]
    assert waits[0] == 0
    assert waits[3] == 60
    assert admitted(throttle) == 60


class SecretAuthenticator:
    """Knows one key, ``k1``, whose secret is ``right``."""

    name = "test"
    challenge = "Test"

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return request.headers.get("X-Secret")

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        if credential == "right":
            return Principal("test", "owner")
        error = NotAuthenticated("wrong secret")
        error.claimed = "k1"
        raise error


def call(app: Flask, secret: str, address: str) -> Any:
    overrides = {"REMOTE_ADDR": address}
    return app.test_client().get("/x", base_url=HTTPS, headers={"X-Secret": secret}, environ_overrides=overrides)


def test_the_owner_is_never_locked_out(protected: MakeApp) -> None:
    """SECURE_ML_FAILED_KEY_LIMITS: attackers get 429 with Retry-After, the owner 200 (STANDARDS RL-10)."""
    app = protected(parts={"authenticators": [SecretAuthenticator()]}, FAILED_KEY_LIMITS=["3/day"])
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    responses = [call(app, "wrong", f"192.0.2.{number}") for number in range(1, 6)]
    assert [response.status_code for response in responses] == [401, 401, 401, 429, 429]
    assert responses[4].json["code"] == "rate_limited"
    assert int(responses[4].headers["Retry-After"]) >= 1
    assert call(app, "right", "192.0.2.50").status_code == 200


def test_one_attacker_is_blocked_and_the_owner_is_not(protected: MakeApp) -> None:
    """SECURE_ML_FAILED_AUTH_LIMITS blocks wrong secrets of the address, and the right one never (STANDARDS K4)."""
    app = protected(parts={"authenticators": [SecretAuthenticator()]}, FAILED_AUTH_LIMITS=["2/day"])
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    assert [call(app, "wrong", ATTACKER).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert call(app, "wrong", ATTACKER).headers["Retry-After"] == "60"
    assert call(app, "right", ATTACKER).status_code == call(app, "right", OTHER).status_code == 200


# --- what is logged -----------------------------------------------------------------------------------------


def test_every_block_is_logged_once(
    throttle_of: MakeThrottle, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With address, count, duration and limit; later attempts are not logged."""
    throttle = throttle_of("1/day")
    for _ in range(2):
        for _ in range(5):
            failed(throttle)
            admitted(throttle)
        clock.advance(60)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"network {ATTACKER} blocked for {seconds} seconds (block {number} within a day): {rest}")
        for seconds, number, rest in [
            (60, 1, "more invalid credentials than 1 per 1 day"),
            (120, 2, "more invalid credentials than 1 per 1 day"),
        ]
    ]


def test_a_guessed_key_is_logged_once(throttle_of: MakeThrottle, caplog: pytest.LogCaptureFixture) -> None:
    """In each window of its limit."""
    throttle = throttle_of("")
    for _ in range(9):
        failed(throttle, claimed="k1")
    assert [record.getMessage() for record in caplog.records] == ["API key k1: more wrong secrets than 5 per 1 day"]


# --- many at once -------------------------------------------------------------------------------------------


def test_threads_cannot_overshoot(throttle_of: MakeThrottle, caplog: pytest.LogCaptureFixture) -> None:
    """Of any number of guesses at once, exactly the limit is responded to with 401; they cost one block."""
    throttle = throttle_of("20/day")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: failed(throttle), range(200)))
    assert found.count(0) == 20
    assert set(found) == {0, 60}
    assert len(caplog.records) == 1


def test_one_thread_at_a_time_blocks(throttle_of: MakeThrottle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is begun by several calls of the storage: threads in between would block twice or not at all."""
    throttle = throttle_of("1/day")
    held: list[bool] = []
    count = throttle._limiter.count

    def watched(key: str, seconds: int, amount: int = 1) -> int:
        held.append((os.getpid(), ATTACKER) in throttle._blocking._flights)
        return count(key, seconds, amount)

    monkeypatch.setattr(throttle._limiter, "count", watched)
    assert [failed(throttle) for _ in range(2)] == [0, 60]
    assert held == [True] * 3


GEVENT = """
import signal
from flask_secure_ml import Exchange
from flask_secure_ml.policy.limits import LimitList
from flask_secure_ml.errors import NotAuthenticated, RateLimited
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.config import Settings
from flask_secure_ml.limits.engine import Limiter
from flask_secure_ml.limits.setup import build_limiter
from flask_secure_ml.limits.failure_throttle import FailureThrottle
from flask_secure_ml.testing import FakeClock
class Slow(Limiter):
    def count(self, key, seconds, amount=1):
        gevent.sleep(0)
        return super().count(key, seconds, amount)
clock = FakeClock()
limiter = build_limiter({}, Settings.load({}), clock)
limiter.__class__ = Slow
throttle = FailureThrottle(limiter, LimitList().deserialize(["1/day"]), (), clock, MemoryStore(clock))
def failed():
    try:
        throttle.failed(Exchange("r1", 0.0, 0.0, "192.0.2.1", "192.0.2.1", secure=True), NotAuthenticated("wrong"))
    except RateLimited as error:
        return int(dict(error.extra_headers)["Retry-After"])
failed()
from gevent import monkey
monkey.patch_all()
import gevent
signal.alarm(20)
jobs = [gevent.spawn(failed) for _ in range(20)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == [60] * 20, [job.value for job in jobs]
"""


def test_greenlets_that_block_at_the_same_time() -> None:
    """Workers that gevent patches after the app was loaded wait for the storage, and not for a lock of before."""
    pytest.importorskip("gevent")
    subprocess.run([sys.executable, "-W", "ignore", "-c", GEVENT], timeout=60, check=True)


@pytest.fixture
def storage_uri(tmp_path: Path) -> Iterator[str]:
    with valkey(tmp_path) as server:
        yield f"redis://127.0.0.1:{server.port}"


def expire_blocks(uri: str) -> None:
    """Let the server expire what lasts no longer than a block."""
    with redis.Redis.from_url(uri) as admin:
        for key in admin.scan_iter():
            if 0 < admin.ttl(key) <= LONGEST:
                admin.pexpire(key, 1)
        wait_until(lambda: all(admin.ttl(key) > LONGEST for key in admin.scan_iter()), "keys that expire")


class Left:
    """Equals what is left of a block that began when this was made, to the second on which it is measured."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._began = time.monotonic()

    def __eq__(self, other: object) -> bool:
        passed = math.ceil(time.monotonic() - self._began)
        return isinstance(other, int) and self._seconds - passed <= other <= self._seconds

    __hash__ = None  # type: ignore[assignment]


def test_workers_share_blocks(throttle_of: MakeThrottle, storage_uri: str, clock: FakeClock) -> None:
    """Counts and blocks of one worker apply in the others; the server measures the time."""
    first, second = throttle_of(uri=storage_uri), throttle_of(uri=storage_uri)
    left = Left(60)
    assert [failed(first), failed(second), failed(first), failed(second)] == [0, 0, 0, 60]
    assert admitted(first) == left
    assert admitted(second) == left
    expire_blocks(storage_uri)
    clock.advance(60)
    assert admitted(first) == 0
    left = Left(120)
    assert failed(first) == 120
    assert admitted(second) == left


def test_a_block_that_outlasts_its_limit(
    throttle_of: MakeThrottle, storage_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that did not start it does not count during a block, although the window is over."""
    began, other = throttle_of("1/second", uri=storage_uri), throttle_of("1000/second", uri=storage_uri)
    while not failed(began):
        pass
    caplog.clear()
    left = Left(60)
    assert [failed(other) for _ in range(5)] == [left] * 5
    assert caplog.records == []


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_time_of_day_that_differs(
    throttle_of: MakeThrottle, storage_uri: str, step: float, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """A machine whose clock is wrong by a day honours the blocks of the others, for as long as they last."""
    throttle, wrong = throttle_of("1/day", uri=storage_uri), throttle_of("1/day", uri=storage_uri)
    failed(throttle)
    assert failed(throttle) == 60
    monkeypatch.setattr(time, "time", lambda: time.clock_gettime(time.CLOCK_REALTIME) + step)
    assert admitted(wrong) in {59, 60}
    expire_blocks(storage_uri)
    clock.advance(60)
    assert admitted(wrong) == 0


def test_workers_block_once(throttle_of: MakeThrottle, storage_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    """Workers that find an address over its limit at the same time block it once, not once each."""
    throttles = [throttle_of("10/day", uri=storage_uri) for _ in range(4)]
    left = Left(60)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: failed(throttles[number % 4]), range(120)))
    assert found.count(0) == 10
    assert [each for each in found if each] == [left] * 110
    assert len(caplog.records) == 1


def test_an_outage_is_answered_as_for_limits(throttle_of: MakeThrottle) -> None:
    """``closed`` rejects with 503; ``memory`` counts and blocks in this worker."""
    uri = f"redis://127.0.0.1:{free_port()}"
    closed = throttle_of(uri=uri, outage="closed")
    for action in (admitted, failed):
        with pytest.raises(DependencyUnavailable):
            action(closed)
    alone = throttle_of(uri=uri)
    assert [failed(alone) for _ in range(4)] == [0, 0, 0, 60]
    assert admitted(alone) == 60
