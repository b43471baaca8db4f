"""The report of findings as text and as JSON, and the outcome of the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .finding import Finding, Severity

VERSION = 1
"""Version of the JSON document."""

MOST_PLACES = 10
"""Maximum number of occurrences of one finding in the text report."""


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of findings by severity, and the number of ignored ones."""
    found = Counter(str(each.severity) for each in findings if not each.ignored)
    return {
        "errors": found[Severity.ERROR],
        "warnings": found[Severity.WARNING],
        "notes": found[Severity.NOTE],
        "ignored": sum(bool(each.ignored) for each in findings),
    }


def fails(findings: Sequence[Finding], *, strict: bool) -> bool:
    """Return True if the command fails: on an error, or with ``strict`` on a warning."""
    found = counts(findings)
    return bool(found["errors"] or (strict and found["warnings"]))


def document(findings: Sequence[Finding], *, strict: bool) -> dict[str, Any]:
    """Return the JSON object of a report."""
    return {
        "version": VERSION,
        "ok": not fails(findings, strict=strict),
        "counts": counts(findings),
        "findings": [each.members() for each in findings],
    }


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of the text report: the worst findings first, then ignored ones, then the counts."""
    order = list(Severity)
    shown = sorted(
        (each for each in findings if not each.ignored), key=lambda each: (order.index(each.severity), each.check.id)
    )
    for check, group in groupby(shown, key=lambda each: each.check):
        places = list(group)
        yield f"{check.severity} {check.id}: {check.title}"
        for each in places[:MOST_PLACES]:
            yield f"  {each.what} ({each.where})"
        if len(places) > MOST_PLACES:
            yield f"  ... and {len(places) - MOST_PLACES} more"
        yield f"  why: {check.why}"
        for fix in dict.fromkeys(each.fix for each in places[:MOST_PLACES]):
            yield f"  fix: {fix}"
    for each in findings:
        if each.ignored:
            yield f"ignored {each.check.id}: {each.what} ({each.where}), because: {each.ignored}"
    found = {name: number for name, number in counts(findings).items() if number}
    yield ", ".join(f"{name}: {number}" for name, number in found.items()) or "ok: no findings"
