"""The setting of the orchestrator probes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..policy.fields import Options, String
from ..policy.schema import Check, Problem, option
from .fields import setting

# No variable of a URL rule, no dot segment, no empty segment, and no trailing slash.
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def check_paths(options: ProbeOptions) -> Iterator[Problem]:
    """Yield a problem if both probes have the same path."""
    if options.live in {options.ready, f"{options.ready}/details"}:
        yield ("live",), "is also the path of the readiness probe; use different paths"


@dataclass(frozen=True)
class ProbeOptions:
    """The paths of the probes.

    :param live: responds with 200 while the process serves requests.
    :param ready: responds with 503 while a dependency of requests is down.
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
    """Probes for an orchestrator."""

    probes: ProbeOptions | None = setting(
        ProbesSetting(),
        None,
        """Serve probes without authentication, also in clear text: ``{"live": "/livez", "ready": "/readyz"}``, or
        ``{}`` for these paths. ``/readyz/details`` reports which part is not ready, to callers with the scope
        ``metrics``. See :doc:`/howto/probes`.""",
    )
