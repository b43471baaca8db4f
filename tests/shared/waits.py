"""Bounds on waiting, checked by the timeouts that code passes instead of elapsed time on a busy machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

HANG = 10.0
"""The time in seconds after which a test reports a hang, even on a busy machine."""


def assert_bounded(waits: Sequence[float | None], seconds: float) -> None:
    """Check that each timeout is at most the rest of a budget of seconds; 0 does not wait, None waits for ever."""
    assert None not in waits
    found = [each for each in waits if each]
    assert found
    assert all(0 < each <= seconds for each in found)
    # A connection gets a millisecond even if no time is left.
    assert all(later <= earlier + 0.001 for earlier, later in pairwise(found))
