"""The HTML page of a report, with an inline style sheet, no scripts and no external resources.

Its content security policy allows only this style sheet, by digest, so that markup in a record would have no effect
even if it were not escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..audit.findings import Report
from . import tables
from .bounded import ACCURACY
from .charts import NOTHING, count, microseconds
from .drawings import drawings
from .figures import ANOMALIES, BLOCKS, OUTAGES, Figures
from .tables import Expiring, percent, shown
from .timeline import duration, written

FINDINGS = 20
_UNVERIFIED = Markup(
    "The numbers are correct only if the log was not modified. Use <code>--key</code> to verify it first."
)
SECTIONS = (
    ("summary", "Summary"),
    ("requests", "Requests"),
    ("latency", "Latency"),
    ("clients", "Clients"),
    ("limits", "Limits"),
    ("models", "Models"),
    ("events", "Events"),
    ("credentials", "Credentials"),
)


@dataclass(frozen=True)
class Banner:
    """A message above the numbers."""

    kind: str
    title: str
    lines: Sequence[str]
    findings: Sequence[str] = ()


@dataclass(frozen=True)
class Tile:
    """One number of the summary."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """The contents of the page in addition to the figures.

    :param title: empty for the default.
    :param now: the time of the report, in seconds since the epoch.
    :param verification: the result of the verification, or None.
    :param expiring: the credentials that expire soon; None if the app was not loaded.
    :param days: the number of days that count as soon.
    :param unverified: the difference between the number of counted and of verified records.
    """

    now: int
    title: str = ""
    verification: Report | None = None
    expiring: Sequence[Expiring] | None = None
    days: int = 0
    unverified: int = 0


def render(figures: Figures, facts: Facts) -> str:
    """Render the page."""
    templates = files(__package__) / "templates"
    style = (templates / "report.css").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((templates / "report.html").read_text("utf-8"))
    return template.render(
        banners=banners(figures, facts.verification, facts.unverified),
        charts=drawings(figures),
        made=written(facts.now),
        origin=shown(figures.origin),
        period=_period(figures),
        policy=policy_of(style),
        remarks=_remarks(figures),
        sections=SECTIONS,
        style=Markup(style),  # noqa: S704  a file of this package
        tables=_tables(figures, facts),
        tiles=_tiles(figures),
        title=shown(facts.title) or "Audit report",
    )


def policy_of(style: str) -> str:
    """Return the content security policy that allows only a style sheet."""
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def banners(figures: Figures, report: Report | None, unverified: int = 0) -> list[Banner]:
    """Return the banners about verification and missing data."""
    return [_verified(report, unverified), *_missing(figures)]


def _verified(report: Report | None, unverified: int) -> Banner:
    if report is None:
        return Banner("", "The log was not verified", [_UNVERIFIED])
    read = f"{count(report.records)} records in {count(report.streams)} streams were verified."
    if report.covered is None:
        reach = (
            "No external checkpoint was given: truncation or replacement with the keys of the app cannot be detected."
        )
    else:
        reach = f"External checkpoints cover {count(report.covered)} leaves of the index; later records may be missing."
    notices = [shown(str(each)) for each in report.findings if each.level != "tampered"]
    if report.ok:
        title = "\u2713 Verified: the log is intact"
        if not unverified:
            return Banner("good", title, [read, reach], _first(notices))
        more = f"The numbers below contain {count(abs(unverified))} {'more' if unverified > 0 else 'fewer'} records"
        line = f"{more}: the log was written to after it was verified. Verify a copy or an inactive log."
        return Banner("", title, [read, line, reach], _first(notices))
    faults = [shown(str(each)) for each in report.faults()]
    told = f"{count(len(faults))} finding{'' if len(faults) == 1 else 's'}. Do not rely on the numbers below."
    return Banner("bad", "\u2717 The log was modified", [told, read], _first(faults + notices))


def _first(findings: Sequence[str]) -> list[str]:
    left = len(findings) - FINDINGS
    return [*findings[:FINDINGS], *([f"and {count(left)} more"] if left > 0 else [])]


def _missing(figures: Figures) -> list[Banner]:
    found = []
    if figures.skipped.lines:
        line = f"{count(figures.skipped.lines)} lines of the log are not valid records and are not counted."
        found.append(Banner("bad", "Lines are missing from these numbers", [line]))
    if figures.lost:
        line = f"{count(figures.lost)} records could not be written, so they are missing from the numbers below."
        found.append(Banner("bad", "Records are missing from the log", [line]))
    if figures.skipped.torn:
        line = f"Files with an incomplete last line, which is not counted: {count(figures.skipped.torn)}."
        cause = "A crash leaves such a line, and a process that is writing has it for a moment."
        found.append(Banner("", "The log ends with an incomplete record", [line, cause]))
    return found


def _period(figures: Figures) -> str:
    since, until = figures.filters.since, figures.filters.until
    if figures.records:
        return f"From {written(figures.timeline.start)} to {written(figures.timeline.end)}"
    asked = [f"{word} {when.replace('T', ' ')}" for word, when in (("from", since), ("until", until)) if when]
    return " ".join(["No records", *asked])


def _tiles(figures: Figures) -> list[Tile]:
    requests = figures.requests
    p95 = figures.latency.at(0.95)
    clients = len(figures.by_requests)
    known = "by client, principal or network"
    workers = f"{count(figures.running)} without a stop record"
    return [
        Tile(
            "Requests", count(requests), f"{count(figures.records)} record{'' if figures.records == 1 else 's'} in all"
        ),
        Tile(
            "Rejected",
            count(figures.outcomes["rejected"]),
            f"{percent(figures.outcomes['rejected'], requests)}, status 4xx",
        ),
        Tile(
            "Failed", count(figures.outcomes["failed"]), f"{percent(figures.outcomes['failed'], requests)}, status 5xx"
        ),
        Tile("p95 latency", NOTHING if p95 is None else microseconds(p95), "of accepted requests"),
        Tile("Rows", count(figures.rows), "of accepted requests"),
        Tile("Callers", f"{'' if figures.by_requests.exact else 'over '}{count(clients)}", known),
        Tile("Anomalies", count(figures.events[ANOMALIES]), _signals(figures)),
        Tile("Blocks", count(figures.events[BLOCKS]), "of networks, callers and keys"),
        Tile("Outages", count(figures.events[OUTAGES]), "and their ends"),
        Tile("Workers", count(figures.streams), workers),
    ]


def _signals(figures: Figures) -> str:
    ordered = sorted(figures.signals.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{shown(signal)[:24]} {count(number)}" for signal, number in ordered[:3]) or "none"


def _tables(figures: Figures, facts: Facts) -> dict[str, object]:
    return {
        "codes": tables.codes(figures),
        "endpoints": tables.endpoints(figures),
        **tables.ranks(figures),
        "limits": tables.limits(figures),
        "plans": tables.plans(figures),
        "models": tables.models(figures),
        "events": tables.events(figures),
        "workers": tables.workers(figures),
        "credentials": tables.credentials(facts.expiring, facts.days, facts.now),
    }


def _remarks(figures: Figures) -> list[str]:
    return [
        f"Each bar and point covers {duration(figures.timeline.width)}.",
        "A request is a record of a response, from any caller.",
        "Accepted means a status below 400, rejected means 4xx, and failed means 5xx or never sent.",
        f"Latency is the time until the response started. Percentiles are within {ACCURACY:.0%} of the exact value.",
        "All other numbers are exact, unless they are ranges.",
        "A caller is a client name, a principal without a client, or the network of an anonymous caller.",
        "Rows and latency are those of accepted requests.",
    ]
