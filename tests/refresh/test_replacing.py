"""Files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_secure_ml.refresh import replace_file


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_content_and_mode(tmp_path: Path, mode: int, durable: bool) -> None:
    """For any umask, and any previous file."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o777)
    before = os.umask(0o077)
    try:
        replace_file(path, b"new", mode=mode, durable=durable)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_prepared_before_it_has_its_content(tmp_path: Path) -> None:
    """Its mode is set first, so that others cannot open it in between."""
    seen = []

    def prepare(descriptor: int) -> None:
        found = os.fstat(descriptor)
        seen.append((found.st_size, found.st_mode & 0o777))

    replace_file(tmp_path / "file", b"new", prepare=prepare)
    assert seen == [(0, 0o600)]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """No temporary file is left."""
    path = tmp_path / "file"
    path.write_text("old")

    def prepare(_descriptor: int) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        replace_file(path, b"new", prepare=prepare)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    """No temporary file is left."""
    (tmp_path / "file" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Its target is not changed."""
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_text("kept")
    path.symlink_to(other)
    replace_file(path, b"new")
    assert (other.read_text(), path.is_symlink(), path.read_bytes()) == ("kept", False, b"new")
