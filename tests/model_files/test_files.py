"""Files are read once, whole, below a cap, and only when they are plain files."""

from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_secure_ml.model_files import UnreadableModel, files, read_directory, read_file, verified_copy

MANY = 1 << 20


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def test_file(tmp_path: Path) -> None:
    """A file at the limit is read, also through a link, since its content is verified."""
    (tmp_path / "model").write_bytes(b"123")
    (tmp_path / "link").symlink_to("model")
    assert read_file(tmp_path / "model", 3) == read_file(tmp_path / "link", 3) == b"123"


def test_file_above_the_cap(tmp_path: Path) -> None:
    """A file of a tebibyte is rejected before a byte of it is read."""
    path = tmp_path / "model"
    path.touch()
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    with pytest.raises(UnreadableModel, match=f"it has {1 << 40} bytes, but only {MANY}"):
        read_file(path, MANY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MANY


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.mkdir(), id="directory"),
        pytest.param(os.mkfifo, id="pipe that nobody writes to"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="endless device"),
        pytest.param(lambda path: path.symlink_to(path), id="link to itself"),
        pytest.param(lambda path: None, id="missing"),
    ],
)
def test_no_plain_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Other than regular files are rejected without blocking."""
    make(tmp_path / "model")
    before = open_descriptors()
    with pytest.raises(UnreadableModel, match=r"model: it (is not a regular file|cannot be read)"):
        read_file(tmp_path / "model", MANY)
    assert open_descriptors() == before


def test_path_with_a_null() -> None:
    """A path that no system takes is rejected like a missing one."""
    with pytest.raises(UnreadableModel, match="cannot be read"):
        read_file(Path("a\0b"), MANY)


@pytest.mark.parametrize("size", [0, 2, 4], ids=["emptied", "shorter", "longer"])
def test_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A file that grows or shrinks between the look at its size and the reading is rejected."""
    path, look = tmp_path / "model", os.fstat
    path.write_bytes(b"123")

    def fstat(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        os.truncate(path, size)
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(UnreadableModel, match="changed while it was read"):
        read_file(path, MANY)


def model_directory(folder: Path) -> Path:
    (folder / "model" / "variables" / "empty").mkdir(parents=True)
    (folder / "model" / "saved_model.pb").write_bytes(b"12")
    (folder / "model" / "variables" / "a").write_bytes(b"345")
    (folder / "model" / ".hidden").write_bytes(b"")
    return folder / "model"


def test_directory(tmp_path: Path) -> None:
    """All files are read, in the order of their paths; the directory itself may be named by a link."""
    path = model_directory(tmp_path)
    (tmp_path / "current").symlink_to(path)
    expected = [(".hidden", b""), ("saved_model.pb", b"12"), ("variables/a", b"345")]
    assert list(read_directory(path, 5).items()) == expected
    assert list(read_directory(tmp_path / "current", 5).items()) == expected


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda path: (path / "x").symlink_to("saved_model.pb"), "'x' in it is a symbolic link", id="link"),
        pytest.param(lambda path: (path / "x").symlink_to("/etc"), "'x' in it is a symbolic link", id="link to folder"),
        pytest.param(lambda path: (path / "x").symlink_to("gone"), "'x' in it is a symbolic link", id="broken link"),
        pytest.param(
            lambda path: (path / "variables" / "x").symlink_to("a"),
            "'variables/x' in it is a symbolic",
            id="link below",
        ),
        pytest.param(lambda path: os.mkfifo(path / "x"), "x: it is not a regular file", id="pipe"),
        pytest.param(lambda path: (path / "a\nb").touch(), "control character", id="newline in a name"),
        pytest.param(lambda path: (path / "a\\b").touch(), "backslash", id="backslash in a name"),
        pytest.param(lambda path: Path(os.fsdecode(bytes(path) + b"/\xff")).touch(), "not UTF-8", id="no UTF-8"),
        pytest.param(lambda path: (path / "x").write_bytes(b"6"), "Raise max_bytes", id="size"),
    ],
)
def test_directory_with_something_else(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    """Links, pipes, names that cannot be listed, and more bytes than the limit are rejected."""
    path = model_directory(tmp_path)
    spoil(path)
    with pytest.raises(UnreadableModel, match=words):
        read_directory(path, 5)


def test_folder_swapped_for_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that becomes a link after the look at it is not followed."""
    path, look = model_directory(tmp_path), files._check_no_link

    def swap(folder: Path, relative: str, name: str, descriptor: int) -> None:
        look(folder, relative, name, descriptor)
        if name == "saved_model.pb":
            (path / name).unlink()
            (path / name).symlink_to("variables/a")

    monkeypatch.setattr(files, "_check_no_link", swap)
    with pytest.raises(UnreadableModel, match="cannot be read"):
        read_directory(path, 100)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, Path], ids=["empty", "file", "missing"])
def test_no_directory(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A directory without files, a file and a missing path are not model directories."""
    make(tmp_path / "model")
    with pytest.raises(UnreadableModel, match=r"not a directory with files|cannot be read"):
        read_directory(tmp_path / "model", MANY)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of files has a cap."""
    monkeypatch.setattr(files, "MAX_FILES", 2)
    with pytest.raises(UnreadableModel, match="more than 2 files"):
        read_directory(model_directory(tmp_path), MANY)


def test_verified_copy() -> None:
    """The copy has the verified files, is private, and is deleted after the block."""
    with verified_copy({"a": b"1", "b/c": b"2"}) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert read_directory(path, MANY) == {"a": b"1", "b/c": b"2"}
    assert not path.exists()


def test_folder_that_cannot_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be entered is not passed over."""
    enter, path = os.open, model_directory(tmp_path)

    def reject(name: str, flags: int, *, dir_fd: int | None = None) -> int:
        if name == "variables":
            raise PermissionError(errno.EACCES, "Permission denied")
        return enter(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", reject)
    with pytest.raises(UnreadableModel, match="Permission denied"):
        read_directory(path, MANY)
