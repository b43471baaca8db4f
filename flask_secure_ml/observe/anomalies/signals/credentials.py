"""Credential stuffing: many identities from one network, or one identity from many networks."""

from __future__ import annotations

import math
from typing import ClassVar

from ..distinct import Distinct, digest
from ..history import HOUR
from ..observation import Observation
from .base import Reading

FEWEST = 10


class _Tried:
    """Distinct values among rejected credentials in a clock hour: 10 or more."""

    __slots__ = ("_found", "_tried")
    unit: ClassVar[str]

    def __init__(self) -> None:
        self._tried = Distinct(HOUR, FEWEST)
        self._found = 0

    def value(self, seen: Observation) -> str:
        """Return the value to count."""
        raise NotImplementedError

    def observe(self, seen: Observation, share: float) -> bool:
        """Count the credential if it was rejected."""
        if not seen.attempted or not self._tried.add(seen.time, digest(self.value(seen))):
            return False
        if len(self._tried) < math.ceil(min(share, 1.0) * FEWEST):
            return False
        self._found = len(self._tried)
        self._tried.clear()
        return True

    def explain(self) -> str:
        """Return a description of the number of attempts."""
        return f"{self._found} different {self.unit}"

    def read(self, time: float) -> Reading:
        """Return the number of attempts in this hour."""
        count = self._tried.count(time)
        return Reading(count / FEWEST, f"different {self.unit}: {count}", f"unusual from {FEWEST}")


class Credentials(_Tried):
    """Distinct identities that rejected credentials from one network claim in an hour: 10 or more.

    A wrong credential counts once, regardless of how often a client sends it.
    """

    __slots__ = ()
    name: ClassVar[str] = "credentials"
    unit: ClassVar[str] = "identities in rejected credentials in an hour"
    of_principals: ClassVar[bool] = False
    of_networks: ClassVar[bool] = True
    of_identities: ClassVar[bool] = False

    def value(self, seen: Observation) -> str:
        """Return the claimed identity."""
        return seen.attempted


class Targeted(_Tried):
    """Distinct networks that present rejected credentials of one identity in an hour: 10 or more.

    The identity is the one that the credential claims. It is reported but never penalized, because anyone who knows the
    name could cause a penalty.
    """

    __slots__ = ()
    name: ClassVar[str] = "targeted"
    unit: ClassVar[str] = "networks that sent rejected credentials of it in an hour"
    of_principals: ClassVar[bool] = False
    of_networks: ClassVar[bool] = False
    of_identities: ClassVar[bool] = True

    def value(self, seen: Observation) -> str:
        """Return the network."""
        return seen.network
