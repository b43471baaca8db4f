"""One stream of records: the files that one process appends to.

Each record contains the code of the previous one, and its own code under a key that is used once. The key of the next
record is derived from it, and the old key is overwritten. Python may have copied a key before: immutable bytes cannot
be overwritten, only released. The guarantee is that no object of this package holds an old key.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...principal import Clock
from ..instants import Instants
from .keys import KEY_BYTES, AppKeys, mac_of, next_key
from .records import MAX_LINE, ZERO, Members, canonical, line_of, lines_of, parse, split_line

SUFFIX = ".jsonl"
STREAMS = "streams"
_OWNED = 0o600
CLOSED = 0o400
"""Mode of a closed file, whose end is in the index."""


@dataclass(frozen=True)
class StreamOptions:
    """Options for writing the files of a stream.

    :param sync: when files are synced to disk: ``off``, ``checkpoint`` or ``record``.
    :param rotate_bytes: the size at which a new file is started.
    :param rotate_seconds: the age at which a new file is started.
    """

    sync: str = "checkpoint"
    rotate_bytes: int = 100_000_000
    rotate_seconds: int = 86_400


def segment_path(folder: Path, stream: str, segment: int) -> Path:
    """Return the path of a segment."""
    return folder / STREAMS / f"{stream}-{segment:06d}{SUFFIX}"


def header_of(stream: str, segment: int, seq: int) -> Members:
    """Return the header that identifies the start of a segment."""
    return {"segment": segment, "seq": seq, "stream": stream}


class Stream:
    """The stream of this process; not thread-safe.

    :param facts: the members of the first record.
    :raises OSError: its first file cannot be written.
    """

    def __init__(
        self, folder: Path, keys: AppKeys, clock: Clock, options: StreamOptions, facts: Mapping[str, Any]
    ) -> None:
        self.id: str = os.urandom(16).hex()
        self.seq: int = 0
        self.mac: str = ZERO
        self._folder = folder
        self._keys = keys
        self._clock = clock
        self._options = options
        self._key = bytearray(os.urandom(KEY_BYTES))
        self._segment = -1
        self._descriptor = -1
        self._bytes = 0
        self._began = 0.0
        self._instants = Instants()
        self._begin_segment({"action": "start", "pid": os.getpid(), **facts})

    def append(self, members: Members) -> None:
        """Write one record; its position and time are added to the members.

        :raises OSError: it cannot be written; the stream is unchanged.
        :raises ValueError: it is too long; the stream is unchanged.
        """
        if self._bytes >= self._options.rotate_bytes or self._is_old():
            self._begin_segment({"action": "segment"})
        self._write(members, self._clock.now())

    def duplicate(self) -> int:
        """Return a descriptor of the file that stays open when the next file is started."""
        return os.dup(self._descriptor)

    @property
    def closed(self) -> bool:
        """Return True if the stream is closed for writing."""
        return self._descriptor < 0

    def discard(self) -> None:
        """Overwrite the key and release the file; also called in a child that inherited both."""
        self._key[:] = bytes(KEY_BYTES)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _write(self, members: Members, now: float) -> None:
        members["prev"] = self.mac
        members["seq"] = self.seq
        members["stream"] = self.id
        members["time"] = self._timestamp(now)
        record = canonical(members)
        mac = mac_of(self._key, record)
        line = line_of(mac, record)
        if len(line) > MAX_LINE:
            # The verification would report it as tampering.
            raise ValueError(f"a record of {len(record)} bytes is too long")
        try:
            self._write_line(line)
            self._key[:] = next_key(self._key)
            self.mac = mac
            self.seq += 1
        except OSError:
            raise
        except BaseException:
            # A server stops a worker with an exception from a signal handler. The line may or may not have been
            # written.
            self.discard()
            raise

    def _write_line(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:] if written else line)
            if self._options.sync == "record":
                os.fdatasync(self._descriptor)
        except OSError:
            self._remove_part()
            raise
        self._bytes += len(line)

    def _remove_part(self) -> None:
        """Remove a partially written line; if that fails, close the stream."""
        try:
            os.ftruncate(self._descriptor, self._bytes)
        except OSError:
            self.discard()
            raise

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._began >= self._options.rotate_seconds

    def _begin_segment(self, members: Members) -> None:
        """Start a file with a record of the sealed current key, so that older files can be deleted."""
        segment = self._segment + 1
        path = segment_path(self._folder, self.id, segment)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _OWNED)
        older, size = self._descriptor, self._bytes
        try:
            # Held while this process writes, so that other processes notice when it has ended.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            header = header_of(self.id, segment, self.seq)
            sealed = self._keys.seal(self._key, header)
            signature = self._keys.sign_header(header, sealed)
            self._descriptor, self._bytes = descriptor, 0
            self._write({**members, "segment": segment, "sealed": sealed, "signature": signature}, self._clock.now())
        except OSError:
            if not self.closed:
                os.close(descriptor)
            self._descriptor, self._bytes = older, size
            path.unlink()
            raise
        self._segment, self._began = segment, self._clock.monotonic()
        if older >= 0:
            self._finish(older)

    def _finish(self, descriptor: int) -> None:
        """Close a complete file."""
        try:
            if self._options.sync != "off":
                os.fdatasync(descriptor)
            os.fchmod(descriptor, CLOSED)
        finally:
            os.close(descriptor)

    def _timestamp(self, now: float) -> str:
        text, microseconds = self._instants.split(now)
        return f"{text}.{microseconds:06d}Z"


@dataclass(frozen=True)
class Tail:
    """The last complete record of a file."""

    stream: str
    seq: int
    mac: str
    time: str


def last_record(path: Path) -> Tail | None:
    """Return the last complete record of a file, or None.

    :raises OSError: the file cannot be read.
    """
    last = b""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * MAX_LINE))
        for line in lines_of(file):
            if line.endswith(b"\n"):
                last = line
    try:
        mac, record = split_line(last)
        members = parse(record)
        return Tail(str(members["stream"]), int(members["seq"]), mac, str(members["time"]))
    except (KeyError, TypeError, ValueError):
        return None


def segment_files(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield the stream, number and path of each file of a log, in order.

    Only regular files are included, not a named pipe, for example.
    """
    for path in sorted((folder / STREAMS).glob(f"*{SUFFIX}")):
        stream, _, segment = path.name.removesuffix(SUFFIX).partition("-")
        if segment.isascii() and segment.isdigit() and path.is_file():
            yield stream, int(segment), path


def is_in_use(path: Path) -> bool:
    """Return True if a process still writes the file.

    :raises OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
