"""Reads a log without verifying it: the records of all streams in chronological order, with filters."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from .records import MAX_LINE, Members, lines_of, parse, second_from, split_line
from .stream import segment_files

PAUSE = 0.5
"""Poll interval for a followed log, in seconds."""


@dataclass(frozen=True)
class Filters:
    """A filter of records.

    :param equal: the required values of members.
    :param since: the first timestamp; empty for all.
    :param until: the end timestamp, exclusive; empty for all.
    :raises ValueError: one of them is not a prefix of a timestamp, so that nothing or everything would match.
    """

    equal: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        for option in (self.since, self.until):
            second_from(option)

    def match(self, record: Members) -> bool:
        """Return True if a record matches."""
        instant = _time(record)
        if (self.since and instant < self.since) or (self.until and instant >= self.until):
            return False
        return all(str(record.get(name)) == value for name, value in self.equal.items())


def opened(path: Path) -> BinaryIO:
    """Open a file of a log; it is empty if the app has deleted it because of its age since it was listed.

    :raises OSError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        return BytesIO()


def records_of(folder: Path) -> Iterator[Members]:
    """Yield the records of a log in chronological order; skip invalid lines.

    :raises OSError: a file cannot be read.
    """
    waiting = deque(sorted(_begun(_streams(folder).values()), key=itemgetter(0)))
    # Only streams of processes that wrote at the same time are open together: a log has a stream for each past process.
    reading: list[tuple[str, int, Members, Iterator[Members]]] = []
    opened = 0
    while waiting or reading:
        while waiting and (not reading or waiting[0][0] <= reading[0][0]):
            opened += 1
            _go_on(reading, opened, _of_stream(waiting.popleft()[1]))
        if reading:
            _, number, record, records = heapq.heappop(reading)
            yield record
            _go_on(reading, number, records)


def _begun(streams: Iterable[list[Path]]) -> Iterator[tuple[str, list[Path]]]:
    """Yield the time of the first record of each stream that has one, and its files."""
    for paths in streams:
        records = _of_stream(paths)
        if (first := next(records, None)) is not None:
            yield _time(first), paths
        records.close()


def _go_on(reading: list[tuple[str, int, Members, Iterator[Members]]], number: int, records: Iterator[Members]) -> None:
    """Push the next record of a stream, if any, onto a heap ordered by time and number."""
    if (record := next(records, None)) is not None:
        heapq.heappush(reading, (_time(record), number, record, records))


def _time(record: Members) -> str:
    return str(record.get("time", ""))


@dataclass
class Skipped:
    """The input that a scan skipped.

    :param lines: the number of complete lines that are not records.
    :param torn: the number of files with an incomplete last line, from a crash or a record that is being written.
    """

    lines: int = 0
    torn: int = 0


def scan(folder: Path, skipped: Skipped, progress: Callable[[int], object]) -> Iterator[tuple[str, Iterator[Members]]]:
    """Yield each stream and its records in order; consume the records of a stream before the next one.

    :param skipped: counts skipped input.
    :param progress: called with the number of additional bytes read.
    :raises OSError: a file cannot be read.
    """
    for stream, paths in _streams(folder).items():
        yield stream, (record for path in paths for record in _scanned(path, skipped, progress))


def follow(folder: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[Members]:
    """Yield new records as they are written, forever.

    :param pause: waits for the given number of seconds.
    :raises OSError: a file cannot be read.
    """
    positions: dict[Path, int] = {}
    for _, _, path in segment_files(folder):
        with opened(path) as file:
            positions[path] = file.seek(0, SEEK_END)
    while True:
        found: list[Members] = []
        for _, _, path in segment_files(folder):
            start = positions.get(path, 0)
            for record, end in _complete(path, start):
                found.append(record)
                positions[path] = end
        yield from sorted(found, key=_time)
        if not found:
            pause(PAUSE)


def _streams(folder: Path) -> dict[str, list[Path]]:
    streams: dict[str, list[Path]] = {}
    for stream, _, path in segment_files(folder):
        streams.setdefault(stream, []).append(path)
    return streams


def _scanned(path: Path, skipped: Skipped, progress: Callable[[int], object]) -> Iterator[Members]:
    with opened(path) as file:
        for line in lines_of(file, progress):
            try:
                yield parse(split_line(line)[1])
            except ValueError:
                if len(line) < MAX_LINE and not line.endswith(b"\n"):
                    skipped.torn += 1
                else:
                    skipped.lines += 1


def _of_stream(paths: list[Path]) -> Generator[Members, None, None]:
    for path in paths:
        yield from (record for record, _ in _complete(path, 0))


def _complete(path: Path, start: int) -> Iterator[tuple[Members, int]]:
    """Yield each complete record from a position onwards, and the position after it."""
    with opened(path) as file:
        file.seek(start)
        for line in lines_of(file):
            start += len(line)
            if not line.endswith(b"\n") and len(line) < MAX_LINE:
                return
            try:
                yield parse(split_line(line)[1]), start
            except ValueError:
                continue
