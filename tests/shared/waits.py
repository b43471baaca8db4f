"""How long code is ready to wait, measured by the timeouts that it gives, and not by a watch on a busy machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

HANG = 10.0
"""Seconds after which a test says that something hangs, however busy the machine is."""


def assert_bounded(waits: Sequence[float | None], seconds: float) -> None:
    """Check that each wait has what those before it left of so many seconds; 0 is not waiting, and None is for ever."""
    assert None not in waits
    found = [each for each in waits if each]
    assert found
    assert all(0 < each <= seconds for each in found)
    # A connection is given a millisecond even when nothing is left.
    assert all(later <= earlier + 0.001 for earlier, later in pairwise(found))
