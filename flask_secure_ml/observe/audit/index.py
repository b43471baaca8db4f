"""The index of a log: the heads of its streams, one per line, which are the leaves of the tree that checkpoints sign.

All processes append to one file under an advisory lock. The state of the tree is stored in another file, so that the
whole index need not be read; it is only a cache, and is recomputed if it does not match.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from .checkpoint import sign
from .keys import AppKeys
from .records import BrokenLineError, Members, canonical, lines_of, parse
from .tree import Tree

INDEX, STATE, CHECKPOINT = "index.jsonl", "index.state", "checkpoint"
PATIENCE = 10.0
"""Seconds to wait for the lock, which is usually held for milliseconds."""

_PAUSE = 0.005
_MODE = 0o600


class OpenIndex:
    """The index while this process holds its lock."""

    def __init__(self, folder: Path, keys: AppKeys, file: BinaryIO, *, sync: bool) -> None:
        self._folder = folder
        self._keys = keys
        self._file = file
        self._sync = sync
        self._tree, self._offset = _load(folder, file)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._tree.size

    def add(self, leaf: Mapping[str, Any]) -> None:
        """Append a leaf.

        :raises OSError: it cannot be written.
        """
        line = canonical(leaf)
        data = line + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file.fileno(), data[written:])
        except OSError:
            os.ftruncate(self._file.fileno(), self._offset)
            raise
        self._offset += len(data)
        self._tree.append(line)

    def publish(self) -> str:
        """Sign the root and return the checkpoint.

        :raises OSError: it cannot be written.
        """
        if self._sync:
            os.fdatasync(self._file.fileno())
        state = canonical(
            {"hashes": [each.hex() for each in self._tree.hashes], "size": self.size, "end": self._offset}
        )
        _replace(self._folder / STATE, sha256(state).hexdigest().encode() + b"\n" + state)
        note = sign(self._tree, self._keys.origin, self._keys.signing)
        _replace(self._folder / CHECKPOINT, note.encode())
        return note

    def leaves(self) -> Iterator[Members]:
        """Yield every leaf; a line that is none is left to the verification."""
        self._file.seek(0)
        for line in lines_of(self._file):
            with suppress(BrokenLineError):
                yield parse(line[:-1])


@contextmanager
def open_index(folder: Path, keys: AppKeys, *, sync: bool) -> Iterator[OpenIndex]:
    """Yield the index, locked.

    :raises OSError: it cannot be opened, or another process holds the lock.
    """
    descriptor = os.open(folder / INDEX, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        _lock(descriptor)
        try:
            yield OpenIndex(folder, keys, file, sync=sync)
        finally:
            # Closing is not enough: a child that was forked in the meantime also holds the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int) -> None:
    # Not a blocking system call, which would block every greenlet of a worker.
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _load(folder: Path, file: BinaryIO) -> tuple[Tree, int]:
    """Return the tree of all complete lines and their end; remove an incomplete line of a dead process."""
    size = file.seek(0, os.SEEK_END)
    tree, offset = _stored(folder / STATE, size)
    file.seek(offset)
    with os.fdopen(os.dup(file.fileno()), "rb") as buffered:
        for line in lines_of(buffered):
            if not line.endswith(b"\n"):
                os.ftruncate(file.fileno(), offset)
                break
            tree.append(line[:-1])
            offset += len(line)
    return tree, offset


def _stored(path: Path, size: int) -> tuple[Tree, int]:
    try:
        digest, _, state = path.read_bytes().partition(b"\n")
        found = orjson.loads(state)
        tree = Tree(found["size"], map(bytes.fromhex, found["hashes"]))
        if sha256(state).hexdigest().encode() == digest and 0 <= found["end"] <= size:
            return tree, found["end"]
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        pass
    return Tree(), 0


def _replace(path: Path, data: bytes) -> None:
    """Replace the content of a file in place, which keeps its owner if another user runs a command."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE), "wb", buffering=0) as file:
        file.write(data)
        file.truncate()
