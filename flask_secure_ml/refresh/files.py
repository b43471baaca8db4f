"""The parsed content of a file that may change at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from .breaker import Monotonic
from .process import SingleFlight

T = TypeVar("T")

SETTLED_NS = 50_000_000
"""Nanoseconds after which another change of a file certainly has another timestamp; kernel clocks are coarse."""

POLLED = 0.1
"""Seconds for which a file is not checked again."""

_PATIENCE = 10.0
_Version = tuple[int, int, int, int]


def sentence_of(error: Exception) -> str:
    """Return the message of an error; for a system error, the file and the reason."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.filename is None:
        return error.strerror
    folder = Path(os.fsdecode(error.filename)).parent
    missing_folder = isinstance(error, FileNotFoundError) and not folder.exists()
    return f"the directory {folder} does not exist" if missing_folder else f"{error.filename}: {error.strerror}"


class _Content(NamedTuple, Generic[T]):
    version: _Version
    settled: bool
    digest: bytes
    value: T | None
    fault: str


class WatchedFile(Generic[T]):
    """Reads and parses a file again whenever its times, inode or size change.

    :meth:`read` costs one ``stat``; :meth:`recent` none within :data:`POLLED` seconds of the last one.

    Old content is never returned: if the file is missing or cannot be parsed, :meth:`read` raises. A changed file is
    parsed by one thread, while the others wait. A damaged one is parsed only once.

    :param path: the file; it need not exist yet.
    :param parse: returns the value for the bytes, never None; raises ValueError to reject them.
    :param clock: measures when the file was last checked; None to check it for each call.
    """

    def __init__(self, path: str | Path, parse: Callable[[bytes], T], clock: Monotonic | None = None) -> None:
        self.path: Path = Path(path)
        self._name = str(path)
        self._parse = parse
        self._content: _Content[T] | None = None
        self._flights = SingleFlight()
        self._clock = clock
        # The times from and until which the cached content is returned, and the content.
        self._seen: tuple[float, float, _Content[T]] | None = None
        self._generation = object()

    def recent(self) -> T:
        """Return the content as of the last check, at most :data:`POLLED` seconds ago.

        :raises OSError: the file cannot be read.
        :raises ValueError: ``parse`` rejects the content.
        """
        seen = self._seen
        if seen is not None and self._clock is not None and seen[0] <= self._clock.monotonic() < seen[1]:
            return self._value(seen[2])
        return self.read()

    def read(self) -> T:
        """Return the parsed content, as the same object while the file is unchanged.

        :raises OSError: the file cannot be read.
        :raises ValueError: ``parse`` rejects the content.
        """
        now, generation = 0.0 if self._clock is None else self._clock.monotonic(), self._generation
        status = os.stat(self._name)  # noqa: PTH116  runs for each request, and takes half the time
        version = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
        content = self._content
        if content is None or not content.settled or content.version != version:
            content = self._flights.run(version, lambda: self._cached(version), self._load, _PATIENCE)
        self._seen = (now, now + POLLED, content)
        if self._generation is not generation:
            # Another thread has changed the file meanwhile.
            self._seen = None
        return self._value(content)

    def forget(self) -> None:
        """Check the file again with the next call, because this process changed it."""
        self._generation = object()
        self._seen = None

    @staticmethod
    def _value(content: _Content[T]) -> T:
        if content.value is None:
            raise ValueError(content.fault)
        return content.value

    def _cached(self, version: _Version) -> _Content[T] | None:
        content = self._content
        return content if content is not None and content.settled and content.version == version else None

    def _load(self) -> _Content[T]:
        before = self._content
        with self.path.open("rb") as stream:
            version, now = _version(os.fstat(stream.fileno())), time.time_ns()
            raw = stream.read()
        settled = not 0 <= now - version[1] < SETTLED_NS
        digest = blake2b(raw).digest()
        if before is not None and before.digest == digest:
            content = before._replace(version=version, settled=settled)
        else:
            content = _Content(version, settled, digest, *self._parsed(raw))
        self._content = content
        return content

    def _parsed(self, raw: bytes) -> tuple[T | None, str]:
        try:
            return self._parse(raw), ""
        except ValueError as error:
            return None, str(error) or type(error).__name__


def _version(status: os.stat_result) -> _Version:
    # The time of the last status change too, because tools that copy files set the modification time.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
