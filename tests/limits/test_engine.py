"""The limiter while its store is down: the limits that apply, and log messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import protect
from flask_secure_ml.errors import ConfigError, DependencyUnavailable
from flask_secure_ml.limits import engine
from flask_secure_ml.limits.counters import Backoff, Charge, Verdict
from flask_secure_ml.limits.engine import Limiter, Outcome
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.limits.plans import Tariffs
from flask_secure_ml.limits.rules import STRATEGIES, Kind, Rule, RuleSet
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from limiters import limit, limiter_of
from support import HTTPS, MakeApp, caller


class Remote(MemoryCounters):
    """A store that can be down."""

    shared = True
    down = False

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Charge, unless the store is down."""
        self._check()
        return super().charge(charges)

    def settle(self, settlements: Any) -> None:
        """Settle, unless the store is down."""
        self._check()
        super().settle(settlements)

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Read, unless the store is down."""
        self._check()
        return super().peek(key, rules, prices)

    def _check(self) -> None:
        if self.down:
            raise DependencyUnavailable("the store is down")


def rules(outage: str = "degrade", amount: int = 8) -> RuleSet:
    return RuleSet([Rule("r", Kind.FIXED, amount, 60.0, outage=outage)])


@pytest.fixture
def remote(clock: FakeClock) -> Remote:
    return Remote(clock)


def limiter_over(remote: Remote, clock: FakeClock, workers: int = 1, **options: Any) -> Limiter:
    return Limiter(remote, clock, Tariffs("fixed-window", "degrade"), workers=workers, **options)


def allowed(limiter: Limiter, rule_set: RuleSet, tries: int) -> int:
    return sum(limiter.charge([Charge(b"a", rule_set, rule_set.prices())]).allowed for _ in range(tries))


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (2, 4), (3, 2), (8, 1)])
def test_degrade(remote: Remote, clock: FakeClock, workers: int, share: int) -> None:
    """Each worker allows its share, so that all together allow no more than the limit."""
    limiter, remote.down = limiter_over(remote, clock, workers), True
    assert allowed(limiter, rules(), 20) == share


def test_a_limit_of_fewer_than_the_workers(remote: Remote, clock: FakeClock) -> None:
    """One in a longer window: no caller is locked out, and the rate is kept."""
    limiter, remote.down = limiter_over(remote, clock, 4), True
    two = rules(amount=2)
    passed = 0
    for _ in range(1200):
        passed += allowed(limiter, two, 1)
        clock.advance(1)
    # Four workers: 2 a minute for 20 minutes.
    assert passed == 10


def test_closed_and_open(remote: Remote, clock: FakeClock) -> None:
    """503 with Retry-After, or no limit; one closed limit closes the request, an open one is left out."""
    limiter, remote.down = limiter_over(remote, clock), True
    with pytest.raises(DependencyUnavailable) as caught:
        allowed(limiter, RuleSet([*rules().rules, Rule("c", Kind.FIXED, 9, 60.0, outage="closed")]), 1)
    assert dict(caught.value.extra_headers)["Retry-After"]
    assert allowed(limiter, rules("open"), 500) == 500
    both = RuleSet([Rule("o", Kind.FIXED, 1, 60.0, outage="open"), *rules().rules])
    assert allowed(limiter, both, 20) == 8


@pytest.mark.parametrize("outage", ["degrade", "closed"])
def test_a_block_during_an_outage(
    remote: Remote, clock: FakeClock, caplog: pytest.LogCaptureFixture, outage: str
) -> None:
    """Is logged once by each process, and again for the next block."""
    limiter = Limiter(remote, clock, Tariffs("fixed-window", outage), backoff=Backoff(block_after=2))
    remote.down = True
    charge = Charge(b"a", rules(), (1,))

    def note(strikes: int) -> int:
        limiter.note_blocks("test:eve", Outcome([charge], [Verdict(False, (), 50.0, strikes)], local=True))
        return len([each for each in caplog.messages if each.startswith("'test:eve' blocked for 50 seconds: ")])

    assert [note(strikes) for strikes in (1, 2, 2)] == [0, 1, 1]
    clock.advance(49)
    assert note(2) == 1
    clock.advance(51)
    assert note(2) == 2


def test_the_noted_blocks_are_bounded(
    remote: Remote, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the maximum, the store still prevents a second message."""
    monkeypatch.setattr(engine, "MAX_RECENT", 3)
    limiter = limiter_over(remote, clock, backoff=Backoff(block_after=2))
    for number in (*range(5), 0):
        charge = Charge(bytes([number]), rules(), (1,))
        limiter.note_blocks(f"test:{number}", Outcome([charge], [Verdict(False, (), 50.0, 2)]))
    assert len(limiter._blocked) <= 3
    assert len([each for each in caplog.messages if " blocked for " in each]) == 5


def test_what_was_used_up_stays_so(remote: Remote, clock: FakeClock) -> None:
    """The store's counts apply again after the outage."""
    limiter = limiter_over(remote, clock)
    assert allowed(limiter, rules(), 20) == 8
    remote.down = True
    assert allowed(limiter, rules(), 20) == 8
    remote.down = False
    assert allowed(limiter, rules(), 20) == 0


def test_an_outage_has_two_lines_and_two_events(
    remote: Remote, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One of each when the store goes down, and when it is back."""
    events: list[bool] = []
    limiter = limiter_over(remote, clock, changed=events.append)
    remote.down = True
    allowed(limiter, rules(), 20)
    limiter.settle([], local=False)
    remote.down = False
    allowed(limiter, rules(), 20)
    assert events == [False, True]
    assert [each.getMessage() for each in caplog.records] == [
        "the limit store is down: the store is down",
        "the limit store is up again",
    ]


def test_counters_of_the_throttle(clock: FakeClock) -> None:
    """It restarts some seconds after its first use, and reports when."""
    limiter = limiter_of(clock)
    assert [limiter.count("k", 60), limiter.count("k", 60, 5), limiter.counted("k", 60)] == [1, 6, 6]
    clock.advance(59.5)
    assert (limiter.remaining("k", 60), limiter.counted("k", 60)) == (1, 6)
    clock.advance(0.5)
    assert (limiter.remaining("k", 60), limiter.counted("k", 60), limiter.count("k", 60)) == (0, 0, 1)
    assert limiter.remaining("other", 60) == 0


def test_one_limit(clock: FakeClock) -> None:
    """Charged, tested and waited for by a key; the same limit of another amount is another one."""
    limiter, two, three = limiter_of(clock), limit("2/minute"), limit("3/minute")
    assert [limiter.test(two, "a"), limiter.hit(two, "a"), limiter.hit(two, "a", 2), limiter.hit(two, "a")] == [
        True,
        True,
        False,
        True,
    ]
    assert not limiter.test(two, "a")
    assert [limiter.hit(three, "a") for _ in range(4)] == [True, True, True, False]
    wait = limiter.retry_after(two, "a")
    assert 1 <= wait <= 60
    clock.advance(wait)
    assert limiter.hit(two, "a")


@pytest.mark.parametrize(("outage", "ready"), [("closed", False), ("degrade", True), ("open", True)])
def test_ready(remote: Remote, clock: FakeClock, outage: str, *, ready: bool) -> None:
    """A worker is not ready while every request would be 503."""
    limiter = Limiter(remote, clock, Tariffs("fixed-window", outage))
    limiter.ready()
    remote.down = True
    if ready:
        limiter.ready()
    else:
        with pytest.raises(DependencyUnavailable):
            limiter.ready()


@pytest.mark.parametrize(("settings", "workers"), [({}, 3), ({"LIMIT_WORKERS": 5}, 5)])
def test_workers(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, settings: dict[str, Any], workers: int) -> None:
    """SECURE_ML_LIMIT_WORKERS, or the variable that gunicorn reads."""
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert limiter_of(clock, **settings)._workers == workers


def test_settings_reach_the_counters(clock: FakeClock) -> None:
    """Those of a server, and of the fallback while it is down."""
    counters: Any = limiter_of(clock, MEMORY_MAX_KEYS=1234).counters
    assert counters._entries._maximum == 1234
    limiter: Any = limiter_of(clock, uri="redis://127.0.0.1:1", MEMORY_MAX_KEYS=1234, STORE_TIMEOUT=0.75, USAGE_DAYS=7)
    assert limiter._here._entries._maximum == 1234
    assert (limiter.counters._client._deadline.usual, limiter.counters._usage_days, limiter.usage) == (0.75, 7, True)


BACKOFF = {
    "tolerance": 3,
    "base": 11.0,
    "factor": 3.0,
    "maximum": 700.0,
    "decay": 30.0,
    "jitter": 0.2,
    "block_after": 4,
    "block": 5000.0,
}


@pytest.mark.parametrize("uri", ["memory:", "sqlite", "redis://127.0.0.1:1"])
def test_backoff_reaches_the_counters(clock: FakeClock, tmp_path: Path, uri: str) -> None:
    """Each number of it, also for the time when the store is down."""
    uri = f"sqlite:{tmp_path}/s.db" if uri == "sqlite" else uri
    limiter: Any = limiter_of(clock, uri=uri, LIMIT_BACKOFF=BACKOFF)
    expected = Backoff(**BACKOFF)  # type: ignore[arg-type]
    found = limiter.counters._backoff
    assert found == (pack("<8d", *expected) if uri.startswith("redis") else expected)
    assert limiter._here._backoff == expected


@pytest.mark.parametrize(("strategy", "kind"), STRATEGIES.items())
def test_strategy_of_all_limits(clock: FakeClock, strategy: str, kind: Kind) -> None:
    """RATELIMIT_STRATEGY."""
    limiter = limiter_of(clock, RATELIMIT_STRATEGY=strategy)
    assert limiter.tariffs.rule(limit("5/minute"), "plan").kind is kind


def test_where_limits_are_counted(protected: MakeApp) -> None:
    """With the other shared state, unless RATELIMIT_STORAGE_URI is set."""
    app = protected(STORE_URI="memory:")
    assert isinstance(state_of(app).limiter.counters, MemoryCounters)


def test_password_of_the_shared_state(
    clock: FakeClock, admin: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURE_ML_STORE_PASSWORD is for limits too, and no other server gets it."""
    monkeypatch.setenv("PASSWORD", "a-very-long-password")
    settings = {"STORE_URI": address, "STORE_PASSWORD": "env:PASSWORD"}
    admin.config_set("requirepass", "a-very-long-password")
    try:
        assert limiter_of(clock, uri=address, **settings).counters.callers() == {}
        with pytest.raises(DependencyUnavailable):
            limiter_of(clock, uri=address.replace("/0?", "/1?"), **settings).counters.callers()
    finally:
        admin.config_set("requirepass", "")


@pytest.mark.parametrize("uri", ["cupboard://:hunter2@x", "memcached://:hunter2@x"])
def test_password_of_the_uri_is_not_shown(clock: FakeClock, uri: str) -> None:
    """An unknown scheme is an error that does not quote the URI."""
    with pytest.raises(ConfigError) as caught:
        limiter_of(clock, uri=uri)
    assert "hunter2" not in str(caught.value)


def test_counting_in_memory_needs_no_more() -> None:
    """Flask-Limiter, which takes long to import, is not loaded."""
    code = (
        "import sys; from flask import Flask; from flask_secure_ml import SecureML; SecureML(Flask('x')); "
        "print('flask_limiter' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_request_during_an_outage(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Served within the share of the worker, then 429; 503 where a limit is closed; never 500."""
    app: Flask = protected(PLANS={"default": {"requests": ["2/minute"]}})
    closed = protect(limits=[{"limit": "9/minute", "outage": "closed"}])(lambda: "closed")
    app.add_url_rule("/x", "x", lambda: "ok")
    app.add_url_rule("/closed", "closed", closed)
    limiter = state_of(app).limiter

    def down(_: object) -> Any:
        raise DependencyUnavailable("the store is down")

    monkeypatch.setattr(limiter, "_here", MemoryCounters(FakeClock()))
    monkeypatch.setattr(limiter.counters, "charge", down)
    client = app.test_client()
    assert [client.get("/x", base_url=HTTPS, headers=caller()).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/closed", base_url=HTTPS, headers=caller()).status_code == 503
