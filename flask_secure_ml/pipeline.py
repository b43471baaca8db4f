"""The order of things: guards before the view, filters on the response, recorders at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from flask import Request, Response

from .errors import SecureMLError
from .exchange import Exchange

log: logging.Logger = logging.getLogger(__name__)


class Stage(IntEnum):
    """Where a guard stands on the request's way. The stage decides, not the order of registration."""

    TRANSPORT = 10
    ADMISSION = 20
    AUTHENTICATE = 30
    AUTHORIZE = 40
    LIMIT = 50
    INPUT = 60
    COST = 70


class Guard(Protocol):
    """Looks at the request and writes one fact on the exchange, or raises a :class:`SecureMLError`."""

    @property
    def name(self) -> str:
        """A short name for logs."""

    @property
    def stage(self) -> Stage:
        """Where the guard stands."""

    def check(self, request: Request, exchange: Exchange) -> None:
        """Let the request pass, or raise."""


class Filter(Protocol):
    """Changes the response on its way out."""

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Change the response in place. Called again when a later hook fails, so it must be idempotent."""


class Recorder(Protocol):
    """Reads the exchange when its response starts; may write to a store, never to the exchange.

    A recorder may have a second method, ``record_stream_end(exchange)``, which is called when the body of a stream
    ended or broke; ``exchange.stream_error`` says why it broke.
    """

    def record(self, exchange: Exchange) -> None:
        """Write down what happened. One that raises is logged, and the others still run."""


@dataclass(frozen=True)
class Pipeline:
    """The parts of one app, in order."""

    guards: tuple[Guard, ...] = ()
    filters: tuple[Filter, ...] = ()
    recorders: tuple[Recorder, ...] = ()

    @classmethod
    def build(
        cls, guards: Iterable[Guard], filters: Iterable[Filter] = (), recorders: Iterable[Recorder] = ()
    ) -> Pipeline:
        """Sort the guards by stage; guards of one stage keep the order in which they were given."""
        ordered = sorted(guards, key=lambda guard: guard.stage)
        return cls(tuple(ordered), tuple(filters), tuple(recorders))

    def check(self, request: Request, exchange: Exchange) -> None:
        """Run every guard; only when all let the request pass is its policy cleared.

        Where they have admitted the request under another policy, its transport was checked, and a caller that is known
        stays the same; what remains is whether the new policy admits it.
        """
        exchange.cleared = None
        try:
            for guard in self._remaining(exchange):
                guard.check(request, exchange)
        except SecureMLError as error:
            exchange.reject(error)
            raise
        exchange.cleared = exchange.policy
        exchange.checked_by = self

    def _remaining(self, exchange: Exchange) -> Iterable[Guard]:
        # What another app has admitted says nothing of the guards of this one.
        if exchange.checked_by is not self:
            return self.guards
        first = Stage.ADMISSION if exchange.principal is None else Stage.AUTHORIZE
        return [guard for guard in self.guards if guard.stage >= first]

    def filter(self, response: Response, exchange: Exchange) -> None:
        """Run every filter over the response."""
        for each in self.filters:
            each.apply(response, exchange)

    def record(self, exchange: Exchange) -> None:
        """Let every recorder write the exchange down."""
        run_each([recorder.record for recorder in self.recorders], exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Let every recorder that cares for streams write down how one ended."""
        ends = [getattr(recorder, "record_stream_end", None) for recorder in self.recorders]
        run_each([record for record in ends if record is not None], exchange)


def run_each(recorders: Sequence[Callable[[Exchange], None]], exchange: Exchange) -> None:
    """Call each recorder; a failing one is logged and does not stop the others or the answer."""
    for recorder in recorders:
        try:
            recorder(exchange)
        except Exception:
            log.exception("a recorder failed for request %s", exchange.request_id)
