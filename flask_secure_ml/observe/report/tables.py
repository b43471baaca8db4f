"""The tables of a report."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from markupsafe import Markup

from ..audit.records import text
from .bounded import OTHER, Newest, Top, greatest_first
from .charts import NOTHING, count, microseconds, share_bar
from .figures import (
    ANOMALIES,
    BLOCKS,
    CREDENTIALS,
    OTHERS,
    OUTAGES,
    SETTINGS,
    Caller,
    Event,
    Figures,
    Tally,
    Worker,
)
from .timeline import written

RANKED, LISTED = 10, 25
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_DAY = 86_400
_MARKS, _ALWAYS = 2, 3
_NUMBER, _LONG, _INSTANT = "number", "long", "instant"

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Heading:
    """The heading of a column and the CSS class of its cells."""

    name: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table, or a message if it has no rows.

    :param events: each row has a description, so rows become blocks on narrow screens.
    :param wide: it may be wider than the screen and scrolls on its own.
    """

    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Any]]
    empty: str | Markup = ""
    note: str = ""
    events: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Expiring:
    """A credential that expires soon.

    :param expires: seconds since the epoch.
    :param last_used: seconds since the epoch; None if it was never used.
    """

    id: str
    client: str
    expires: int
    last_used: int | None


def shown(value: str) -> str:
    """Return a string in which each character is displayed in its own position.

    Non-printable characters, such as bidirectional controls, are escaped. Two combining marks per letter are kept;
    others become a replacement character.
    """
    found, marks = [], 0
    for each in text(value):
        marks = marks + 1 if unicodedata.category(each) in {"Mn", "Me"} else 0
        if marks <= _MARKS:
            found.append(each)
        elif marks == _MARKS + 1:
            found.append("\N{REPLACEMENT CHARACTER}")
    return "".join(found)


def name(value: str) -> Markup:
    """Return a name that may break anywhere, with isolated text direction."""
    return Markup('<bdi class="name">{}</bdi>').format(shown(value))


def instant(time: str) -> Markup:
    """Return a formatted timestamp of a record."""
    return Markup('<time datetime="{}">{}</time>').format(time, time[:19].replace("T", " "))


def percent(part: int, whole: int) -> str:
    """Return a formatted percentage; a small positive share is not rounded to 0 %."""
    share = 100 * part / whole if whole else 0.0
    least, most = 0.1, 99.9
    if 0 < share < least:
        return "< 0.1 %"
    return "> 99.9 %" if most < share and part < whole else f"{share:.1f} %"


def codes(figures: Figures) -> Table:
    """Return error responses by code."""
    whole = sum(figures.codes.values())
    ordered = sorted(figures.codes.items(), key=lambda each: (-each[1], each[0]))
    rows = [
        (
            name(code) + share_bar(number / whole, 1),
            str(status or "none"),
            count(number),
            percent(number, figures.requests),
        )
        for (code, status), number in ordered[:LISTED]
    ]
    headings = _columns("Code", "Status", "Requests", "Of all")
    note = f"{len(ordered) - LISTED} more codes are omitted." if len(ordered) > LISTED else ""
    return Table("Rejections and failures by code", headings, rows, note=note)


def endpoints(figures: Figures) -> Table:
    """Return requests, errors and latency by endpoint."""
    return _tallies("Endpoints", "Endpoint", figures.endpoints, empty="There was no request.")


def models(figures: Figures) -> Table:
    """Return predictions by the version of the model."""
    return _tallies("Model versions", "Model", figures.models, rows=True)


def plans(figures: Figures) -> Table:
    """Return requests over a limit by plan."""
    rows = [
        (
            name(plan) + share_bar(tally.limited / tally.requests, 1),
            count(tally.requests),
            count(tally.limited),
            percent(tally.limited, tally.requests),
        )
        for plan, tally in _greatest(figures.plans)
    ]
    headings = _columns("Plan", "Requests", "Limited", "Share")
    return Table("Requests over a limit, by plan", headings, rows, "No caller had a plan.")


def limits(figures: Figures) -> Table:
    """Return the callers that were over a limit most often."""
    rows = [
        (caller(who), name(limit), _between(figures.by_limit, (who, limit)))
        for who, limit in figures.by_limit.greatest(RANKED)
    ]
    headings = [Heading("Client", _LONG), Heading("Limit", _LONG), Heading("Rejections", _NUMBER)]
    return Table("Most limited clients", headings, rows, "No request was over a limit.", _rest(figures.by_limit))


def ranks(figures: Figures) -> dict[str, Table]:
    """Return the clients with the most requests, rejections and rows."""
    rejected = figures.outcomes["rejected"]
    return {
        "by_requests": _rank("Most requests", "Requests", figures.by_requests, figures.requests, 0),
        "by_rejections": _rank("Most rejections", "Rejections", figures.by_rejections, rejected, 1),
        "by_rows": _rank("Most rows", "Rows", figures.by_rows, figures.rows, 3),
    }


def events(figures: Figures) -> list[Table]:
    """Return the newest events of each kind."""
    kinds = (
        (ANOMALIES, "Anomalies", "Signal", "No anomaly was recorded."),
        (BLOCKS, "Blocks", "", "No caller was blocked."),
        (OUTAGES, "Outages", "", "No outage was recorded."),
        (CREDENTIALS, "Changes of credentials", "Action", "No credential was changed."),
        (SETTINGS, "Changes of the configuration", "", "No setting was changed."),
        (OTHERS, "Other events", "Action", "There are no other events."),
    )
    found = [_newest(caption, action, figures.listed[lane], empty) for lane, caption, action, empty in kinds]
    # An empty list is only shown for the kinds that readers look for.
    return [each for number, each in enumerate(found) if number < _ALWAYS or each.rows]


def workers(figures: Figures) -> Table:
    """Return the processes that wrote the log, newest first."""
    rows = [_worker(each) for each in figures.workers]
    headings = [
        *(
            Heading("Started", _INSTANT),
            Heading("Stopped", _INSTANT),
            Heading("Process", _NUMBER),
            Heading("Version", _LONG),
        ),
        *(Heading("Records", _NUMBER), Heading("Stream", _LONG)),
    ]
    left = figures.workers.count - len(rows)
    note = f"{count(left)} older workers are omitted. " if left else ""
    note += (
        "A worker without a stop record is running or was killed, or its last file is missing."
        if figures.running
        else ""
    )
    return Table("Workers", headings, rows, "No worker wrote a record.", note, wide=True)


def credentials(found: Sequence[Expiring] | None, days: int, now: int) -> Table:
    """Return the credentials that expire soon."""
    rows = [
        (
            name(each.client),
            name(each.id),
            written(each.expires)[:10],
            count((each.expires - now) // _DAY),
            "never" if each.last_used is None else written(each.last_used)[:10],
        )
        for each in sorted(found or (), key=lambda each: (each.expires, each.id))
    ]
    headings = [
        *(
            Heading("Client", _LONG),
            Heading("API key", _LONG),
            Heading("Expires", _INSTANT),
            Heading("Days left", _NUMBER),
        ),
        Heading("Last used", _INSTANT),
    ]
    empty = _NOT_READ if found is None else f"No API key expires within {days} days."
    return Table(f"API keys that expire within {days} days" if days else "API keys", headings, rows, empty, wide=True)


_NOT_READ = Markup(
    "Not read, because this needs the app. <code>--expiring-days 30</code> loads the app and lists its API keys."
)


def caller(who: Caller) -> Markup:
    """Return a caller, with its kind unless it is a client."""
    kind = "" if who.kind == "client" else Markup('<span class="kind">{}</span>').format(who.kind)
    return name(who.name) + kind


def _columns(first: str, *numbers: str) -> list[Heading]:
    return [Heading(first, _LONG), *(Heading(each, _NUMBER) for each in numbers)]


def _greatest(tallies: Mapping[str, Tally]) -> Iterable[tuple[str, Tally]]:
    ordered = greatest_first((each, tally.requests) for each, tally in tallies.items())
    return ((each, tallies[each]) for each, _ in ordered[:LISTED])


def _tallies(caption: str, first: str, tallies: Mapping[str, Tally], *, empty: str = "", rows: bool = False) -> Table:
    found = [
        (
            name(each),
            count(tally.requests),
            *((count(tally.rows),) if rows else ()),
            count(tally.rejected),
            count(tally.failed),
            *(_time(tally.latency.at(share)) for _, share in QUANTILES),
        )
        for each, tally in _greatest(tallies)
    ]
    columns = ["Requests", *(["Rows"] if rows else []), "Rejected", "Failed", *(each for each, _ in QUANTILES)]
    headings = _columns(first, *columns)
    left = len(tallies) - len(found)
    note = f"{left} more are omitted. " if left else ""
    if OTHER in tallies:
        note += f'"{OTHER}" contains all after the first 64.'
    return Table(caption, headings, found, empty, note, wide=True)


def _time(value: float | None) -> str:
    return NOTHING if value is None else microseconds(value)


def _rank(caption: str, heading: str, top: Top[Caller], whole: int, style: int) -> Table:
    rows = [
        (
            caller(who) + share_bar(top.bounds(who)[0] / whole, style),
            _between(top, who),
            percent(top.bounds(who)[0], whole),
        )
        for who in top.greatest(RANKED)
    ]
    headings = _columns("Client", heading, "Share")
    return Table(caption, headings, rows, f"There are no {heading.lower()}.", _rest(top))


def _between(top: Top[Key], key: Key) -> str:
    low, high = top.bounds(key)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def _rest(top: Top[Any]) -> str:
    if not top.exact:
        return f"There are too many to count individually; each omitted one has at most {count(top.left_out)}."
    left = len(top) - RANKED
    return f"{count(left)} with fewer are omitted." if left > 0 else ""


def _newest(caption: str, action: str, found: Newest, empty: str) -> Table:
    rows = [_event(each, with_action=bool(action)) for each in found]
    headings = [Heading("Time", _INSTANT), *([Heading(action, _LONG)] if action else []), Heading("What happened")]
    left = found.count - len(rows)
    whole = f"{caption} ({count(found.count)})" if rows else caption
    return Table(whole, headings, rows, empty, f"The newest {len(rows)} are listed." if left else "", events=True)


def _event(event: Event, *, with_action: bool) -> list[Markup]:
    what = name(event.what)
    if event.subject:
        what = Markup("{}{}").format(
            Markup('<bdi class="name"><strong>{}</strong></bdi>').format(shown(event.subject)), what
        )
    return [instant(event.time), *([name(event.action)] if with_action else []), what]


def _worker(worker: Worker) -> tuple[Any, ...]:
    started = instant(worker.started) if worker.started else "before"
    stopped = instant(worker.stopped) if worker.stopped else "no stop record"
    return started, stopped, worker.pid, name(worker.version), count(worker.records), name(worker.stream[:8])
