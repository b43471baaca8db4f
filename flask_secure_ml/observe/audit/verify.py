"""Offline verification of a log: nothing of the app is needed, only the files and the verification key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .checkpoint import Checkpoint
from .findings import Report
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
    """Return what is wrong with a log.

    :param outside: the checkpoints that a sink has stored. Without them, whoever had the keys of the app may have cut,
        rolled back or replaced the log as a whole, and whoever could only write its files may have cut what was written
        since the checkpoint beside it, or put older copies of all files back.
    :param now: seconds since the epoch.
    :param max_age: how old the newest checkpoint may be, in seconds.
    :param retention_days: after how many days covered files may have been deleted; None if never.
    :param progress: called with how many bytes more were read.
    """
    report = Report()
    trusted = _trusted(outside, key, report)
    index = read_index(folder, key, trusted, report)
    check_heartbeats(index, report)
    covered = max((each.size for each in trusted), default=0)
    if outside is not None:
        report.covered = covered
    if max_age is not None:
        newest = index.time_of(covered if outside is not None else index.size)
        check_age(newest, now, max_age, report)
    files: dict[str, list[tuple[int, Path]]] = {}
    for stream, segment, path in segment_files(folder):
        files.setdefault(stream, []).append((segment, path))
    retention = None if retention_days is None else float(retention_days * _DAY)
    for stream in sorted({*files, *index.streams}):
        known = index.streams.get(stream, StreamHeads())
        verifier = StreamVerifier(stream, known, key, report, progress, retention)
        verifier.verify(files.get(stream, []))
        report.streams += 1
        _check_covered(stream, known, verifier.first_time, index, report)
    return report


def log_bytes(folder: Path) -> int:
    """Return the size of all files of streams, for a progress bar."""
    return sum(path.stat().st_size for _, _, path in segment_files(folder))


def _trusted(outside: str | None, key: VerificationKey, report: Report) -> list[Checkpoint]:
    found: Iterable[Checkpoint | None] = () if outside is None else outside_checkpoints(outside, key)
    all_of_them = list(found)
    if outside is not None and not any(all_of_them):
        report.tampered("no_checkpoint", "there is no outside checkpoint with a valid signature")
    elif None in all_of_them:
        report.notice("bad_checkpoint", f"{all_of_them.count(None)} outside checkpoints have no valid signature")
    return [each for each in all_of_them if each is not None]


def _check_covered(stream: str, known: StreamHeads, first: float | None, index: Index, report: Report) -> None:
    """Find streams that claim to be older than the index: each process adds itself to it at once."""
    if first is None:
        return
    leaf = min((each.leaf for each in known.heads), default=index.size)
    if first < index.time_of(leaf) - CLOCK_SLACK - 2 * index.every_of(leaf):
        report.tampered("unregistered", "it claims to be older than the index, which had no such stream", stream, 0)
    elif not known.heads:
        report.notice("uncovered", "no checkpoint covers the stream yet", stream, 0)
