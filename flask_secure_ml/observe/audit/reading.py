"""Reading a log without verifying it: the records of all streams in the order of time, and filters."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .records import Members, lines_of, parse, split_line
from .stream import segment_files

PAUSE = 0.5
"""Seconds between two looks at the files of a log that is followed."""


@dataclass(frozen=True)
class Filters:
    """Which records are wanted.

    :param equal: the values that members must have.
    :param since: the first timestamp; empty for all.
    :param until: the first timestamp that is not wanted; empty for all.
    """

    equal: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""

    def match(self, record: Members) -> bool:
        """Return True if a record is wanted."""
        instant = str(record.get("time", ""))
        if (self.since and instant < self.since) or (self.until and instant >= self.until):
            return False
        return all(str(record.get(name)) == value for name, value in self.equal.items())


def records_of(folder: Path) -> Iterator[Members]:
    """Yield the records of a log in the order of time; lines that are none are left out.

    :raises OSError: a file cannot be read.
    """
    streams: dict[str, list[Path]] = {}
    for stream, _, path in segment_files(folder):
        streams.setdefault(stream, []).append(path)
    return heapq.merge(*map(_of_stream, streams.values()), key=lambda record: str(record.get("time", "")))


def follow(folder: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[Members]:
    """Yield the records that are written from now on, without end.

    :param pause: waits for some seconds.
    :raises OSError: a file cannot be read.
    """
    positions = {path: path.stat().st_size for _, _, path in segment_files(folder)}
    while True:
        found: list[Members] = []
        for _, _, path in segment_files(folder):
            start = positions.get(path, 0)
            for record, end in _complete(path, start):
                found.append(record)
                positions[path] = end
        yield from sorted(found, key=lambda record: str(record.get("time", "")))
        if not found:
            pause(PAUSE)


def _of_stream(paths: list[Path]) -> Iterator[Members]:
    for path in paths:
        yield from (record for record, _ in _complete(path, 0))


def _complete(path: Path, start: int) -> Iterator[tuple[Members, int]]:
    """Yield each complete record from a position on, and the position after it."""
    with path.open("rb") as file:
        file.seek(start)
        for line in lines_of(file):
            start += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                yield parse(split_line(line)[1]), start
            except ValueError:
                continue
