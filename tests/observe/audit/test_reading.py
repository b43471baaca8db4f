"""Reading a log that is not verified: in the order of time, with few open files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from audit_logs import Site, append
from flask_secure_ml.observe.audit.reading import Skipped, follow, records_of, scan
from flask_secure_ml.observe.audit.records import Members
from flask_secure_ml.observe.audit.stream import StreamOptions
from flask_secure_ml.observe.trail import Trail
from flask_secure_ml.testing import FakeClock


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_line_without_an_end(tmp_path: Path, clock: FakeClock) -> None:
    """Records after a line that is too long are still shown and followed."""
    site = Site(tmp_path, clock)
    append([site.writer()], 3, clock)
    (path,) = (site.folder / "streams").iterdir()
    begun = path.read_bytes()

    def pause(_seconds: float) -> None:
        path.write_bytes(begun + b"x" * 140_000 + b"\n" + begun)

    assert next(follow(site.folder, pause))["action"] == "start"
    assert len(list(records_of(site.folder))) == 2 * len(begun.splitlines())


def test_one_process_after_another(tmp_path: Path, clock: FakeClock) -> None:
    """A log of many processes is read with as many open files as processes wrote at the same time."""
    site = Site(tmp_path, clock)
    for _ in range(20):
        writers = [site.writer(), site.writer()]
        append(writers, 3, clock)
        for each in writers:
            each.close()
        clock.advance(60)
    before = open_files()
    times, most = list[str](), 0
    for record in records_of(site.folder):
        times.append(record["time"])
        most = max(most, open_files() - before)
    assert times == sorted(times)
    assert len(times) == 20 * 2 * (1 + 1 + 3)
    assert most <= 3


def _of_records(folder: Path) -> Iterator[Members]:
    return records_of(folder)


def _of_scan(folder: Path) -> Iterator[Members]:
    return chain.from_iterable(records for _, records in scan(folder, Skipped(), lambda _: None))


def _of_trail(folder: Path) -> Iterator[Members]:
    trail = Trail({}, folder, lambda _: None)
    yield from trail._records(b"")
    assert trail.problems == {}


@pytest.mark.parametrize("read", [_of_records, _of_scan, _of_trail])
def test_files_that_the_app_deletes_meanwhile(
    tmp_path: Path, clock: FakeClock, read: Callable[[Path], Iterator[Members]]
) -> None:
    """A reader skips files that expire after it has listed them, and reads the others."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_bytes=4096))
    writer = site.writer()
    append([writer], 50, clock)
    records = read(site.folder)
    begun = next(records)
    first, second, *_ = site.files(writer)
    expired = len(second.read_bytes().splitlines())
    first.unlink()
    second.unlink()
    found = [begun, *records]
    assert (found[0]["action"], found[-1]["request_id"]) == ("start", "r49")
    assert len(found) == 50 + 2 + len(site.files(writer)) - expired
