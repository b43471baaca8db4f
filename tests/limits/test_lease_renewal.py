"""Leases of one process are renewed while requests run, despite failures of the store and the machine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits import leases as module
from flask_secure_ml.limits.counters import LEASE_SECONDS, Charge, Settlement, Verdict
from flask_secure_ml.limits.leases import RENEWED_EVERY, Lease, Leases
from flask_secure_ml.limits.memory import undone
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.testing import FakeClock
from limiters import limiter_of
from waits import HANG

RULES = RuleSet([Rule("flight", Kind.LEASES, 3, 0.0, unit="concurrent-requests")])
TAKEN = Charge(key_of("caller", "bob"), RULES, (1,), b"lease--1")


@pytest.mark.parametrize("error", [DependencyUnavailable("down"), RuntimeError("anything")], ids=str)
def test_a_renewal_that_fails_is_repeated(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A store that is down for a moment does not end the renewals of the process."""
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.002)
    tried, renewed = threading.Semaphore(0), threading.Semaphore(0)
    failures = [error, error]

    def renew(leases: Sequence[Lease]) -> None:
        assert leases == [(TAKEN.key, RULES, TAKEN.lease)]
        clock.advance(RENEWED_EVERY)
        tried.release()
        if failures:
            raise failures.pop()
        renewed.release()

    held = Leases(clock, renew)
    held.take(TAKEN)
    clock.advance(RENEWED_EVERY)
    assert renewed.acquire(timeout=HANG)
    assert tried.acquire(timeout=HANG)
    held.release(TAKEN.key, TAKEN.lease)


def test_a_charge_that_was_not_confirmed(clock: FakeClock, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has made it, and this process has not heard of it: its lease is released when the store is up again."""
    limiter = limiter_of(clock, uri=address)
    made = limiter.counters.charge

    def unconfirmed(charges: Sequence[Charge]) -> list[Verdict]:
        made(charges)
        raise DependencyUnavailable("no reply")

    monkeypatch.setattr(limiter.counters, "charge", unconfirmed)
    outcome = limiter.charge([TAKEN])
    assert (outcome.local, outcome.allowed) == (True, True)
    limiter.settle([undone(outcome.charges[0], outcome.verdicts[0])], local=True)
    settle, failures = limiter.counters.settle, [DependencyUnavailable("still down")]

    def settled(settlements: Sequence[Settlement]) -> None:
        if failures:
            raise failures.pop()
        settle(settlements)

    monkeypatch.setattr(limiter.counters, "settle", settled)
    for used in (1, 0):
        limiter.leases.release_unconfirmed()
        assert limiter.counters.peek(TAKEN.key, RULES).counts[0].used == used


def test_the_thread_releases_what_was_not_confirmed(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """In addition to renewals, but not leases that have expired."""
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.002)
    freed: SimpleQueue[Sequence[Lease]] = SimpleQueue()
    held = Leases(clock, lambda _: None, freed.put)
    old, new = [(TAKEN.key, RULES, lease) for lease in (b"lease--2", b"lease--3")]
    held.release_later([old])
    clock.advance(LEASE_SECONDS)
    held.release_later([new])
    held.take(TAKEN)
    assert freed.get(timeout=HANG) == [new]
    held.release(TAKEN.key, TAKEN.lease)


def test_a_machine_without_threads(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request continues, and the next one starts the renewal thread."""
    renewed = threading.Event()
    held = Leases(clock, lambda _: renewed.set())
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.002)
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def starts(thread: threading.Thread) -> None:
        if failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    held.take(TAKEN)
    held.take(TAKEN._replace(lease=b"lease--2"))
    clock.advance(RENEWED_EVERY)
    assert renewed.wait(HANG)
    for lease in (b"lease--1", b"lease--2"):
        held.release(TAKEN.key, lease)
    assert held.count(TAKEN.key) == 0
