"""Reads a log file and its rotated files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

import orjson

_LONGEST = 1 << 20
_LARGEST = 2**63 - 1


def log_files(path: Path) -> list[Path]:
    """Return a log file and its rotated files, newest first.

    These have names such as ``log.1``, ``log.2.gz`` and ``log-20270115.gz``, as created by logrotate.

    :raises OSError: the folder cannot be read.
    """
    rotated = [each for each in path.parent.glob(f"{escape(path.name)}[.-]*") if each.is_file()]
    rotated.sort(key=lambda each: each.stat().st_mtime, reverse=True)
    return [each for each in (path, *rotated) if each.is_file()]


def records_with(
    log: IO[bytes], needle: bytes = b"", progress: Callable[[int], object] = lambda _bytes: None
) -> Iterator[dict[str, Any]]:
    """Yield the parsed lines of a log that contain some bytes.

    Lines without a JSON object are skipped, and so is a prefix of the object, such as a date.

    :param progress: called with the number of additional bytes read.
    :raises OSError: the file cannot be read, or its compression is damaged.
    """
    for line in _lines(log):
        progress(len(line))
        if needle not in line or (start := line.find(b"{")) < 0:
            continue
        record = _parsed(line[start:])
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


def _parsed(text: bytes) -> Any:
    """Return a JSON value, or None if it is invalid."""
    try:
        return orjson.loads(text)
    except ValueError:
        # For lone surrogates, which other writers escape, and invalid numbers.
        try:
            return json.loads(text, parse_int=_integer)
        except (ValueError, RecursionError):
            return None


def _integer(digits: str) -> int:
    """Return an integer of bounded size.

    :raises ValueError: it is too large.
    """
    found = int(digits)
    if abs(found) > _LARGEST:
        raise ValueError("the integer is too large")
    return found


def _lines(log: IO[bytes]) -> Iterator[bytes]:
    try:
        while line := log.readline(_LONGEST):
            yield line
    except (EOFError, zlib.error) as error:
        raise OSError(f"its compression is damaged: {error}") from None
