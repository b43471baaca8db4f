"""A log of outages that has one line when something goes down and one when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

QUIET = 60.0
"""The fewest seconds between two reported beginnings of outages, so that a flapping source does not fill the log."""


class Outage:
    """Logs the beginning and the end of an outage, however often it is reported in between.

    :param began: the line for the beginning; the reason follows it.
    :param ended: the line for the end.
    :param monotonic: returns seconds that never run backwards.
    """

    def __init__(self, began: str, ended: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._began = began
        self._ended = ended
        self._monotonic = monotonic
        self._logged = False
        self._last: float | None = None

    def failed(self, reason: str) -> None:
        """Log the beginning, unless it is logged already or another outage began less than a minute ago."""
        if self._logged:
            return
        now = self._monotonic()
        if self._last is None or not 0 <= now - self._last < QUIET:
            self._logged, self._last = True, now
            log.error("%s: %s", self._began, reason)

    def ended(self) -> None:
        """Log the end of an outage whose beginning is logged."""
        if self._logged:
            self._logged = False
            log.warning("%s", self._ended)
