"""``flask secure-ml anomalies``: what is unusual in the request log."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import click

from ..observe.anomalies import SIGNALS, Anomaly, Detector, Observation, observation_in
from ..observe.request_log.reading import all_records_of, opened
from .context import json_option
from .why import printable


@click.group("anomalies")
def anomalies() -> None:
    """Find unusual traffic."""


@anomalies.command("scan")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def scan(files: tuple[Path, ...], as_json: bool) -> None:
    """Print what is unusual in the request logs FILES, gzip included.

    Each file is in the order of time; those of several workers or of a rotation are merged.
    """
    detector = Detector(SIGNALS)
    requests = 0
    found: list[Anomaly] = []
    with ExitStack() as stack:
        try:
            logs = [stack.enter_context(opened(file)) for file in files]
            for seen in heapq.merge(*map(_observations, logs), key=attrgetter("time")):
                requests += 1
                found += detector.observe(seen)
        except OSError as error:
            raise click.ClickException(f"a file cannot be read: {error}") from None
    if not requests:
        raise click.ClickException("there is no line of a request in these files")
    if as_json:
        click.echo(json.dumps({"requests": requests, "anomalies": [_members(each) for each in found]}))
        return
    for each in found:
        click.echo(f"{_time(each)}  {each.signal:<12}{printable(each.subject)}: {each.explanation}")
    click.echo(f"{requests} requests, {len(found)} anomalies")


def _observations(log: IO[bytes]) -> Iterator[Observation]:
    return (seen for record in all_records_of(log) if (seen := observation_in(record)) is not None)


def _members(anomaly: Anomaly) -> dict[str, Any]:
    return {
        "time": _time(anomaly),
        "signal": anomaly.signal,
        "principal" if anomaly.is_principal else "network": anomaly.subject,
        "explanation": anomaly.explanation,
    }


def _time(anomaly: Anomaly) -> str:
    return datetime.fromtimestamp(anomaly.time, UTC).isoformat(timespec="seconds")
