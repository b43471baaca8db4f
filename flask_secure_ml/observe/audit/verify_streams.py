"""Verification of one stream: the code and order of its records, and its heads in the index."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .findings import Report
from .keys import VerificationKey, mac_of, next_key
from .records import ZERO, BrokenLineError, lines_of, parse, seconds_of, split_line
from .stream import header_of
from .verify_index import CLOCK_SLACK, Head, StreamHeads

Progress = Callable[[int], object]
"""Called with the number of additional bytes read."""

_LONGEST_NUMBER = 20


class _StopError(Exception):
    """The stream cannot be followed beyond a finding."""


class StreamVerifier:
    """Verifies the files of one stream; stops at the first invalid record.

    :param known: the heads of the stream in the index.
    :param retention: the number of seconds after which covered files may have been deleted; None for never.
    """

    def __init__(
        self,
        stream: str,
        known: StreamHeads,
        key: VerificationKey,
        report: Report,
        progress: Progress,
        retention: float | None,
    ) -> None:
        self._stream = stream
        self._known = known
        self._key = key
        self._report = report
        self._progress = progress
        self._retention = retention
        self._chain: bytes | None = None
        self._seq = 0
        self._mac = ZERO
        self._at: dict[int, list[Head]] = {}
        for head in known.heads:
            self._at.setdefault(head.seq, []).append(head)
        self._since = 0.0
        self._ended = False
        self.first_time: float | None = None

    def verify(self, segments: Sequence[tuple[int, Path]]) -> None:
        """Read the files in order, and add findings to the report."""
        try:
            self._start(segments)
            for place, (segment, path) in enumerate(segments):
                if place and segment != segments[place - 1][0] + 1:
                    raise self._bad("missing_segment", f"the file of segment {segment - 1} is missing")
                self._read(segment, path, last=place == len(segments) - 1)
            if self._seq <= self._known.end:
                raise self._bad("truncated", f"the index covers {self._known.end + 1} records")
        except _StopError:
            pass

    def _start(self, segments: Sequence[tuple[int, Path]]) -> None:
        gone = max(self._known.retired, key=lambda each: each.seq, default=None)
        if gone is not None:
            self._check_retired()
        if segments and segments[0][0] == 0:
            return
        if gone is None:
            kind = "missing_segment" if segments else "missing_stream"
            raise self._bad(kind, "the first file of the stream is missing" if segments else "the stream is missing")
        self._seq, self._mac = gone.seq + 1, gone.mac
        self._report.notice("retired", "older records were deleted because of their age", self._stream, self._seq)

    def _check_retired(self) -> None:
        for gone in self._known.retired:
            since = min((each.time for each in self._known.heads if each.seq >= gone.seq), default=None)
            if self._retention is None or since is None or gone.time - since < self._retention:
                self._seq = 0
                raise self._bad("deleted", f"the records up to {gone.seq} were deleted too early")

    def _read(self, segment: int, path: Path, *, last: bool) -> None:
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            raise self._bad("missing_segment", f"the file of segment {segment} is missing") from None
        with opened as file:
            for number, line in enumerate(lines_of(file, self._progress)):
                if not line.endswith(b"\n"):
                    self._torn(file.read(1) == b"" and last)
                    return
                self._record(line, segment if number == 0 else None)
            if os.fstat(file.fileno()).st_size == 0 and not last:
                raise self._bad("truncated", "a file of the stream is empty")

    def _torn(self, at_end: bool) -> None:
        if not at_end:
            raise self._bad("truncated", "an incomplete line is not the last one")
        self._report.notice("torn", "the last line is incomplete, as after a crash", self._stream, self._seq)

    def _record(self, line: bytes, segment: int | None) -> None:
        try:
            mac, record = split_line(line)
            members = parse(record)
            time = seconds_of(members.get("time"))
        except BrokenLineError as error:
            raise self._bad("changed", str(error)) from None
        if members.get("stream") != self._stream:
            raise self._bad("spliced", "the record belongs to another stream")
        if self._ended:
            raise self._bad("added", "the stream ends before it, according to the index")
        if segment is not None:
            self._begin(segment, members)
        if members.get("seq") != self._seq:
            number = str(members.get("seq"))[:_LONGEST_NUMBER]
            raise self._bad("order", f"it has the number {number}: records are missing, added or reordered")
        if self._chain is None or not hmac.compare_digest(mac_of(self._chain, record), mac):
            raise self._bad("changed", "its code is wrong")
        if members.get("prev") != self._mac:
            raise self._bad("order", "it does not follow the record before it")
        self._check_time(time)
        self._chain, self._mac = next_key(self._chain), mac
        self._check_heads(mac)
        self._seq += 1
        self._report.records += 1

    def _begin(self, segment: int, members: Mapping[str, Any]) -> None:
        header = header_of(self._stream, segment, self._seq)
        sealed, signature = str(members.get("sealed")), str(members.get("signature"))
        if members.get("segment") != segment or members.get("seq") != self._seq:
            raise self._bad("order", "the file starts with another record: records are missing, added or reordered")
        if not self._key.verifies(signature, header, sealed):
            raise self._bad("forged", "the app did not sign the first record of the file")
        key = self._key.unseal(sealed, header)
        if key is None or (self._chain is not None and not hmac.compare_digest(key, self._chain)):
            raise self._bad("forged", "its key is not sealed to the verification key, or does not match")
        self._chain = key

    def _check_time(self, time: float) -> None:
        if self.first_time is None:
            self.first_time = time
        if time < self._since - CLOCK_SLACK:
            raise self._bad(
                "clock", "it is older than an earlier entry of the index: backdated, or the clock was set back"
            )

    def _check_heads(self, mac: str) -> None:
        for head in self._at.get(self._seq, ()):
            if head.mac != mac:
                raise self._bad("changed", f"leaf {head.leaf} of the index has a different code for it")
            self._since = max(self._since, head.time)
            self._ended = self._ended or head.final

    def _bad(self, kind: str, message: str) -> _StopError:
        self._report.tampered(kind, message, self._stream, self._seq)
        return _StopError(message)
