"""Many credentials tried from one network: credential stuffing."""

from __future__ import annotations

from typing import ClassVar

from ..distinct import Distinct
from ..history import HOUR
from ..observation import Observation

FEWEST = 10


class Credentials:
    """Different ids in rejected API keys from one network in an hour: 10 or more.

    One wrong key counts once, however often a client sends it.
    """

    __slots__ = ("_claimed",)
    name: ClassVar[str] = "credentials"
    of_principals: ClassVar[bool] = False
    of_networks: ClassVar[bool] = True

    def __init__(self) -> None:
        self._claimed = Distinct(HOUR, FEWEST)

    def observe(self, seen: Observation) -> str | None:
        """Count the API key if it was rejected."""
        if not seen.claimed or not self._claimed.add(seen.time, seen.claimed) or len(self._claimed) != FEWEST:
            return None
        return f"{FEWEST} different API keys rejected in an hour"
