"""Atomic writes of files, and private files and directories."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

PRIVATE = 0o600
READABLE = 0o644


def write(path: Path, data: bytes, mode: int = READABLE) -> None:
    """Write ``data`` to ``path`` atomically; a reader gets the old file or the new one.

    :param mode: permissions of the file; it has them before it has its content.
    :raises OSError: the directory is not writable or the disk is full; the old file stays.
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
    """Return ``path`` as a directory that only its owner can enter, and create it if it is missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
