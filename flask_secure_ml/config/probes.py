"""The setting for the probes of an orchestrator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..policy.fields import Options, String
from ..policy.schema import Check, Problem, option
from .fields import setting

# No variable of a URL rule, no dot segment, no empty one, and no slash at the end.
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def check_paths(options: ProbeOptions) -> Iterator[Problem]:
    """Yield a problem if two probes have one URL."""
    if options.live in {options.ready, f"{options.ready}/details"}:
        yield ("live",), "is a path of the readiness probe too; give each its own"


@dataclass(frozen=True)
class ProbeOptions:
    """Where the probes are.

    :param live: responds with 200 while the process serves requests.
    :param ready: responds with 503 while a part of the app that requests need is down.
    """

    cross_checks: ClassVar[tuple[Check, ...]] = (check_paths,)

    live: str = option(String("a path such as '/livez'", _PATH), "/livez")
    ready: str = option(String("a path such as '/readyz'", _PATH), "/readyz")


class ProbesSetting(Options):
    """The paths of the probes."""

    def __init__(self) -> None:
        super().__init__(ProbeOptions)
        self.takes = 'an object such as {"live": "/livez", "ready": "/readyz"}'


@dataclass(frozen=True)
class ProbeSettings:
    """What an orchestrator may ask."""

    probes: ProbeOptions | None = setting(
        ProbesSetting(),
        None,
        """Serve probes without a credential, in clear text too: ``{"live": "/livez", "ready": "/readyz"}``, or ``{}``
        for these paths. Which part is not ready is at ``/readyz/details``, for callers with the scope ``metrics``. See
        :doc:`/howto/probes`.""",
    )
