"""Cost of bodies: every format compared with JSON in the bare app, and rejected bodies with accepted ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from .apps import Contender, api_key, bare, secured, signing_key
from .bodies import Sent, in_every_format, numbers
from .rejected import groups
from .timing import Times, check_same, measure_each, response_of, verdict

SHAPES = ((100, 20), (1000, 100))
CAP = 4_194_304
NPY_MOST = 0.1
JSON_MOST = 0.6
# The fast path may already have parsed a body that it leaves to the schema.
REJECTED_MOST = 1.5


def formats(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table of formats."""
    yield f"{'batch':>10}  {'format':<28}{'bytes':>12}{'CPU us':>10}{'of bare JSON':>14}  target"
    for rows, columns in SHAPES:
        print(f"formats {rows}x{columns} ...", end="\r", file=sys.stderr)
        sent = in_every_format(numbers(rows, columns))
        app = _secured(folder, columns)
        calls = [(bare(), sent[0]), *((app, each) for each in sent)]
        check_same([response_of(*call) for call in calls])
        names = ("bare app, JSON", *(each.name for each in sent))
        yield from _lines(f"{rows}x{columns}", names, calls, measure_each(calls))


def _lines(batch: str, names: tuple[str, ...], calls: list[tuple[Contender, Sent]], times: Times) -> Iterator[str]:
    for place, (name, (_, sent)) in enumerate(zip(names, calls, strict=True)):
        ratio = times.ratio(place)
        most = {"npy": NPY_MOST if batch == "1000x100" else None, "JSON": JSON_MOST}.get(name)
        yield (
            f"{'' if place else batch:>10}  {name:<28}{len(sent.data):>12,}{times.microseconds(place):>10,.0f}"
            f"{ratio:>14.3f}  {verdict(ratio, most)}"
        ).rstrip()


def rejections(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table of rejected bodies, relative to an accepted body of the same size.

    The accepted body is loaded by the schema, like the rejected ones: without pysimdjson, there is no fast path for it.
    """
    rows, columns = SHAPES[-1]
    app = _secured(folder, columns)
    with mock.patch.dict(sys.modules, simdjson=None):
        by_schema = _secured(folder, columns)
    yield f"{'body':<38}{'bytes':>12}{'status':>8}{'CPU us':>10}{'of accepted':>14}  target"
    for group in groups(numbers(rows, columns), CAP):
        print(f"rejected bodies like {group[0].name} ...", end="\r", file=sys.stderr)
        times = measure_each([(app if place else by_schema, sent) for place, sent in enumerate(group)])
        for place, sent in enumerate(group):
            name = f"  {sent.name}" if place else f"{sent.name}: accepted"
            ratio = times.ratio(place)
            yield (
                f"{name:<38}{len(sent.data):>12,}{sent.status:>8}{times.microseconds(place):>10,.0f}"
                f"{ratio:>14.2f}  {verdict(ratio, REJECTED_MOST if place else None)}"
            ).rstrip()


def _secured(folder: Path, columns: int) -> Contender:
    signing_key(folder)
    app = secured(
        columns,
        folder,
        SECURE_ML_WIRE_FORMATS=["json", "oip", "npy", "msgpack", "csv"],
        SECURE_ML_CONTENT_ENCODINGS=["identity", "gzip"],
        SECURE_ML_MAX_BODY_BYTES=CAP,
    )
    return Contender("flask-secure-ml", app, api_key(app))
