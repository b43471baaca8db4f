"""What bodies cost: every format against the bare app with JSON, and every refusal against a body that is accepted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .apps import Contender, api_key, bare, secured, signing_key
from .bodies import Sent, in_every_format, numbers, refused
from .timing import measure_each

SHAPES = ((100, 20), (1000, 100))
CAP = 4_194_304


def formats(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table of formats."""
    yield f"{'batch':>10}  {'format':<28}{'bytes':>12}{'us':>10}{'of bare JSON':>14}"
    for rows, columns in SHAPES:
        print(f"formats {rows}x{columns} ...", end="\r", file=sys.stderr)
        sent = in_every_format(numbers(rows, columns))
        app = _secured(folder, columns)
        times = measure_each([(bare(), sent[0], 200), *((app, each, 200) for each in sent)])
        yield f"{f'{rows}x{columns}':>10}  {'bare app, JSON':<28}{len(sent[0].data):>12,}{times[0]:>10,.0f}{1:>14.2f}"
        for each, microseconds in zip(sent, times[1:], strict=True):
            ratio = microseconds / times[0]
            yield f"{'':>10}  {each.name:<28}{len(each.data):>12,}{microseconds:>10,.0f}{ratio:>14.3f}"


def refusals(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table of refusals: each as a ratio to an accepted body of that size."""
    rows, columns = SHAPES[-1]
    print("refusals ...", end="\r", file=sys.stderr)
    values = numbers(rows, columns)
    app = _secured(folder, columns)
    sent = [in_every_format(values)[0], *refused(values, CAP)]
    answers = _statuses(app, sent)
    times = measure_each([(app, each, status) for each, status in zip(sent, answers, strict=True)])
    yield f"{'body':<34}{'bytes':>12}{'answer':>8}{'us':>10}{'of accepted':>14}"
    for each, status, microseconds in zip(sent, answers, times, strict=True):
        name = "accepted" if each is sent[0] else each.name
        yield f"{name:<34}{len(each.data):>12,}{status:>8}{microseconds:>10,.0f}{microseconds / times[0]:>14.2f}"


def _statuses(app: Contender, sent: Sequence[Sent]) -> list[int]:
    client = app.app.test_client()
    found = [
        client.post(
            "/predict",
            "https://localhost",
            data=each.data,
            content_type=each.media_type,
            headers=app.headers | dict(each.headers),
        ).status_code
        for each in sent
    ]
    accepted, *others = found
    if accepted != 200 or not all(400 <= status < 500 for status in others):  # noqa: PLR2004  classes of statuses
        raise RuntimeError(f"the answers are not those that this table is about: {found}")
    return found


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
