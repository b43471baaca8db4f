"""Instants as strings, compared with datetime, in any order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.observe.instants import Instants

NEAR_A_SECOND = [0.0, 1.0, 1.4999995, 1.9999994, 1.9999996, 1.9999999, 1_800_000_000.9999998, 1_800_000_000.123]
TIMES = st.floats(0, 4e9) | st.floats(1_800_000_000, 1_800_000_002)


def expected(seconds: float) -> tuple[str, int]:
    instant = datetime.fromtimestamp(seconds, UTC)
    return instant.strftime("%Y-%m-%dT%H:%M:%S"), instant.microsecond


@pytest.mark.parametrize("seconds", NEAR_A_SECOND)
def test_the_end_of_a_second(seconds: float) -> None:
    """It is rounded as datetime does, also when that is the next second and the second before is known."""
    instants = Instants()
    instants.split(float(int(seconds)))
    assert instants.split(seconds) == expected(seconds)


@given(st.lists(TIMES, max_size=8))
def test_any_order(times: list[float]) -> None:
    """Time may stand still, jump and be set back."""
    instants = Instants()
    for seconds in times:
        text, microseconds = instants.split(seconds)
        assert text == expected(seconds)[0] or microseconds in {0, 999_999}
        assert abs(microseconds - expected(seconds)[1]) in {0, 1, 999_999}
