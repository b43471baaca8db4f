"""A file whose parsed content is kept until the file changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
_Version = tuple[int, int, int]


class WatchedFile(Generic[T]):
    """Reads and parses a file again whenever its time, inode or size differ; costs one ``stat`` a call.

    Nothing old is served: when the file is missing or cannot be parsed, :meth:`read` raises.

    :param path: the file; it need not exist yet.
    :param parse: makes the value from the bytes; raises ValueError for bytes that it refuses.
    """

    def __init__(self, path: str | Path, parse: Callable[[bytes], T]) -> None:
        self.path = Path(path)
        self._name = str(path)
        self._parse = parse
        self._kept: tuple[_Version, T] | None = None

    def read(self) -> T:
        """Return the parsed content.

        :raises OSError: the file cannot be read.
        :raises ValueError: the file is not what ``parse`` accepts.
        """
        kept = self._kept
        if kept is not None and kept[0] == _version(os.stat(self._name)):  # noqa: PTH116  once a request, and half as long
            return kept[1]
        with self.path.open("rb") as stream:
            version = _version(os.fstat(stream.fileno()))
            value = self._parse(stream.read())
        self._kept = (version, value)
        return value


def _version(status: os.stat_result) -> _Version:
    return status.st_mtime_ns, status.st_ino, status.st_size
