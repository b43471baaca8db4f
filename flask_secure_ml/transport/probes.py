"""Probes for an orchestrator: liveness and readiness of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from flask import Flask
from werkzeug.sansio.response import Response

from ..errors import ConfigError, SecureMLError
from ..policy.policy import MARK, Policy
from ..refresh import Outage, process_lock

if TYPE_CHECKING:
    from ..config.probes import ProbeOptions

LIVE = "secure_ml_live"
READY = "secure_ml_ready"
DETAILS = "secure_ml_ready_details"

PROBES = frozenset({LIVE, READY})
"""The endpoints without limits: other clients may share a network with the kubelet, which ends the process if a probe
fails."""

SCOPE = "metrics"
"""The scope for the details."""

CACHED = 1.0
"""Seconds for which the last result is cached, to limit the work that probes cause."""

START = "start"
"""The name that is reported as not ready until there is a first result."""

Part = Callable[[], object]
"""A check that raises an error while requests that need a part would be rejected."""


class Monotonic(Protocol):
    """A clock that measures ages."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes backwards."""


class Readiness:
    """Finds the parts that cannot serve requests now.

    :param parts: checks by name; each does what a request would do, so it has the same timeouts and pauses.
    """

    def __init__(self, parts: Mapping[str, Part], clock: Monotonic) -> None:
        self._parts = tuple(
            (name, part, Outage(f"not ready: {name}", f"ready again: {name}", clock.monotonic))
            for name, part in parts.items()
        )
        self._clock = clock
        self._lock = process_lock()
        self._last: tuple[float, tuple[str, ...]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parts."""
        return tuple(name for name, _, _ in self._parts)

    def problems(self) -> tuple[str, ...]:
        """Return the name of each part that is not ready.

        The result is at most a second old unless a part takes longer.
        """
        last = self._last
        if last is not None and self._is_fresh(last):
            return last[1]
        lock = self._lock.get()
        # Do not wait while another thread checks: anyone may probe, and the number of threads is limited.
        if not lock.acquire(blocking=False):
            return last[1] if last else (START,)
        try:
            last = self._last
            if last is None or not self._is_fresh(last):
                self._last = last = self._clock.monotonic(), tuple(self._down())
            return last[1]
        finally:
            lock.release()

    def _down(self) -> Iterator[str]:
        for name, part, outage in self._parts:
            try:
                part()
            except Exception as error:  # noqa: BLE001  any error that a request would get too
                outage.failed(error.reason if isinstance(error, SecureMLError) else type(error).__name__)
                yield name
            else:
                outage.ended()

    def _is_fresh(self, last: tuple[float, tuple[str, ...]]) -> bool:
        return 0 <= self._clock.monotonic() - last[0] < CACHED


def add_probes(app: Flask, options: ProbeOptions, readiness: Readiness) -> None:
    """Add the routes of the probes.

    The probes are public. Callers with the scope ``metrics`` also get the names of the parts that are not ready.

    :raises ConfigError: the app has its own route at one of the URLs.
    """

    def live() -> Response:
        return _response(app, ())

    def ready() -> Response:
        return _response(app, readiness.problems())

    def details() -> Response:
        problems = readiness.problems()
        return _response(app, problems, {"unavailable": list(problems)})

    anyone, scraper = (
        Policy.build(public=True, tls="optional", scores=False),
        Policy.build(scopes=[SCOPE], scores=False),
    )
    routes = [(LIVE, options.live, live, anyone), (READY, options.ready, ready, anyone)]
    routes.append((DETAILS, f"{options.ready}/details", details, scraper))
    taken = sorted({path for _, path, _, _ in routes} & {rule.rule.rstrip("/") for rule in app.url_map.iter_rules()})
    if taken:
        raise ConfigError([f"SECURE_ML_PROBES uses {taken[0]}, but this app already has a route there"])
    for endpoint, path, view, policy in routes:
        setattr(view, MARK, policy)
        app.add_url_rule(path, endpoint, view, methods=["GET"])


def _response(app: Flask, problems: Sequence[str], more: Mapping[str, object] | None = None) -> Response:
    """Return a response that shows only whether there are problems, and ``more``."""
    response = app.json.response({"status": "unavailable" if problems else "ok", **(more or {})})
    response.headers["Cache-Control"] = "no-store"
    if problems:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "1"
    return response
