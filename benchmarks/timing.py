"""Timing WSGI calls in one process; contenders alternate, so that noise affects all equally.

Processor time is measured instead of wall-clock time, which excludes other processes. These still evict caches and slow
down every call, so contenders are compared within each round, and the result is the median of the ratios.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug.test import EnvironBuilder

from .apps import Contender
from .bodies import Sent

ROUNDS = 11
SECONDS_PER_ROUND = 0.04


# Binary formats have 32 bits per number, so sums differ slightly.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Times:
    """The time of one call in seconds, by round and contender."""

    rounds: Sequence[Sequence[float]]

    def microseconds(self, place: int) -> float:
        """Return the median time of a contender in microseconds."""
        return statistics.median(seconds[place] for seconds in self.rounds) * 1e6

    def ratio(self, place: int, to: int = 0) -> float:
        """Return the median over all rounds of the ratio of a contender's time to another's."""
        return statistics.median(seconds[place] / seconds[to] for seconds in self.rounds)


def mean(call: Callable[[], object], count: int) -> float:
    """Return the mean processor time of a call, in seconds."""
    started = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - started) / count


def medians(calls: Sequence[Callable[[], object]], count: int, rounds: int = 15) -> list[float]:
    """Return the median processor time of one call of each, in microseconds; calls alternate."""
    found = [[mean(call, count) for call in calls] for _ in range(rounds)]
    return [statistics.median(column) * 1e6 for column in zip(*found, strict=True)]


class Timed(Protocol):
    """A call that can be repeated and timed."""

    def seconds(self, count: int) -> float:
        """Return the mean seconds of ``count`` calls."""


def verdict(ratio: float, most: float | None) -> str:
    """Return the cell with the target and whether it is met; empty if there is no target."""
    if most is None:
        return ""
    return f"{most:.2f} {'met' if round(ratio, 2) <= most else 'MISSED'}"


def measure(contenders: Sequence[Contender], sent: Sent) -> Times:
    """Return the times of one call of each contender with the same body.

    :raises RuntimeError: a response does not have the expected status, or has other sums than the first.
    """
    check_same([response_of(each, sent) for each in contenders])
    return measure_each([(each, sent) for each in contenders])


def response_of(contender: Contender, sent: Sent) -> bytes:
    """Return the body of the response.

    :raises RuntimeError: the response does not have the expected status.
    """
    return _Call(contender, sent).response()


def check_same(responses: Sequence[bytes]) -> None:
    """Check that all responses have the same sums, because times of different work cannot be compared.

    :raises RuntimeError: a response has other sums.
    """
    first, *others = map(_sums, responses)
    if not all(each.shape == first.shape and np.allclose(each, first, atol=_ROUNDING) for each in others):
        raise RuntimeError("the apps respond differently to the same request, so times cannot be compared")


def measure_each(calls: Sequence[tuple[Contender, Sent]]) -> Times:
    """Return the times of one call of each contender with its body.

    :raises RuntimeError: a response does not have the expected status.
    """
    return alternate([call_of(*each) for each in calls])


def call_of(contender: Contender, sent: Sent) -> Timed:
    """Return a timed call of a contender with a body."""
    return _Call(contender, sent)


def alternate(made: Sequence[Timed]) -> Times:
    """Return the times of one call of each, in rounds in which they alternate."""
    # The fastest of three: a pause would otherwise leave too few calls per round.
    counts = [max(1, int(SECONDS_PER_ROUND / min(call.seconds(3) for _ in range(3)))) for call in made]
    # A full garbage collection takes as long as a hundred calls, and would affect the same contender in each round.
    gc.collect()
    gc.freeze()
    try:
        return Times([[call.seconds(count) for call, count in zip(made, counts, strict=True)] for _ in range(ROUNDS)])
    finally:
        gc.unfreeze()


def _sums(response: bytes) -> NDArray[np.float32]:
    document = orjson.loads(response)
    # The Open Inference Protocol has a different response format.
    found = document["sums"] if "sums" in document else document["outputs"][0]["data"]
    return np.array(found, np.float32)


class _Call:
    def __init__(self, contender: Contender, sent: Sent) -> None:
        headers = contender.headers | dict(sent.headers)
        builder = EnvironBuilder("/predict", "https://localhost", method="POST", headers=headers.items())
        self._environ = builder.get_environ() | {
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": sent.media_type,
            "CONTENT_LENGTH": str(len(sent.data)),
        }
        self._app = contender.app
        self._name = f"{contender.name}, {sent.name}"
        self._data = sent.data
        self._status = str(sent.status)

    def seconds(self, count: int) -> float:
        """Return the mean seconds of ``count`` calls."""
        environs: list[dict[str, Any]] = [self._environ | {"wsgi.input": BytesIO(self._data)} for _ in range(count)]
        started = time.process_time()
        for environ in environs:
            self._one(environ)
        return (time.process_time() - started) / count

    def response(self) -> bytes:
        """Return the body of one response."""
        return self._one(self._environ | {"wsgi.input": BytesIO(self._data)})

    def _one(self, environ: dict[str, Any]) -> bytes:
        found: list[str] = []
        response = self._app.wsgi_app(environ, lambda status, *_: found.append(status) or (lambda _: None))  # type: ignore[func-returns-value]
        body = b"".join(response)
        if hasattr(response, "close"):
            response.close()
        if found[0][:3] != self._status:
            raise RuntimeError(f"{self._name} responded with {found[0]} instead of {self._status}")
        return body
