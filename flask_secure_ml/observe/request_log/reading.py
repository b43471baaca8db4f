"""Finding the lines of one request in a log file and in those that were rotated."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

_LONGEST = 1 << 20


def log_files(path: Path) -> list[Path]:
    """Return a log file and what was rotated away from it, the newest first.

    That is ``log.1``, ``log.2.gz`` and ``log-20270115.gz``, as logrotate names them.

    :raises OSError: the folder cannot be read.
    """
    rotated = [each for each in path.parent.glob(f"{escape(path.name)}[.-]*") if each.is_file()]
    rotated.sort(key=lambda each: each.stat().st_mtime, reverse=True)
    return [each for each in (path, *rotated) if each.is_file()]


def records_of(log: IO[bytes], request_id: str) -> list[dict[str, Any]]:
    """Return the parsed lines of one request; what stands before the JSON of a line, such as a date, is skipped.

    :raises OSError: the file cannot be read, or its compression is damaged.
    """
    found = []
    # Written in ASCII, so an id with other characters is there as escapes.
    needle = json.dumps(request_id)[1:-1].encode()
    for line in _lines(log):
        if needle not in line or (start := line.find(b"{")) < 0:
            continue
        try:
            record = json.loads(line[start:])
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("request_id") == request_id:
            found.append(record)
    return found


def all_records_of(log: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the parsed lines of a log; what is no JSON object is skipped, and what stands before it.

    :raises OSError: the file cannot be read, or its compression is damaged.
    """
    for line in _lines(log):
        if (start := line.find(b"{")) < 0:
            continue
        try:
            record = json.loads(line[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a log file, decompressed if it is a gzip file.

    :raises OSError: it cannot be opened.
    """
    with path.open("rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            yield raw
            return
        with gzip.open(raw, "rb") as inner:
            yield inner  # type: ignore[misc]


def _lines(log: IO[bytes]) -> Iterator[bytes]:
    try:
        while line := log.readline(_LONGEST):
            yield line
    except (EOFError, zlib.error) as error:
        raise OSError(f"its compression is damaged: {error}") from None
