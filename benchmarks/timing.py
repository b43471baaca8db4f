"""Times WSGI calls in one process, the contenders taking turns, so that noise hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from werkzeug.test import EnvironBuilder

from .apps import Contender
from .bodies import Sent

ROUNDS = 15
SECONDS_PER_ROUND = 0.04
_OK = 200


def measure(contenders: Sequence[Contender], sent: Sent) -> list[float]:
    """Return the median microseconds of one call of each contender with the same body.

    :raises RuntimeError: one does not answer 200.
    """
    return measure_each([(each, sent, _OK) for each in contenders])


def measure_each(calls: Sequence[tuple[Contender, Sent, int]]) -> list[float]:
    """Return the median microseconds of one call of each contender with its body.

    :raises RuntimeError: one does not answer with its status.
    """
    made = [_Call(*each) for each in calls]
    counts = [max(1, int(SECONDS_PER_ROUND / call.seconds(3))) for call in made]
    rounds = [[call.seconds(count) for call, count in zip(made, counts, strict=True)] for _ in range(ROUNDS)]
    return [statistics.median(column) * 1e6 for column in zip(*rounds, strict=True)]


class _Call:
    def __init__(self, contender: Contender, sent: Sent, status: int) -> None:
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
        self._status = status

    def seconds(self, count: int) -> float:
        """Return the mean seconds of ``count`` calls."""
        environs: list[dict[str, Any]] = [self._environ | {"wsgi.input": BytesIO(self._data)} for _ in range(count)]
        started = time.perf_counter()
        for environ in environs:
            self._one(environ)
        return (time.perf_counter() - started) / count

    def _one(self, environ: dict[str, Any]) -> None:
        found: list[str] = []
        answer = self._app.wsgi_app(environ, lambda status, *_: found.append(status) or (lambda _: None))  # type: ignore[func-returns-value]
        for _ in answer:
            pass
        if hasattr(answer, "close"):
            answer.close()
        if found[0][:3] != str(self._status):
            raise RuntimeError(f"{self._name} answers {found}")
