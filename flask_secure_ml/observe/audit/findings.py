"""What a verification found, and how far it read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

TAMPERED, NOTICE = "tampered", "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    :param kind: a word for programs, such as ``changed`` or ``missing_stream``.
    :param stream: the id of the stream; empty for the index and the checkpoints.
    :param seq: the first record that it is about; for the index, the first leaf.
    """

    level: str
    kind: str
    message: str
    stream: str = ""
    seq: int | None = None

    def __str__(self) -> str:
        where = "" if not self.stream else f"stream {self.stream}"
        where += (
            "" if self.seq is None else f"{' ' if where else 'index '}{'record' if self.stream else 'leaf'} {self.seq}"
        )
        return f"{self.level}: {self.kind}: {where}{': ' if where else ''}{self.message}"


@dataclass
class Report:
    """The findings of one verification."""

    findings: list[Finding] = field(default_factory=list)
    records: int = 0
    streams: int = 0
    leaves: int = 0
    covered: int | None = None
    """How many leaves the newest valid outside checkpoint covers; None without one."""

    def tampered(self, kind: str, message: str, stream: str = "", seq: int | None = None) -> None:
        """Add a finding that makes the verification fail."""
        self.findings.append(Finding(TAMPERED, kind, message, stream, seq))

    def notice(self, kind: str, message: str, stream: str = "", seq: int | None = None) -> None:
        """Add a finding that is normal after a crash or a deletion by age."""
        self.findings.append(Finding(NOTICE, kind, message, stream, seq))

    @property
    def ok(self) -> bool:
        """Whether nothing was changed."""
        return not any(self.faults())

    def faults(self) -> Iterator[Finding]:
        """Yield the findings that make the verification fail."""
        return (each for each in self.findings if each.level == TAMPERED)
