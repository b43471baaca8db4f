"""Atomic file writes, private files and private directories."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

PRIVATE = 0o600
READABLE = 0o644


def write(path: Path, data: bytes, mode: int = READABLE) -> None:
    """Write ``data`` to ``path`` atomically: a reader gets either the old or the new file.

    :param mode: the permissions of the file, which are set before its content is written.
    :raises OSError: the directory is not writable or the disk is full; the old file is unchanged.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            os.fchmod(draft.fileno(), mode)
            draft.write(data)
            draft.flush()
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def private_directory(path: Path) -> Path:
    """Create a directory that only its owner can access, if it is missing, and return its path."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
