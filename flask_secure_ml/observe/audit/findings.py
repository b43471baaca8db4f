"""The findings and coverage of a verification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .records import text

TAMPERED, NOTICE = "tampered", "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    :param kind: a machine-readable name, such as ``changed`` or ``missing_stream``.
    :param stream: the id of the stream; empty for the index and the checkpoints.
    :param seq: the number of the first affected record; for the index, of the first leaf.
    """

    level: str
    kind: str
    message: str
    stream: str = ""
    seq: int | None = None

    def __str__(self) -> str:
        # The names of streams come from the files, which may be forged.
        where = "" if not self.stream else f"stream {text(self.stream)}"
        where += (
            "" if self.seq is None else f"{' ' if where else 'index '}{'record' if self.stream else 'leaf'} {self.seq}"
        )
        return f"{self.level}: {self.kind}: {where}{': ' if where else ''}{text(self.message)}"


@dataclass
class Report:
    """The findings of one verification."""

    findings: list[Finding] = field(default_factory=list)
    records: int = 0
    streams: int = 0
    leaves: int = 0
    covered: int | None = None
    """Number of leaves that the newest valid external checkpoint covers; None without one."""

    def tampered(self, kind: str, message: str, stream: str = "", seq: int | None = None) -> None:
        """Add a finding that makes the verification fail."""
        self.findings.append(Finding(TAMPERED, kind, message, stream, seq))

    def notice(self, kind: str, message: str, stream: str = "", seq: int | None = None) -> None:
        """Add a finding that is normal after a crash or a deletion by age."""
        self.findings.append(Finding(NOTICE, kind, message, stream, seq))

    @property
    def ok(self) -> bool:
        """Return True if no finding makes the verification fail."""
        return not any(self.faults())

    def faults(self) -> Iterator[Finding]:
        """Yield the findings that make the verification fail."""
        return (each for each in self.findings if each.level == TAMPERED)
