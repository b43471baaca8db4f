"""Compares an amount in ten minutes with the usual one; the base of rate, rows and volume."""

from __future__ import annotations

import math
from typing import ClassVar

from ..history import History
from ..observation import Observation
from .base import Reading


class Amount:
    """Compares a sum of ten minutes with the subject's :class:`~..history.History`.

    A subclass defines ``minimum``, below which a sum is never unusual, the ``unit`` for explanations, and
    :meth:`amount`.
    """

    __slots__ = ("_history",)
    name: ClassVar[str]
    unit: ClassVar[str]
    minimum: ClassVar[int]
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True
    of_identities: ClassVar[bool] = False

    def __init__(self) -> None:
        self._history = History(self.minimum)

    def amount(self, seen: Observation) -> int:
        """Return the amount of requests."""
        raise NotImplementedError

    def observe(self, seen: Observation, share: float) -> bool:
        """Add the amount of the requests."""
        amount = self.amount(seen)
        return bool(amount) and self._history.add(seen.time, amount, share)

    def explain(self) -> str:
        """Return a description of the sum and the usual one."""
        history = self._history
        times = history.spent / max(history.usual, 1)
        usual = f"{history.spent:.0f}, usually up to {history.usual:.0f}"
        return f"{times:.0f} times its usual {self.unit} in ten minutes ({usual})"

    def read(self, time: float) -> Reading:
        """Return the sum of the last ten minutes and its unusual value."""
        history = self._history
        total = history.total(time)
        value = f"{self.unit} in ten minutes: {total:.0f}"
        if history.limit == math.inf:
            return Reading(0.0, value, "not enough history: needs three days and twelve active hours")
        usual = f"usually up to {history.usual:.0f}, unusual from {history.limit:.0f}"
        return Reading(total / history.limit, value, usual)
