"""Checks with a stable id, and the findings that they report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple


class Severity(StrEnum):
    """Severity of a finding: an error always fails the command, a warning with ``--strict``, a note never."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Where:
    """The subject of a finding.

    :param kind: ``setting``, ``policy``, ``route``, ``plan``, ``key``, ``issuer``, ``file``, ``target``, ``url``
        or ``app``.
    :param name: its name, such as the key of a setting.
    :param file: the source file, if there is one.
    :param line: the line in it, from 1; 0 for none.
    """

    kind: str
    name: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Found(NamedTuple):
    """One occurrence that a check yields.

    :param where: the subject.
    :param what: the finding, in one sentence without secrets.
    :param fix: the line that fixes this occurrence, if it differs from the fix of the check.
    """

    where: Where
    what: str
    fix: str = ""


Find = Callable[[Any], Iterable[Found]]


def nothing(_subject: Any) -> Iterable[Found]:
    """Return no findings, for a check that runs elsewhere."""
    return ()


@dataclass(frozen=True)
class Check:
    """One check: its description, and the function that finds occurrences.

    :param id: ``SML`` and three digits; it never changes its meaning.
    :param severity: of all its findings.
    :param title: the problem, in a few words.
    :param why: the consequence, in one sentence.
    :param fix: the line of configuration or code that fixes it.
    :param find: yields the occurrences in a setup.
    """

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    find: Find = nothing

    def finding(self, found: Found) -> Finding:
        """Return the finding for one occurrence."""
        return Finding(self, found.where, found.what, found.fix or self.fix)


@dataclass(frozen=True)
class Finding:
    """One occurrence of the problem that a check describes.

    :param ignored: the reason why it is ignored; empty if it is not.
    """

    check: Check
    where: Where
    what: str
    fix: str
    ignored: str = ""

    @property
    def severity(self) -> Severity:
        """Severity of the check."""
        return self.check.severity

    def accepted(self, reason: str) -> Finding:
        """Return a copy that is ignored for this reason."""
        return replace(self, ignored=reason)

    def members(self) -> dict[str, Any]:
        """Return the members of its JSON object."""
        where: dict[str, Any] = {"kind": self.where.kind, "name": self.where.name}
        if self.where.file:
            where |= {"file": self.where.file, "line": self.where.line}
        found = {
            "id": self.check.id,
            "severity": str(self.severity),
            "title": self.check.title,
            "what": self.what,
            "why": self.check.why,
            "fix": self.fix,
            "where": where,
        }
        return found | ({"ignored": self.ignored} if self.ignored else {})


def setting(name: str) -> Where:
    """Return the location of a setting of this package, given its name in lower case."""
    return Where("setting", f"SECURE_ML_{name.upper()}")


def key(name: str) -> Where:
    """Return the location of any other configuration key."""
    return Where("setting", name)
