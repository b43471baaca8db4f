"""The pipeline of an app: guards before the view, filters on the response, recorders at the end."""

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
    """The position of a guard in the request lifecycle, regardless of the order of registration."""

    TRANSPORT = 10
    ADMISSION = 20
    AUTHENTICATE = 30
    AUTHORIZE = 40
    LIMIT = 50
    INPUT = 60
    COST = 70


class Guard(Protocol):
    """Checks a request, and sets one fact on the exchange or raises a :class:`SecureMLError`."""

    @property
    def name(self) -> str:
        """The name in logs."""

    @property
    def stage(self) -> Stage:
        """The stage at which the guard runs."""

    def check(self, request: Request, exchange: Exchange) -> None:
        """Return to admit the request, or raise an error.

        :raises SecureMLError: the request is rejected.
        :raises Completed: the guard has responded itself; neither later guards nor the view run.
        """

    # A guard may have a second method, ``rejected(exchange, error)``. It runs after any guard has raised an exception
    # of any kind, and returns the exception that determines the response.


class Filter(Protocol):
    """Changes the response."""

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Change the response in place.

        This must be idempotent, because it runs again if a later hook fails.
        """


class Recorder(Protocol):
    """Reads the exchange when the response starts.

    It may write to a store, but not to the exchange. A recorder may have a second method,
    ``record_stream_end(exchange)``. It runs when the body of a stream has ended; ``exchange.stream_error`` is the
    reason if it ended too early.
    """

    def record(self, exchange: Exchange) -> None:
        """Record the exchange. An exception is logged, and the other recorders still run."""


@dataclass(frozen=True)
class Pipeline:
    """The guards, filters and recorders of one app, in order."""

    guards: tuple[Guard, ...] = ()
    filters: tuple[Filter, ...] = ()
    recorders: tuple[Recorder, ...] = ()

    @classmethod
    def build(
        cls, guards: Iterable[Guard], filters: Iterable[Filter] = (), recorders: Iterable[Recorder] = ()
    ) -> Pipeline:
        """Return a pipeline with the guards sorted by stage; guards of one stage keep their order."""
        ordered = sorted(guards, key=lambda guard: guard.stage)
        return cls(tuple(ordered), tuple(filters), tuple(recorders))

    def check(self, request: Request, exchange: Exchange) -> None:
        """Run the guards, and mark the policy as cleared when all of them have admitted the request.

        If they admitted the request under another policy before, an authenticated caller is kept, and everything else
        is checked again, because the other policy may have required less, for example no TLS.

        :raises SecureMLError: a guard rejected the request.
        """
        exchange.cleared = None
        try:
            for guard in self._remaining(exchange):
                guard.check(request, exchange)
        except Exception as error:
            # If code of the app fails or responds itself, the request must still be charged.
            final = self._rejected(exchange, error)
            if isinstance(final, SecureMLError):
                exchange.reject(final)
            if final is error:
                raise
            raise final from error
        exchange.cleared = exchange.policy
        exchange.checked_by = self

    def _rejected(self, exchange: Exchange, error: Exception) -> Exception:
        """Run the ``rejected`` methods of the guards, and return the error that the client gets."""
        for guard in self.guards:
            rejected: Callable[[Exchange, Exception], Exception] | None = getattr(guard, "rejected", None)
            if rejected is not None:
                error = rejected(exchange, error)
        return error

    def _remaining(self, exchange: Exchange) -> Iterable[Guard]:
        # If another app admitted the request, it ran its own guards, not these.
        if exchange.checked_by is not self or exchange.principal is None:
            return self.guards
        return [guard for guard in self.guards if not Stage.ADMISSION <= guard.stage < Stage.AUTHORIZE]

    def filter(self, response: Response, exchange: Exchange) -> None:
        """Run the filters on the response."""
        for each in self.filters:
            each.apply(response, exchange)

    def record(self, exchange: Exchange) -> None:
        """Run the recorders."""
        run_each([recorder.record for recorder in self.recorders], exchange)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Run the recorders that record the ends of streams."""
        ends = [getattr(recorder, "record_stream_end", None) for recorder in self.recorders]
        run_each([record for record in ends if record is not None], exchange)


def run_each(recorders: Sequence[Callable[[Exchange], None]], exchange: Exchange) -> None:
    """Call each recorder; an exception is logged, and affects neither the others nor the response."""
    for recorder in recorders:
        try:
            recorder(exchange)
        except Exception:
            log.exception("a recorder failed for request %s", exchange.request_id)
