"""Callers that continue beyond a limit wait longer each time; others are not affected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.limits.backoff import NO_PENALTY, Penalty, forgiven, penalty_ends, rejected
from flask_secure_ml.limits.counters import Backoff

BACKOFF = Backoff(tolerance=3, base=10, factor=2, maximum=60, decay=100, jitter=0.0, block_after=5, block=500)


def hammer(penalty: Penalty, now: float, seconds: int, wait: float = 60.0) -> Penalty:
    """Return the penalty after a rejection every two seconds."""
    for second in range(0, seconds, 2):
        penalty = rejected(penalty, now + second, wait, BACKOFF, 0.0)
    return penalty


def test_the_first_rejection_is_no_fault() -> None:
    """Nor are those that were on their way, or as many as are tolerated."""
    penalty = rejected(NO_PENALTY, 100.0, 60.0, BACKOFF, 0.0)
    for _ in range(50):
        penalty = rejected(penalty, 100.5, 60.0, BACKOFF, 0.0)
    assert (penalty.strikes, penalty.until) == (0, 0)
    assert hammer(penalty, 102.0, 6).strikes == 0


def test_a_client_that_waits_has_no_penalty() -> None:
    """However often it is rejected."""
    penalty, now = NO_PENALTY, 0.0
    for _ in range(100):
        penalty = rejected(penalty, now, 60.0, BACKOFF, 0.0)
        now += 60.0
    assert penalty.strikes == 0


def test_going_on_costs_more_each_time() -> None:
    """10, 20, 40 and 60 seconds, then a block."""
    penalty, now, lasted = NO_PENALTY, 0.0, []
    for _ in range(200):
        before = penalty.strikes
        penalty = rejected(penalty, now, 30.0, BACKOFF, 0.0)
        if penalty.strikes > before:
            lasted.append(round(penalty.until - now))
        now += 2.0
    assert lasted[:5] == [10, 20, 40, 60, 500]
    assert penalty.until > now
    assert penalty.strikes >= BACKOFF.block_after


def test_strikes_are_forgiven_one_by_one() -> None:
    """After calm time, counted from the end of the penalty."""
    penalty = hammer(NO_PENALTY, 0.0, 20)
    assert penalty.strikes == 2
    calm = max(penalty.counted, penalty.until)
    found = [forgiven(penalty, calm + seconds, BACKOFF).strikes for seconds in (0, 99, 100, 199, 200, 10_000)]
    assert found == [2, 2, 1, 1, 0, 0]
    assert forgiven(penalty, penalty_ends(penalty, BACKOFF), BACKOFF).strikes == 0


def test_jitter_only_adds() -> None:
    """No caller is told a shorter wait than necessary."""
    jittery = BACKOFF._replace(jitter=0.5)
    penalty = hammer(NO_PENALTY, 0.0, 8)
    least = rejected(penalty, 8.0, 60.0, jittery, 0.0)
    most = rejected(penalty, 8.0, 60.0, jittery, 1.0)
    assert (least.until - 8.0, most.until - 8.0) == (10.0, 15.0)


def test_a_clock_that_is_set_back() -> None:
    """A penalty does not become longer than the longest one."""
    penalty = hammer(NO_PENALTY, 1_000_000.0, 40)
    assert penalty.until > 1_000_000
    assert forgiven(penalty, 1000.0, BACKOFF) == NO_PENALTY


@given(st.lists(st.tuples(st.floats(0, 120), st.floats(0, 60)), max_size=60))
def test_never_longer_than_said(steps: list[tuple[float, float]]) -> None:
    """Penalties are bounded, and strikes never negative."""
    penalty, now = NO_PENALTY, 0.0
    for seconds, wait in steps:
        now += seconds
        penalty = rejected(penalty, now, wait, BACKOFF, 0.5)
        assert penalty.until - now <= 500
        assert penalty.strikes >= 0
        assert penalty.told >= now
