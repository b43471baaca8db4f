"""Cost of the input guard alone: time relative to a request of the bare app, and function calls, including C."""

from __future__ import annotations

import cProfile
import sys
import time
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

from flask import Request
from marshmallow import Schema
from werkzeug.test import EnvironBuilder

from flask_secure_ml import Exchange, Policy
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.body_stream import Caps
from flask_secure_ml.inputs.encodings import Encodings
from flask_secure_ml.inputs.formats import build_formats
from flask_secure_ml.inputs.guard import InputGuard
from flask_secure_ml.inputs.number_arrays import NumberArrays, number_arrays

from .apps import bare
from .bodies import JSON, LONG, SHORT, Sent, as_json, numbers
from .timing import alternate, call_of, verdict

SHAPES = ((1, 4), (100, 20), (1000, 100))
SMALL = 1
MOST_OF_BARE, MOST_CALLS = 0.2, 60
CAPS = Caps(
    max_bytes=4_194_304,
    max_depth=32,
    max_members=1_000,
    max_string=1_048_576,
    max_elements=1_000_000,
    max_decoded=100_000_000,
)


def report(_folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table."""
    yield f"{'batch':>20}  {'pysimdjson':<12}{'CPU us':>10}{'of bare':>10}{'calls':>8}  target"
    for (rows, columns), digits in product(SHAPES, (SHORT, LONG)):
        print(f"guard {rows}x{columns} ...", end="\r", file=sys.stderr)
        data = as_json(numbers(rows, columns, digits))
        calls = [_Check(data, columns, arrays) for arrays in (number_arrays(), None)]
        times = alternate([call_of(bare(), Sent("JSON", data)), *calls])
        for place, call in enumerate(calls, 1):
            ratio, count = times.ratio(place), call.count()
            met = f"{MOST_CALLS} {'met' if count <= MOST_CALLS else 'MISSED'}"
            asked = f"{verdict(ratio, MOST_OF_BARE)}, {met}" if rows == SMALL else ""
            batch = f"{rows}x{columns}, {digits} digits" if place == 1 else ""
            name, time_taken = "with" if place == 1 else "without", times.microseconds(place)
            yield f"{batch:>20}  {name:<12}{time_taken:>10,.0f}{ratio:>10.3f}{count:>8}  {asked}".rstrip()


class _Check:
    """Checks one body with the guard; each check has its own request and exchange."""

    def __init__(self, data: bytes, columns: int, arrays: NumberArrays | None) -> None:
        class Body(Schema):
            instances = Tensor(shape=(None, columns), dtype="float32", minimum=-1e6, maximum=1e6)

        self._guard = InputGuard(CAPS, partial(build_formats, ("json",)), Encodings(), arrays)
        self._policy = Policy.build(body=Body)
        self._data = data
        builder = EnvironBuilder("/predict", "https://localhost", method="POST")
        self._environ = builder.get_environ() | {"CONTENT_TYPE": JSON, "CONTENT_LENGTH": str(len(data))}

    def _arguments(self) -> tuple[Any, Any]:
        environ = self._environ | {"wsgi.input": BytesIO(self._data)}
        return Request(environ), Exchange("id", 0.0, 0.0, "127.0.0.1", "127.0.0.1", True, policy=self._policy)

    def seconds(self, count: int) -> float:
        """Return the mean seconds of ``count`` checks."""
        arguments = [self._arguments() for _ in range(count)]
        started = time.process_time()
        for each in arguments:
            self._guard.check(*each)
        return (time.process_time() - started) / count

    def count(self) -> int:
        """Return the number of function calls of one check."""
        profile = cProfile.Profile()
        profile.runcall(self._guard.check, *self._arguments())
        return sum(each.callcount for each in profile.getstats())
