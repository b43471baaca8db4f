"""Offline verification of a log; needs only the files and the verification key, not the app."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .checkpoint import Checkpoint
from .findings import Report
from .index import INDEX
from .keys import VerificationKey
from .stream import segment_files
from .verify_index import CLOCK_SLACK, Index, StreamHeads, check_age, check_heartbeats, outside_checkpoints, read_index
from .verify_streams import Progress, StreamVerifier

_DAY = 86_400


def verify_log(
    folder: Path,
    key: VerificationKey,
    *,
    outside: str | None = None,
    now: float,
    max_age: float | None = None,
    retention_days: int | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Verify a log and return a report.

    :param outside: the checkpoints that a sink has stored. Without them, an attacker with the keys of the app can
        truncate, roll back or replace the whole log undetected, and an attacker who can only write its files can
        truncate records after the local checkpoint, or restore older copies of all files.
    :param now: seconds since the epoch.
    :param max_age: the maximum age of the newest checkpoint in seconds.
    :param retention_days: the number of days after which covered files may have been deleted; None for never.
    :param progress: called with the number of additional bytes read.
    """
    report = Report()
    trusted = _trusted(outside, key, report)
    index = read_index(folder, key, trusted, now, report)
    later = _Later(folder, key, trusted, now, index)
    check_heartbeats(index, report)
    covered = max((each.size for each in trusted), default=0)
    if outside is not None:
        report.covered = covered
    if max_age is not None:
        newest = index.time_of(covered if outside is not None else index.size)
        check_age(newest, now, max_age, report)
    files = _files(folder)
    retention = None if retention_days is None else float(retention_days * _DAY)
    for stream in sorted({*files, *index.streams}):
        known, segments = index.streams.get(stream, StreamHeads()), files.get(stream, [])
        own, first = _verify(stream, segments, known, key, progress, retention)
        if not own.ok and (retired := later.heads_if_retired(stream, known)) is not None:
            known = retired
            own, first = _verify(stream, _files(folder).get(stream, []), known, key, progress, retention)
        report.findings += own.findings
        report.records += own.records
        report.streams += 1
        _check_covered(stream, known, first, index, report)
    return report


def _files(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    files: dict[str, list[tuple[int, Path]]] = {}
    for stream, segment, path in segment_files(folder):
        files.setdefault(stream, []).append((segment, path))
    return files


def _verify(
    stream: str,
    segments: Sequence[tuple[int, Path]],
    known: StreamHeads,
    key: VerificationKey,
    progress: Progress,
    retention: float | None,
) -> tuple[Report, float | None]:
    """Return the report on one stream, and the time of its first record."""
    report = Report()
    verifier = StreamVerifier(stream, known, key, report, progress, retention)
    verifier.verify(segments)
    return report, verifier.first_time


class _Later:
    """Reads the index again for files that the app deletes by age during a verification.

    :param started: the start of the verification, in seconds since the epoch.
    :param index: the index at that time.
    """

    def __init__(
        self, folder: Path, key: VerificationKey, trusted: Sequence[Checkpoint], started: float, index: Index
    ) -> None:
        self._folder = folder
        self._key = key
        self._trusted = trusted
        self._started = started
        self._began = time.time()
        self._index = index
        self._size = -1

    def heads_if_retired(self, stream: str, known: StreamHeads) -> StreamHeads | None:
        """Return the current heads of a stream if more of it was deleted since; otherwise None.

        The current index is used only if it matches its checkpoints.
        """
        try:
            size = (self._folder / INDEX).stat().st_size
        except FileNotFoundError:
            return None
        if size != self._size:
            self._size, report = size, Report()
            now = self._started + time.time() - self._began
            found = read_index(self._folder, self._key, self._trusted, now, report)
            if report.ok and found.size >= self._index.size:
                self._index = found
        heads = self._index.streams.get(stream, StreamHeads())
        return heads if len(heads.retired) > len(known.retired) else None


def log_bytes(folder: Path) -> int:
    """Return the total size of all stream files, for a progress bar."""
    return sum(_size(path) for _, _, path in segment_files(folder))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # The app deleted it because of its age.
        return 0


def _trusted(outside: str | None, key: VerificationKey, report: Report) -> list[Checkpoint]:
    found: Iterable[Checkpoint | None] = () if outside is None else outside_checkpoints(outside, key)
    all_of_them = list(found)
    if outside is not None and not any(all_of_them):
        report.tampered("no_checkpoint", "no external checkpoint has a valid signature")
    elif None in all_of_them:
        report.notice("bad_checkpoint", f"{all_of_them.count(None)} external checkpoints have no valid signature")
    return [each for each in all_of_them if each is not None]


def _check_covered(stream: str, known: StreamHeads, first: float | None, index: Index, report: Report) -> None:
    """Report streams that claim to be older than the index, in which each process registers at its start."""
    if first is None:
        return
    leaf = min((each.leaf for each in known.heads), default=index.size)
    if first < index.time_of(leaf) - CLOCK_SLACK - 2 * index.every_of(leaf):
        report.tampered("unregistered", "it claims to be older than the index, which does not contain it", stream, 0)
    elif not known.heads:
        report.notice("uncovered", "no checkpoint covers the stream yet", stream, 0)
