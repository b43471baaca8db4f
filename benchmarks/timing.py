"""Times WSGI calls in one process, the contenders taking turns, so that noise hits all alike."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from werkzeug.test import EnvironBuilder

from .apps import Contender

ROUNDS = 15
SECONDS_PER_ROUND = 0.04


def body(rows: int, columns: int) -> bytes:
    """Return a JSON body of random doubles, about 20 bytes each."""
    values = np.random.default_rng(7).normal(size=(rows, columns)).tolist()
    return json.dumps({"instances": values}).encode()


def measure(contenders: Sequence[Contender], data: bytes) -> list[float]:
    """Return the median microseconds of one call of each contender.

    :raises RuntimeError: one does not answer 200.
    """
    calls = [_Call(each, data) for each in contenders]
    counts = [max(1, int(SECONDS_PER_ROUND / call.seconds(3))) for call in calls]
    rounds = [[call.seconds(count) for call, count in zip(calls, counts, strict=True)] for _ in range(ROUNDS)]
    return [statistics.median(column) * 1e6 for column in zip(*rounds, strict=True)]


class _Call:
    def __init__(self, contender: Contender, data: bytes) -> None:
        builder = EnvironBuilder("/predict", "https://localhost", method="POST", headers=contender.headers.items())
        self._environ = builder.get_environ() | {
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(data)),
        }
        self._app = contender.app
        self._name = contender.name
        self._data = data

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
        if found != ["200 OK"]:
            raise RuntimeError(f"{self._name} answers {found}")
