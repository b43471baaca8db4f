"""The cached content of a file: detected changes, and the cost of a call."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flask_secure_ml.refresh import WatchedFile
from flask_secure_ml.refresh.files import POLLED, SETTLED_NS
from flask_secure_ml.testing import FakeClock
from servers import wait_until


class Parser:
    """Parses numbers, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, raw: bytes) -> int:
        self.count += 1
        return int(raw)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "number"


def settle(path: Path) -> None:
    """Wait until the file is old enough that its next change has a different time."""
    wait_until(lambda: time.time_ns() - path.stat().st_ctime_ns > SETTLED_NS, "an old file")


def test_unchanged_file_is_parsed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once its times are settled, it is not even read."""
    path.write_text("7")
    parser = Parser()
    file = WatchedFile(path, parser)
    assert [file.read() for _ in range(20)] == [7] * 20
    settle(path)
    path.chmod(0o600)
    assert file.read() == 7
    settle(path)
    assert file.read() == 7
    monkeypatch.setattr(Path, "open", None)
    assert file.read() == 7
    assert parser.count == 1


def test_file_with_a_clock_is_looked_at_now_and_then(path: Path) -> None:
    """recent() sees a change within 100 ms, at once after forget() or read(), and when the clock was set back."""
    clock = FakeClock()
    path.write_text("7")
    file = WatchedFile(path, Parser(), clock)
    assert file.recent() == 7
    path.write_text("8")
    clock.advance(POLLED * 0.99)
    assert file.recent() == 7
    clock.advance(POLLED * 0.01)
    assert file.recent() == 8
    path.write_text("12")
    assert (file.recent(), file.read(), file.recent()) == (8, 12, 12)
    path.write_text("9")
    file.forget()
    assert file.recent() == 9
    path.write_text("10")
    clock.advance(-1)
    assert file.recent() == 10
    path.write_text("x")
    path.unlink()
    assert file.recent() == 10
    clock.advance(POLLED)
    with pytest.raises(FileNotFoundError):
        file.recent()
    path.write_text("11")
    assert file.recent() == 11


def test_change_while_another_thread_reads(path: Path) -> None:
    """Content read before forget() is not returned after it."""
    path.write_text("7")
    clock = FakeClock()

    def parse(raw: bytes) -> int:
        if raw == b"7":
            path.write_text("8")
            file.forget()
        return int(raw)

    file = WatchedFile(path, parse, clock)
    assert [file.recent(), file.recent()] == [7, 8]


def test_same_size_and_modification_time(path: Path) -> None:
    """Tools that copy files set the modification time; the time of the status change shows it."""
    path.write_text("7")
    settle(path)
    file = WatchedFile(path, Parser())
    assert file.read() == 7
    before = path.stat()
    path.write_text("8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)
    assert file.read() == 8


def test_changes_within_one_tick_of_the_clock(path: Path) -> None:
    """Several changes of one size in a row have the same times on most file systems; each is seen."""
    path.write_text("10")
    file = WatchedFile(path, Parser())
    for number in range(10, 60):
        with path.open("r+") as stream:
            stream.write(str(number))
        assert file.read() == number


def test_replaced_file(path: Path, tmp_path: Path) -> None:
    """Another file under the same name is seen, also through a symbolic link."""
    link = tmp_path / "link"
    link.symlink_to(path)
    file = WatchedFile(link, Parser())
    for number in (1, 2):
        (tmp_path / "new").write_text(str(number))
        (tmp_path / "new").replace(path)
        assert file.read() == number


def test_damaged_file(path: Path) -> None:
    """It is an error for every call, parsed once, until the file changes."""
    path.write_text("x")
    settle(path)
    parser = Parser()
    file = WatchedFile(path, parser)
    for _ in range(3):
        with pytest.raises(ValueError, match="invalid literal"):
            file.read()
    assert parser.count == 1
    path.write_text("7")
    assert file.read() == 7


def test_missing_file(path: Path) -> None:
    """Old content is not returned."""
    path.write_text("7")
    file = WatchedFile(path, Parser())
    assert file.read() == 7
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file.read()


def test_one_thread_parses(path: Path) -> None:
    """The others wait for it, and none gets the old content."""
    path.write_text("7")
    settle(path)
    begun, go = threading.Event(), threading.Event()
    parsed: list[bytes] = []

    def parse(raw: bytes) -> int:
        parsed.append(raw)
        begun.set()
        go.wait(10)
        return int(raw)

    file = WatchedFile(path, parse)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(file.read) for _ in range(8)]
        assert begun.wait(10)
        go.set()
        assert [each.result(10) for each in found] == [7] * 8
    assert parsed == [b"7"]
