"""Audit logs for tests: two writing processes, checkpoints in a separate place, and a verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask_secure_ml.config.audit import SinkAddress
from flask_secure_ml.observe.audit.counts import Counts
from flask_secure_ml.observe.audit.findings import Report
from flask_secure_ml.observe.audit.keys import load_app_keys, load_verification_key, make_keys
from flask_secure_ml.observe.audit.stream import STREAMS, StreamOptions
from flask_secure_ml.observe.audit.verify import verify_log
from flask_secure_ml.observe.audit.writer import LogOptions, Writer
from flask_secure_ml.testing import FakeClock

EVERY = 60


class IdleWriter(Writer):
    """A process that creates checkpoints only when a test requests them."""

    def _run(self) -> None:
        pass


class Site:
    """A log in a directory, and the data that is kept elsewhere."""

    def __init__(self, base: Path, clock: FakeClock, **options: Any) -> None:
        self.folder = base / "log"
        self.key_file = base / "verification.key"
        self.outside = base / "outside"
        self.clock = clock
        make_keys(self.folder, self.key_file, "tests/audit")
        (self.folder / STREAMS).mkdir()
        self.keys = load_app_keys(self.folder)
        self.options = replace(
            LogOptions(StreamOptions("off"), EVERY, 10**9, 0, (SinkAddress("file", str(self.outside)),), {}, {}),
            **options,
        )

    def writer(self, folder: Path | None = None, counts: Counts | None = None) -> Writer:
        return IdleWriter(folder or self.folder, self.keys, self.clock, self.options, counts)

    def files(self, writer: Writer) -> list[Path]:
        stream = stream_of(writer)
        return sorted((self.folder / STREAMS).glob(f"{stream}-*.jsonl"))

    def verify(self, *, outside: bool = True, **options: Any) -> Report:
        content = self.outside.read_text() if outside and self.outside.exists() else None
        key = load_verification_key(self.key_file)
        return verify_log(self.folder, key, outside=content, **{"now": self.clock.now(), **options})


def stream_of(writer: Writer) -> str:
    assert writer._stream is not None
    return writer._stream.id


def append(writers: Sequence[Writer], count: int, clock: FakeClock) -> None:
    """Let each process write ``count`` records, a tenth of a second apart."""
    for number in range(count):
        for writer in writers:
            writer.append({"action": "request", "request_id": f"r{number}", "status": 200})
        clock.advance(0.1)


def kinds(report: Report) -> list[str]:
    return [each.kind for each in report.faults()]
