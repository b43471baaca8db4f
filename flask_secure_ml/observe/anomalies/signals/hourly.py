"""An amount in an hour against what is usual: what rate, rows and bytes have in common."""

from __future__ import annotations

from typing import ClassVar

from ..history import History
from ..observation import Observation


class Hourly:
    """A sum of a clock hour against the subject's own :class:`~..history.History`.

    A signal of this kind has a ``minimum``, below which nothing is unusual, the ``unit`` of its explanation, and
    :meth:`amount`.
    """

    __slots__ = ("_history",)
    name: ClassVar[str]
    unit: ClassVar[str]
    minimum: ClassVar[int]
    of_principals: ClassVar[bool] = True
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._history = History(self.minimum)

    def amount(self, seen: Observation) -> int:
        """Return what a request adds."""
        raise NotImplementedError

    def observe(self, seen: Observation) -> str | None:
        """Add the amount of the request."""
        amount, history = self.amount(seen), self._history
        if not amount or not history.add(seen.time, amount):
            return None
        usual = f"{history.total}, usually up to {history.usual:.0f}"
        return f"{history.times} its usual {self.unit} in an hour ({usual})"
