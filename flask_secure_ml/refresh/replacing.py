"""Replaces files atomically, so that readers get either the old content or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace_file(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    prepare: Callable[[int], object] | None = None,
    durable: bool = False,
) -> None:
    """Replace the content of a file atomically.

    :param mode: the permissions of the file, set before the content is written.
    :param prepare: called with the descriptor of the new file before the content is written, for example to set the
        owner.
    :param durable: synchronize to the disk, so that the content survives a crash of the machine.
    :raises OSError: the file cannot be written; the old one is kept.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as draft:
            os.fchmod(draft.fileno(), mode)
            if prepare is not None:
                prepare(draft.fileno())
            draft.write(content)
            draft.flush()
            if durable:
                os.fsync(draft.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
