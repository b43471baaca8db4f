"""Reading a model once, so that the bytes that are checked are the bytes that are loaded.

Every later step works on these bytes. Replacing the file afterwards has no effect (CWE-367, time-of-check to
time-of-use).

The tree of errors::

    ModelFileError
     +- UnreadableModel    the file is missing, too large, or not a regular file
     +- UnverifiedModel    its digest or signature is missing or does not match; it was not parsed
     +- UnsafeModel        the file is verified, but loading it could run code or read other files
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


class ModelFileError(Exception):
    """A model file cannot be used. The message has the file, the problem and a remedy.

    These errors occur when an app starts. They contain paths and digests, so they are for operators, not for clients.

    :param path: the file or directory.
    :param problem: the problem, as a clause.
    :param remedy: the remedy, as a sentence without its full stop.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        self.path: str = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{self.path}: {problem}. {remedy}.")


class UnreadableModel(ModelFileError):
    """The file is missing, too large, or not a regular file."""


class UnverifiedModel(ModelFileError):
    """The digest or signature is missing or malformed, or does not match. The file was not parsed."""


class UnsafeModel(ModelFileError):
    """Loading the file could run code in it or read unverified files, and ``allow`` does not permit that."""


MAX_BYTES = 1 << 30
MAX_FILES = 100_000

# Without O_NONBLOCK, opening a named pipe would block until there is a writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

Files = Mapping[str, bytes]


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file. Symbolic links are followed, because the content is verified.

    :param max_bytes: a larger file is rejected before it is read.
    :raises UnreadableModel: the file is missing, too large, not a regular file, or changed while it was read.
    """
    try:
        return _read(path, os.open(path, _FLAGS), max_bytes)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def read_directory(path: Path, max_bytes: int) -> dict[str, bytes]:
    """Return the files below a directory by their relative paths (with ``/``), sorted by path.

    The path of the directory may contain symbolic links; the directory must not. Directories without files are ignored.

    :param max_bytes: the maximum size of all files together.
    :raises UnreadableModel: the directory is missing, empty or too large, or contains a symbolic link, a device, or a
        name with control characters, backslashes or bytes that are not UTF-8.
    """
    files: dict[str, bytes] = {}
    left = max_bytes
    try:
        for name, descriptor in _below(path):
            files[name] = _read(path / name, descriptor, left)
            left -= len(files[name])
            _check_count(path, len(files))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not files:
        raise UnreadableModel(path, "it is not a directory with files", "Name the directory of the model")
    return dict(sorted(files.items(), key=lambda item: item[0].encode()))


@contextmanager
def verified_copy(files: Files) -> Iterator[Path]:
    """Write verified files to a new private directory, for loaders that only accept a path.

    The directory is deleted at the end of the ``with`` block, so the loader must have read everything by then.
    It is created in :func:`tempfile.gettempdir`, which needs space for the whole model.

    :param files: the content of each file by its relative path, as passed to a loader of a directory.
    """
    with TemporaryDirectory(prefix="model-") as folder:
        for name, content in files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(folder)


def _read(path: Path, descriptor: int, max_bytes: int) -> bytes:
    try:
        size = _size(path, os.fstat(descriptor), max_bytes)
        with open(descriptor, "rb", closefd=False) as stream:
            # Reading one byte more than expected detects a file that has grown, without reading all of it.
            data = stream.read(size + 1)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise UnreadableModel(path, "it changed while it was read", "Load it when no process writes to it any more")
    return data


def _size(path: Path, found: os.stat_result, max_bytes: int) -> int:
    if not stat.S_ISREG(found.st_mode):
        remedy = "Name a regular file; for a model in a directory, use load_verified_directory"
        raise UnreadableModel(path, "it is not a regular file", remedy)
    if found.st_size > max_bytes:
        problem = f"it has {found.st_size} bytes, but only {max_bytes} of max_bytes are left"
        raise UnreadableModel(path, problem, "Raise max_bytes if the size is correct")
    return found.st_size


def _below(path: Path) -> Iterator[tuple[str, int]]:
    # Each directory is opened once and accessed by descriptor, so replacing it by a link has no effect.
    root = os.path.realpath(path)
    for folder, folders, names, descriptor in os.fwalk(root, onerror=_raise):
        inside = Path(folder).relative_to(root)
        for name in folders:
            _check_no_link(path, str(inside / name), name, descriptor)
        for name in names:
            relative = str(inside / name)
            _check_name(path, relative)
            _check_no_link(path, relative, name, descriptor)
            yield relative, os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)


def _check_no_link(path: Path, relative: str, name: str, descriptor: int) -> None:
    if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
        raise UnreadableModel(path, f"{relative!r} in it is a symbolic link", "Replace it by its target")


def _check_name(path: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnreadableModel(path, f"it contains the name {name!r}, which is not UTF-8", "Rename that file") from None
    if not name.isprintable() or "\\" in name:
        problem = f"it contains the name {name!r}, which has a control character or a backslash"
        raise UnreadableModel(path, problem, "Rename that file")


def _check_count(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise UnreadableModel(path, f"it has more than {MAX_FILES} files", "Name the directory of one model")


def _raise(error: OSError) -> None:
    raise error


def _unreadable(path: Path, error: OSError | ValueError) -> UnreadableModel:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return UnreadableModel(path, f"it cannot be read: {why}", "Check the path and its permissions")
