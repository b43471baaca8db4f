"""Verification of the index: against the checkpoint beside it, against outside checkpoints, and in time."""

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
from .records import BrokenLineError, lines_of, parse, seconds_of
from .stream import segment_files
from .tree import Tree

CLOCK_SLACK = 300.0
"""Seconds by which the clocks of processes and machines may differ."""

_BEATS = 3
_GRACE = 60.0
# Within this time another process adds the end of one that died.
_ADOPTED = 120.0


@dataclass(slots=True)
class Head:
    """What a leaf says about a stream: its record with this number has this code."""

    leaf: int
    seq: int
    mac: str
    time: float
    every: int
    final: bool = False
    adopted: bool = False


@dataclass
class StreamHeads:
    """All that the index says about one stream."""

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
        """Return when the last of so many leaves was written."""
        return self.times[size - 1][0] if 0 < size <= self.size else 0.0

    def every_of(self, size: int) -> int:
        """Return the seconds between two checkpoints at that time."""
        return self.times[size - 1][1] if 0 < size <= self.size else 0


def outside_checkpoints(content: str, key: VerificationKey) -> Iterator[Checkpoint | None]:
    """Yield the checkpoints in what a sink has stored, as they are or in syslog messages; None for an invalid one."""
    lines = content.replace("|", "\n").replace("\ufeff", " ")
    origin = re.escape(key.origin)
    bare = re.sub(rf"^[^\N{{EM DASH}}\n]*[ ]({origin})$", r"\1", lines, flags=re.MULTILINE)
    return notes_in(bare, key.verifier)


def read_index(folder: Path, key: VerificationKey, outside: Sequence[Checkpoint], report: Report) -> Index:
    """Return the index, with a finding for each checkpoint that it does not lead to."""
    index, wanted = Index(), _wanted(outside, report)
    local = _local(folder, key, report)
    if local is not None:
        wanted.setdefault(local.size, {})[local.root] = "the checkpoint beside the log"
    tree = Tree()
    for line in _lines(folder / INDEX):
        if not line.endswith(b"\n"):
            report.notice("torn_index", "the last line ends early, as after a crash", seq=tree.size)
            break
        tree.append(line[:-1])
        _add(index, line[:-1], report)
        for root, whose in wanted.pop(tree.size, {}).items():
            if root != tree.root():
                report.tampered("index_changed", f"the leaves until here do not lead to {whose}", seq=tree.size - 1)
    for size, roots in sorted(wanted.items()):
        if size:
            report.tampered(
                "index_truncated",
                f"it has {tree.size} leaves; {', '.join(roots.values())} covers {size}",
                seq=tree.size,
            )
    report.leaves = tree.size
    _check_order(index, report)
    return index


def check_age(outside_time: float, now: float, max_age: float, report: Report) -> None:
    """Add a finding if the newest checkpoint is too old: a running app sends one even when it is idle."""
    if now - outside_time > max_age:
        report.tampered("missing_heartbeat", f"no checkpoint for {now - outside_time:.0f} seconds")


def check_heartbeats(index: Index, report: Report) -> None:
    """Add a finding for each process that was silent for long and was heard again: it sends a head when it is idle."""
    for stream, found in index.streams.items():
        # What others say about a process that died is no sign of life.
        heard = [each for each in found.heads if not each.adopted]
        for before, after in pairwise(heard):
            if after.time - before.time > _BEATS * before.every + _GRACE:
                seconds = f"nothing for {after.time - before.time:.0f} seconds; or the machine was suspended"
                report.tampered("missing_heartbeat", seconds, stream, before.seq)
                break
        last = max(found.heads, key=lambda each: each.leaf, default=None)
        if last is not None and not (last.final or last.adopted):
            silence = index.time_of(index.size) - last.time
            if silence > _BEATS * last.every + _GRACE + _ADOPTED:
                report.tampered(
                    "missing_heartbeat", f"not heard of for the last {silence:.0f} seconds", stream, last.seq
                )


def _wanted(outside: Sequence[Checkpoint], report: Report) -> dict[int, dict[bytes, str]]:
    found: dict[int, dict[bytes, str]] = {}
    for each in outside:
        found.setdefault(each.size, {})[each.root] = "an outside checkpoint"
    for size, roots in found.items():
        if len(roots) > 1:
            report.tampered("forked", "two checkpoints of this size have different roots", seq=size - 1)
    return found


def _local(folder: Path, key: VerificationKey, report: Report) -> Checkpoint | None:
    try:
        with (folder / INDEX).open("rb") as index:
            # A running app writes both under this lock.
            fcntl.flock(index, fcntl.LOCK_SH)
            content = (folder / CHECKPOINT).read_text("utf-8", "replace")
    except OSError:
        if next(segment_files(folder), None) is None:
            report.notice("empty", "nothing was recorded")
        else:
            report.tampered("missing_checkpoint", "there is no index, or no checkpoint beside the log")
        return None
    found = list(notes_in(content, key.verifier))
    if len(found) != 1 or found[0] is None:
        report.tampered("bad_checkpoint", "the checkpoint beside the log is not signed by the app")
        return None
    return found[0]


def _lines(path: Path) -> Iterable[bytes]:
    if not path.exists():
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
        report.tampered("bad_leaf", "it is not in the form of a leaf", seq=number)
        index.times.append((index.time_of(number), 0))
        return
    index.times.append((head.time, head.every or index.every_of(number)))
    found = index.streams.setdefault(str(leaf["stream"]), StreamHeads())
    (found.retired if leaf["kind"] == "retired" else found.heads).append(head)


def _head(leaf: Mapping[str, Any], number: int) -> Head:
    if leaf["kind"] not in {"head", "retired"}:
        raise BrokenLineError("it is no leaf")
    time, every = seconds_of(leaf["time"]), int(leaf.get("every", 0))
    final, adopted = leaf.get("final") is True, leaf.get("adopted") is True
    return Head(number, int(leaf["seq"]), str(leaf["mac"]), time, every, final, adopted)


def _check_order(index: Index, report: Report) -> None:
    latest = 0.0
    for number, (time, _) in enumerate(index.times):
        if time < latest - CLOCK_SLACK:
            report.tampered("clock", "it is older than leaves before it: backdated, or the clock was set", seq=number)
            return
        latest = max(latest, time)
