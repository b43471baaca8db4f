"""Writes and compares generated files, and protects files that were edited by hand."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..refresh import replace_file

MANIFEST = ".flask-secure-ml.json"
"""File with the digests of generated files, which distinguish edits by hand from old versions."""

State = Literal["same", "missing", "differs", "edited", "stale"]


class EditedError(Exception):
    """Files that were edited by hand or not generated would be overwritten."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(", ".join(paths))
        self.paths = paths


@dataclass(frozen=True)
class FileState:
    """The state of a file on disk.

    ``edited`` means that it differs from both the current and the last generated version; ``stale`` means that it is no
    longer generated.
    """

    path: str
    state: State


class Output:
    """The generated files in one directory.

    :param root: the directory; it need not exist.
    :param wanted: the contents by path, which starts with the name of the target.
    :param targets: the generated targets; files of other targets are not touched.
    """

    def __init__(self, root: Path, wanted: Mapping[str, str], targets: frozenset[str]) -> None:
        self._root = root
        self._wanted = wanted
        self._targets = targets
        self._known = _manifest(root / MANIFEST)

    def states(self) -> Iterator[FileState]:
        """Yield the state of each file, stale files last.

        :raises OSError: a file cannot be read.
        """
        for path, content in self._wanted.items():
            yield FileState(path, self._state(path, content))
        for path in sorted(self._known.keys() - self._wanted.keys()):
            if path.partition("/")[0] in self._targets and self._has(path):
                yield FileState(path, "stale")

    def _has(self, path: str) -> bool:
        """Return True if a file of the manifest exists, unless its path contains a symbolic link."""
        found = self._root / path
        return found.is_file() and found.parent.resolve() == (self._root.resolve() / path).parent

    def _state(self, path: str, content: str) -> State:
        found = _read(self._root / path)
        if found is None:
            return "missing"
        if found == content.encode():
            return "same"
        return "differs" if self._known.get(path) == _digest(found) else "edited"

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff from the files on disk to the generated ones."""
        for each in self.states():
            old = (_read(self._root / each.path) or b"").decode(errors="replace")
            new = self._wanted.get(each.path, "")
            yield from difflib.unified_diff(
                old.splitlines(keepends=True),
                new.splitlines(keepends=True),
                "/dev/null" if each.state == "missing" else f"a/{each.path}",
                "/dev/null" if each.state == "stale" else f"b/{each.path}",
            )

    def write(self, *, force: bool) -> list[FileState]:
        """Write changed files, remove stale ones, and return the changes.

        :param force: also overwrite files that were edited by hand.
        :raises EditedError: there are such files; no file was written.
        :raises OSError: a file cannot be written.
        """
        found = list(self.states())
        edited = [each.path for each in found if each.state == "edited" or self._is_edited_and_stale(each)]
        if edited and not force:
            raise EditedError(edited)
        for each in found:
            if each.state == "stale":
                (self._root / each.path).unlink()
            elif each.state != "same":
                _write(self._root / each.path, self._wanted[each.path].encode())
        self._write_manifest()
        return [each for each in found if each.state != "same"]

    def _is_edited_and_stale(self, each: FileState) -> bool:
        return each.state == "stale" and self._known[each.path] != _digest(_read(self._root / each.path) or b"")

    def _write_manifest(self) -> None:
        others = {path: digest for path, digest in self._known.items() if path.partition("/")[0] not in self._targets}
        now = others | {path: _digest(content.encode()) for path, content in self._wanted.items()}
        if now != self._known:
            _write(self._root / MANIFEST, (json.dumps(now, indent=1, sort_keys=True) + "\n").encode())


def written_targets(root: Path) -> set[str]:
    """Return the targets whose files a directory contains."""
    return {name.partition("/")[0] for name in _manifest(root / MANIFEST)}


def _manifest(path: Path) -> dict[str, str]:
    try:
        found = json.loads(_read(path) or b"{}")
    except (ValueError, RecursionError):
        # Without it, every changed file counts as edited, so no edits are lost.
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str) and _is_beneath(name)}


def _is_beneath(name: str) -> bool:
    """Return True if a path of a manifest, which may be forged, is inside the directory."""
    return not name.startswith("/") and ".." not in name.split("/")


def _read(path: Path) -> bytes | None:
    """Return the content of a file, or the target of a symbolic link; None if it does not exist."""
    try:
        if path.is_symlink():
            return os.fsencode(path.readlink())
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Replace a file atomically; it contains no secrets, so other users may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content, mode=0o755 if content.startswith(b"#!") else 0o644)
