"""The protocol of a signal."""

from __future__ import annotations

from typing import ClassVar, Protocol

from ..observation import Observation


class Signal(Protocol):
    """What one signal knows of one subject: an object for each of them, in bounded memory."""

    name: ClassVar[str]
    """Its name in settings, metrics and events."""
    of_principals: ClassVar[bool]
    """Whether it scores principals."""
    of_networks: ClassVar[bool]
    """Whether it scores networks of anonymous and rejected requests."""

    def __init__(self) -> None: ...

    def observe(self, seen: Observation) -> str | None:
        """Take a request of the subject into account; return what is unusual in words, or None."""
