"""Leases of this process: their number, and renewal for long requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits import leases as module
from flask_secure_ml.limits.counters import LEASE_SECONDS, Charge
from flask_secure_ml.limits.leases import RENEWED_EVERY, Lease, Leases
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet
from flask_secure_ml.testing import FakeClock

RULES = RuleSet([Rule("f", Kind.LEASES, 2, 0.0, "concurrent-requests")])


def charge(lease: bytes, key: bytes = b"a") -> Charge:
    return Charge(key, RULES, (1,), lease)


def test_counts(clock: FakeClock) -> None:
    """By key; a repeated release has no effect."""
    held = Leases(clock, None)
    held.take(charge(b"1"))
    held.take(charge(b"2"))
    held.take(charge(b"1", b"b"))
    assert (held.count(b"a"), held.count(b"b"), held.count(b"c")) == (2, 1, 0)
    for _ in range(2):
        held.release(b"a", b"1")
    assert (held.count(b"a"), held.count(b"b")) == (1, 1)


def test_only_old_leases_are_renewed(clock: FakeClock) -> None:
    """Often enough that one failed renewal ends none."""
    renewed: list[Sequence[Lease]] = []
    held = Leases(clock, renewed.append)
    held._local.get().thread = threading.current_thread()
    held.take(charge(b"1"))
    clock.advance(RENEWED_EVERY + 0.1)
    held.take(charge(b"2"))
    held.renew()
    held.renew()
    assert renewed == [[(b"a", RULES, b"1")]]
    clock.advance(RENEWED_EVERY + 0.1)
    held.renew()
    assert [sorted(lease for _, _, lease in each) for each in renewed] == [[b"1"], [b"1", b"2"]]
    assert 2 * RENEWED_EVERY < LEASE_SECONDS


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.01)
    monkeypatch.setattr(module, "IDLE", 0.03)


@pytest.mark.usefixtures("fast")
def test_the_thread(clock: FakeClock) -> None:
    """It starts with the first lease, continues after an outage of the store, and ends without leases."""
    calls: list[Any] = []
    twice = threading.Event()

    def renew(due: Sequence[Lease]) -> None:
        calls.append(due)
        clock.advance(1)
        if len(calls) > 1:
            twice.set()
        raise DependencyUnavailable("down")

    held = Leases(clock, renew)
    held.take(charge(b"1"))
    clock.advance(1)
    thread = held._local.get().thread
    assert thread is not None
    assert twice.wait(20)
    held.release(b"a", b"1")
    thread.join(20)
    assert not thread.is_alive()
    assert held._local.get().thread is None
    held.take(charge(b"2"))
    assert held._local.get().thread is not None
    held.release(b"a", b"2")


def test_a_store_of_this_process_needs_no_thread(clock: FakeClock) -> None:
    """Its leases end with the process."""
    held = Leases(clock, None)
    held.take(charge(b"1"))
    assert held._local.get().thread is None
