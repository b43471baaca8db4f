"""Verification of the index against the local and external checkpoints, and of its timestamps."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint, notes_in
from .findings import Report
from .index import CHECKPOINT, INDEX
from .keys import VerificationKey
from .records import LARGEST, MAX_LINE, BrokenLineError, lines_of, parse, seconds_of
from .stream import segment_files
from .tree import Tree

CLOCK_SLACK = 300.0
"""Maximum clock difference between processes and machines, in seconds."""

LONGEST_INTERVAL = 86_400
"""Maximum interval between two checkpoints of a process in seconds, as in the settings."""

_BEATS = 3
_GRACE = 60.0
# Within this time, another process adds the end of a process that died.
_ADOPTED = 120.0


@dataclass(slots=True)
class Head:
    """A leaf of a stream: the record with this number has this code."""

    leaf: int
    seq: int
    mac: str
    time: float
    every: int
    final: bool = False
    adopted: bool = False


@dataclass
class StreamHeads:
    """All heads of one stream in the index."""

    heads: list[Head] = field(default_factory=list)
    retired: list[Head] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The last record that the index covers."""
        return max((each.seq for each in self.heads), default=-1)


@dataclass
class Index:
    """The leaves of a log, by stream."""

    streams: dict[str, StreamHeads] = field(default_factory=dict)
    times: list[tuple[float, int]] = field(default_factory=list)
    size: int = 0

    def time_of(self, size: int) -> float:
        """Return the time of the last leaf of a tree of this size."""
        return self.times[size - 1][0] if 0 < size <= self.size else 0.0

    def every_of(self, size: int) -> int:
        """Return the checkpoint interval at that time, in seconds."""
        return self.times[size - 1][1] if 0 < size <= self.size else 0


def outside_checkpoints(content: str, key: VerificationKey) -> Iterator[Checkpoint | None]:
    """Yield the checkpoints in a sink's data, plain or in syslog messages; None for an invalid one."""
    lines = content.replace("|", "\n").replace("\ufeff", " ")
    origin = re.escape(key.origin)
    bare = re.sub(rf"^[^\N{{EM DASH}}\n]*[ ]({origin})$", r"\1", lines, flags=re.MULTILINE)
    return notes_in(bare, key.verifier)


def read_index(folder: Path, key: VerificationKey, outside: Sequence[Checkpoint], now: float, report: Report) -> Index:
    """Return the index, and report each checkpoint that it is inconsistent with.

    :param now: seconds since the epoch.
    """
    index, wanted = Index(), _wanted(outside, report)
    local = _local(folder, key, report)
    if local is not None:
        wanted.setdefault(local.size, {})[local.root] = "the local checkpoint"
    tree = Tree()
    for line in _lines(folder / INDEX):
        if not line.endswith(b"\n"):
            report.notice("torn_index", "the last line is incomplete, as after a crash", seq=tree.size)
            break
        tree.append(line[:-1])
        _add(index, line[:-1], report)
        for root, whose in wanted.pop(tree.size, {}).items():
            if root != tree.root():
                report.tampered("index_changed", f"the leaves up to here do not match {whose}", seq=tree.size - 1)
    for size, roots in sorted(wanted.items()):
        if size:
            report.tampered(
                "index_truncated",
                f"it has {tree.size} leaves, but {', '.join(roots.values())} covers {size}",
                seq=tree.size,
            )
    report.leaves = tree.size
    _check_times(index, now, report)
    return index


def check_age(outside_time: float, now: float, max_age: float, report: Report) -> None:
    """Report a newest checkpoint that is too old: a running app sends checkpoints even when it is idle."""
    if now - outside_time > max_age:
        report.tampered("missing_heartbeat", f"no checkpoint for {now - outside_time:.0f} seconds")


def check_heartbeats(index: Index, report: Report) -> None:
    """Report each process with a gap between its heads: it sends heads even when it is idle."""
    for stream, found in index.streams.items():
        # Leaves that others add for a process that died are not heartbeats.
        heard = [each for each in found.heads if not each.adopted]
        for before, after in pairwise(heard):
            if after.time - before.time > _BEATS * before.every + _GRACE:
                seconds = f"no heartbeat for {after.time - before.time:.0f} seconds, unless the machine was suspended"
                report.tampered("missing_heartbeat", seconds, stream, before.seq)
                break
        last = max(found.heads, key=lambda each: each.leaf, default=None)
        if last is not None and not (last.final or last.adopted):
            silence = index.time_of(index.size) - last.time
            if silence > _BEATS * last.every + _GRACE + _ADOPTED:
                report.tampered(
                    "missing_heartbeat", f"no heartbeat for the last {silence:.0f} seconds", stream, last.seq
                )


def _wanted(outside: Sequence[Checkpoint], report: Report) -> dict[int, dict[bytes, str]]:
    found: dict[int, dict[bytes, str]] = {}
    for each in outside:
        found.setdefault(each.size, {})[each.root] = "an external checkpoint"
    for size, roots in found.items():
        if len(roots) > 1:
            report.tampered("forked", "two checkpoints of this size have different roots", seq=size - 1)
    return found


def _local(folder: Path, key: VerificationKey, report: Report) -> Checkpoint | None:
    content = _checkpoint(folder)
    if content is None:
        if next(segment_files(folder), None) is None:
            report.notice("empty", "the log has no records")
        else:
            report.tampered("missing_checkpoint", "the index or the local checkpoint is missing")
        return None
    found = list(notes_in(content, key.verifier))
    if len(found) != 1 or found[0] is None:
        report.tampered("bad_checkpoint", "the local checkpoint is not signed by the app")
        return None
    return found[0]


def _checkpoint(folder: Path) -> str | None:
    """Return the content of the local checkpoint; None if it or the index is missing or not a regular file."""
    # Opening a named pipe would block.
    if not ((folder / INDEX).is_file() and (folder / CHECKPOINT).is_file()):
        return None
    try:
        with (folder / INDEX).open("rb") as index, (folder / CHECKPOINT).open("rb") as file:
            # A running app writes both files under this lock.
            fcntl.flock(index, fcntl.LOCK_SH)
            return file.read(MAX_LINE).decode("utf-8", "replace")
    except OSError:
        return None


def _lines(path: Path) -> Iterable[bytes]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        yield from lines_of(file)


def _add(index: Index, line: bytes, report: Report) -> None:
    number = index.size
    index.size += 1
    try:
        leaf = parse(line)
        head = _head(leaf, number)
    except (BrokenLineError, KeyError, TypeError, ValueError):
        report.tampered("bad_leaf", "it does not have the format of a leaf", seq=number)
        index.times.append((index.time_of(number), 0))
        return
    index.times.append((head.time, head.every or index.every_of(number)))
    found = index.streams.setdefault(str(leaf["stream"]), StreamHeads())
    (found.retired if leaf["kind"] == "retired" else found.heads).append(head)


def _head(leaf: Mapping[str, Any], number: int) -> Head:
    if leaf["kind"] not in {"head", "retired"}:
        raise BrokenLineError("it is not a leaf")
    # A longer interval would excuse silence and backdated streams.
    time, every = seconds_of(leaf["time"]), _whole(leaf.get("every", 0), LONGEST_INTERVAL)
    final, adopted = leaf.get("final") is True, leaf.get("adopted") is True
    return Head(number, _whole(leaf["seq"]), str(leaf["mac"]), time, every, final, adopted)


def _whole(value: Any, most: int = LARGEST) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise BrokenLineError("it has no whole number")
    return value


def _check_times(index: Index, now: float, report: Report) -> None:
    latest = 0.0
    for number, (time, _) in enumerate(index.times):
        if time > now + CLOCK_SLACK:
            # Otherwise, files could be deleted as if they had expired.
            report.tampered(
                "clock",
                "it is in the future: postdated, or the clock of the app or of this machine is wrong",
                seq=number,
            )
            return
        if time < latest - CLOCK_SLACK:
            report.tampered(
                "clock", "it is older than the leaves before it: backdated, or the clock was set back", seq=number
            )
            return
        latest = max(latest, time)
