"""``flask secure-ml anomalies``: unusual traffic in the request log or in real time, and penalties."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import click
from flask.cli import AppGroup

from ..observe.anomalies import (
    EPISODE,
    SIGNALS,
    Anomalies,
    Anomaly,
    Detector,
    Episodes,
    Observation,
    Penalty,
    Reading,
    load,
    observation_in,
)
from ..observe.request_log.entry import clean
from ..observe.request_log.reading import opened, records_with
from .context import audit_event, command_state, in_ascii, json_option, missing, mistakes_as_messages, print_table

anomalies: AppGroup = AppGroup("anomalies", help="Find unusual traffic, and end penalties.")

HIGH = 0.5
"""Minimum score of the subjects that are listed; 1 is unusual."""

HEADINGS = ("Subject", "Kind", "Signal", "Score", "Value", "Last anomaly", "Penalty")
NOT_SET = "SECURE_ML_ANOMALIES is not set, so anomaly detection is off"
IN_MEMORY = (
    "scores and penalties are in the memory of each worker, which commands cannot read; set SECURE_ML_STORE_URI to "
    "sqlite:/path or redis://host, or restart the workers to end all penalties"
)


@anomalies.command("scan")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def scan(files: tuple[Path, ...], as_json: bool) -> None:
    """Print the unusual traffic in the request logs FILES, which may be gzipped.

    Each file must be in chronological order; files of several workers or of a rotation are merged.
    """
    detector, episodes = Detector(SIGNALS), Episodes()
    requests = 0
    found: list[Anomaly] = []
    with ExitStack() as stack:
        try:
            logs = [stack.enter_context(opened(file)) for file in files]
            for seen in heapq.merge(*map(_observations, logs), key=attrgetter("time")):
                requests += 1
                found += [each for each in detector.observe(seen) if episodes.begins(each)]
        except OSError as error:
            raise click.ClickException(f"a file cannot be read: {error}") from None
    if not requests:
        raise click.ClickException("these files contain no requests")
    if as_json:
        click.echo(json.dumps({"requests": requests, "anomalies": [_members(each) for each in found]}))
        return
    for each in found:
        click.echo(f"{_time(each)}  {each.signal:<12}{in_ascii(each.subject)}: {each.explanation}")
    click.echo(f"requests: {requests}, anomalies: {len(found)}")


class _Line(NamedTuple):
    """A subject, its highest score, its last anomaly, and its penalty.

    :param fired: the signal of the last anomaly, and its time; -inf without one.
    """

    kind: str
    subject: str
    signal: str
    reading: Reading
    penalty: Penalty | None
    fired: tuple[float, str] = (-math.inf, "")

    def members(self, now: float) -> dict[str, Any]:
        about = {"subject": self.subject, "kind": self.kind, "signal": self.signal}
        time, signal = self.fired
        last = {"signal": signal, "time": _instant(time)} if math.isfinite(time) else None
        return {**about, **self.reading._asdict(), "last_anomaly": last, "penalty": _penalty(self.penalty, now)}

    def is_reported(self, now: float) -> bool:
        """Return True if the caller is rejected, near a threshold, or had an anomaly within the last hour."""
        return self.penalty is not None or self.is_recent(now) or self.reading.score >= HIGH

    def is_recent(self, now: float) -> bool:
        """Return True if its last anomaly is at most an hour old."""
        return 0 <= now - self.fired[0] < EPISODE

    def rank(self, now: float) -> tuple[bool, bool, float, str]:
        """Return the sort key: rejected callers first, then those with a recent anomaly, then by score."""
        return self.penalty is None, not self.is_recent(now), -self.reading.score, self.subject

    def row(self, now: float) -> tuple[str, ...]:
        rejected = "-" if self.penalty is None else f"{self.penalty.action}, {math.ceil(self.penalty.left(now))} s"
        score, value = f"{self.reading.score:.2f}", self.reading.value or "-"
        last = f"{self.fired[1]}, {_instant(self.fired[0])}" if math.isfinite(self.fired[0]) else "-"
        return in_ascii(self.subject), self.kind, self.signal, score, value, last, rejected


@anomalies.command("list")
@click.option("--all", "everyone", is_flag=True, help="List all subjects, not only unusual and rejected ones.")
@json_option
def list_anomalies(everyone: bool, as_json: bool) -> None:
    """List the current scores and penalties, highest first.

    A score of 1 is unusual. After an anomaly the score begins again, so callers with an anomaly within the last hour
    are listed too. Scores may be a few seconds old.
    """
    parts, now = _shared(), command_state().clock.now()
    with mistakes_as_messages():
        detector = _loaded(parts)
        penalties = {(kind, name): penalty for kind, name, penalty in parts.penalties.list()}
    lines: list[_Line] = []
    for kind, name, state in detector.subjects():
        readings = detector.readings(kind, name, now) or {}
        signal, reading = max(readings.items(), key=lambda item: item[1].score, default=("", Reading(0.0, "", "")))
        fired = max(zip(state.fired, readings, strict=False), default=(-math.inf, ""))
        line = _Line(kind, name, signal, reading, penalties.pop((kind, name), None), fired)
        if everyone or line.is_reported(now):
            lines.append(line)
    nothing = Reading(0.0, "", "")
    lines += [_Line(*subject, penalty.signal, nothing, penalty) for subject, penalty in penalties.items()]
    lines.sort(key=lambda line: line.rank(now))
    if as_json:
        click.echo(json.dumps([line.members(now) for line in lines]))
    elif lines:
        print_table([HEADINGS, *(line.row(now) for line in lines)])
    else:
        click.echo("No unusual traffic, and no penalties.")


@anomalies.command("explain")
@click.argument("subject", metavar="PRINCIPAL")
@json_option
def explain(subject: str, as_json: bool) -> None:
    """Print the state of each signal for PRINCIPAL.

    PRINCIPAL is the member "principal" of the request log. It may also be a network, or an identity that rejected
    credentials claim, as it appears in events.
    """
    parts, now = _shared(), command_state().clock.now()
    with mistakes_as_messages():
        detector = _loaded(parts)
        found = [
            (kind, name, parts.penalties.get(kind, name)) for kind, name, _ in detector.subjects() if name == subject
        ]
    if not found:
        raise click.ClickException(f"unknown subject {subject!r}; see: flask secure-ml anomalies list --all")
    documents = []
    for kind, name, penalty in found:
        readings = detector.readings(kind, name, now) or {}
        fired = dict(zip(readings, detector.subject(kind, name).fired, strict=True))
        signals = {
            signal: {**each._asdict(), "action": parts.actions[signal], "last": _instant(fired[signal])}
            for signal, each in readings.items()
        }
        documents.append({"subject": name, "kind": kind, "penalty": _penalty(penalty, now), "signals": signals})
        if not as_json:
            click.echo(f"{kind} {in_ascii(name)}: {_in_words(penalty, now)}")
            _print_signals(signals)
    if as_json:
        click.echo(json.dumps(documents))


def _print_signals(signals: Mapping[str, Mapping[str, Any]]) -> None:
    for signal, each in signals.items():
        last = f"last unusual {each['last']}" if each["last"] else "never unusual"
        click.echo(f"  {signal:<12}{each['score']:>5.2f}  {each['value']}; {each['history']}")
        click.echo(f"  {'':<12}{'':>5}  action {each['action']}; {last}")


@anomalies.command("clear")
@click.argument("subject", metavar="PRINCIPAL")
@json_option
def clear(subject: str, as_json: bool) -> None:
    """End the penalty of PRINCIPAL, or of a network; all workers apply this within a second.

    If the same traffic continues, it does not cause another penalty for an hour.
    """
    parts = _shared()
    with mistakes_as_messages("; the penalty may or may not have ended"):
        cleared = [kind for kind, name, _ in list(parts.penalties.list()) if name == subject]
        for kind in cleared:
            parts.penalties.clear(kind, subject)
    for kind in cleared:
        audit_event("anomaly_cleared", subject=clean(subject), kind=kind)
    if as_json:
        click.echo(json.dumps({"subject": subject, "cleared": bool(cleared)}))
    else:
        click.echo(f"cleared: {in_ascii(subject)}" if cleared else f"{in_ascii(subject)} has no penalty")


def _shared() -> Anomalies:
    parts = command_state().anomalies
    if parts is None:
        raise missing("SECURE_ML_ANOMALIES", NOT_SET)
    if parts.store is None:
        raise missing("SECURE_ML_STORE_URI", IN_MEMORY)
    with mistakes_as_messages():
        parts.penalties.refresh()
    return parts


def _loaded(parts: Anomalies) -> Detector:
    if parts.store is None:
        raise missing("SECURE_ML_STORE_URI", IN_MEMORY)
    return load(parts.store, parts.detector).detector


def _penalty(penalty: Penalty | None, now: float) -> dict[str, Any] | None:
    if penalty is None or not penalty.left(now):
        return None
    return {
        "action": penalty.action,
        "signal": penalty.signal,
        "since": _instant(penalty.since),
        "seconds_left": math.ceil(penalty.left(now)),
        "strikes": penalty.strikes,
    }


def _in_words(penalty: Penalty | None, now: float) -> str:
    if penalty is None:
        return "not rejected"
    if not penalty.left(now):
        ended = "cleared by an operator" if penalty.cleared else "expired"
        return f"not rejected; {penalty.action} for {penalty.signal} within the last day, {ended}"
    since, left = _instant(penalty.since), math.ceil(penalty.left(now))
    return f"rejected since {since} for {penalty.signal} ({penalty.action}), {left} s left"


def _instant(seconds: float) -> str | None:
    if not math.isfinite(seconds):
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _observations(log: IO[bytes]) -> Iterator[Observation]:
    return (seen for record in records_with(log) if (seen := observation_in(record)) is not None)


def _members(anomaly: Anomaly) -> dict[str, Any]:
    return {
        "time": _time(anomaly),
        "signal": anomaly.signal,
        anomaly.kind: anomaly.subject,
        "explanation": anomaly.explanation,
    }


def _time(anomaly: Anomaly) -> str:
    return datetime.fromtimestamp(anomaly.time, UTC).isoformat(timespec="seconds")
