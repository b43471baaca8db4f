"""Files of a log: rotation, retention, dead processes, forks, and disk contents."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_logs import EVERY, Site, append, kinds, stream_of
from flask_secure_ml.observe.audit import index as index_module
from flask_secure_ml.observe.audit import retention, verify
from flask_secure_ml.observe.audit.index import INDEX, STATE, open_index
from flask_secure_ml.observe.audit.records import canonical, parse
from flask_secure_ml.observe.audit.stream import CLOSED, STREAMS, StreamOptions
from flask_secure_ml.observe.audit.writer import Writer
from flask_secure_ml.testing import FakeClock
from forks import run_forking

DAY = 86_400


def test_a_file_is_private(tmp_path: Path, clock: FakeClock) -> None:
    """Only its owner can read it."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 1, clock)
    writer.checkpoint()
    for path in (*site.files(writer), site.folder / INDEX):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation_by_size(tmp_path: Path, clock: FakeClock) -> None:
    """The chain continues in the next file; the previous one is closed."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_bytes=4096))
    writer = site.writer()
    append([writer], 50, clock)
    writer.checkpoint()
    files = site.files(writer)
    assert len(files) > 3
    assert all(path.stat().st_size < 5000 for path in files)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [CLOSED] * (len(files) - 1) + [0o600]
    report = site.verify()
    assert (report.findings, report.records) == ([], 50 + len(files))


def test_rotation_by_age(tmp_path: Path, clock: FakeClock) -> None:
    """Once a file is old enough, the next record begins another."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_seconds=60))
    writer = site.writer()
    append([writer], 1, clock)
    clock.advance(58)
    append([writer], 1, clock)
    assert len(site.files(writer)) == 1
    clock.advance(2)
    append([writer], 1, clock)
    assert len(site.files(writer)) == 2


def test_a_process_that_died(tmp_path: Path, clock: FakeClock) -> None:
    """Another one adds the end of its stream to the index, without the torn line, and closes its file."""
    site = Site(tmp_path, clock)
    dead, alive = site.writer(), site.writer()
    append([dead, alive], 5, clock)
    (path,) = site.files(dead)
    stream = stream_of(dead)
    dead.discard()
    with path.open("ab") as file:
        file.write(b'{"mac":"00')
    alive.checkpoint()
    leaves = [parse(line) for line in (site.folder / INDEX).read_bytes().splitlines()]
    assert [(each["seq"], each.get("adopted")) for each in leaves if each["stream"] == stream] == [(5, True)]
    assert stat.S_IMODE(path.stat().st_mode) == CLOSED
    assert [each.kind for each in site.verify().findings] == ["torn"]
    path.chmod(0o600)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert kinds(site.verify()) == ["truncated"]


def test_a_file_under_the_name_of_another_stream(tmp_path: Path, clock: FakeClock) -> None:
    """Is not added to the index, whose signature would speak for it."""
    site = Site(tmp_path, clock)
    dead, alive = site.writer(), site.writer()
    append([dead, alive], 3, clock)
    (path,) = site.files(dead)
    dead.discard()
    path.rename(path.with_name(f"{'0' * 32}-000000.jsonl"))
    alive.checkpoint()
    assert site.verify().leaves == 1
    assert kinds(site.verify()) == ["spliced"]


def test_strange_files(tmp_path: Path, clock: FakeClock) -> None:
    """Empty and foreign files do not stop verification; lines that are not records are reported."""
    site = Site(tmp_path, clock, retention=DAY)
    writer = site.writer()
    append([writer], 3, clock)
    streams = site.folder / STREAMS
    (streams / "notes.jsonl").write_text("hello\n")
    (streams / "a-000000.jsonl").touch()
    (streams / "b-000000.jsonl").write_text("hello\n")
    (streams / "c-000000.jsonl").symlink_to("nowhere")
    (streams / "d-000000.jsonl").write_text("hello\n")
    (streams / "d-000000.jsonl").chmod(CLOSED)
    writer.checkpoint()
    (streams / "c-000000.jsonl").unlink()
    assert kinds(site.verify()) == ["changed", "changed"]


def _retention(tmp_path: Path, clock: FakeClock) -> Site:
    """Return a log of 40 days with a retention of 10 days."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_seconds=DAY), retention=10 * DAY, every=DAY)
    first, second = site.writer(), site.writer()
    append([first], 2, clock)
    for _ in range(30):
        first.checkpoint()
        clock.advance(EVERY)
    first.close()
    for _ in range(40):
        append([second], 2, clock)
        second.checkpoint()
        clock.advance(DAY)
    return site


def test_retention(tmp_path: Path, clock: FakeClock) -> None:
    """Old covered files are deleted, which the verifier accepts if it knows the retention time."""
    site = _retention(tmp_path, clock)
    files = sorted((site.folder / STREAMS).iterdir())
    assert 9 <= len(files) <= 12
    assert {each.kind for each in site.verify(retention_days=10).findings} == {"retired"}
    assert "deleted" in kinds(site.verify(retention_days=11))
    assert "deleted" in kinds(site.verify())


def test_what_is_deleted_too_early_is_found(tmp_path: Path, clock: FakeClock) -> None:
    """Also in the middle, or other files."""
    site = _retention(tmp_path, clock)
    oldest = min((site.folder / STREAMS).iterdir())
    oldest.unlink()
    assert {"order", "missing_segment", "truncated"} & set(
        kinds(site.verify(retention_days=10, now=clock.now() + 2 * DAY))
    )


def test_what_no_checkpoint_covers_is_kept(tmp_path: Path, clock: FakeClock) -> None:
    """However old it is."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_seconds=DAY), retention=DAY)
    writer = site.writer()
    for _ in range(5):
        append([writer], 1, clock)
        clock.advance(DAY)
    assert len(site.files(writer)) == 5
    writer.checkpoint()
    assert len(site.files(writer)) == 5
    clock.advance(DAY)
    append([writer], 1, clock)
    writer.checkpoint()
    assert len(site.files(writer)) == 1


@pytest.mark.parametrize(("sync", "record", "checkpoint"), [("off", 0, 0), ("checkpoint", 0, 2), ("record", 1, 2)])
def test_sync(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, sync: str, record: int, checkpoint: int
) -> None:
    """``record`` waits for the disk with each record, ``checkpoint`` with each checkpoint: stream, then index."""
    site = Site(tmp_path, clock, stream=StreamOptions(sync))
    writer = site.writer()
    append([writer], 1, clock)
    writer.checkpoint()
    calls: list[str] = []
    fdatasync = os.fdatasync

    def noted(descriptor: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noted)
    append([writer], 1, clock)
    assert len(calls) == record
    calls.clear()
    writer.checkpoint()
    assert [Path(each).suffix for each in calls] == [".jsonl"] * checkpoint
    assert (not calls) or calls[-1].endswith(INDEX)


def test_processes_wait_for_the_index(tmp_path: Path, clock: FakeClock) -> None:
    """One at a time adds to it."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 1, clock)
    waiting = threading.Thread(target=writer.checkpoint)
    with open_index(site.folder, site.keys, sync=False) as index:
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        assert index.size == 0
    waiting.join(10)
    assert site.verify().leaves == 1


def test_an_index_that_is_locked_for_ever(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is given up, and the records stay."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 1, clock)
    monkeypatch.setattr(index_module, "PATIENCE", 0.01)
    with open_index(site.folder, site.keys, sync=False), pytest.raises(BlockingIOError):
        writer.checkpoint()


def _no_state(path: Path) -> None:
    path.unlink()


def _damaged_state(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _state_of_more(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"size":3', b'"size":4'))


def _state_of_others(path: Path) -> None:
    digest, _, state = path.read_bytes().partition(b"\n")
    members = parse(state)
    members["hashes"] = ["0" * 64 for _ in members["hashes"]]
    path.write_bytes(digest + b"\n" + canonical(members))


@pytest.mark.parametrize("damage", [_no_state, _damaged_state, _state_of_more, _state_of_others])
def test_what_the_index_needs_is_computed_again(
    tmp_path: Path, clock: FakeClock, damage: Callable[[Path], None]
) -> None:
    """If the auxiliary file is missing or does not match."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 1, clock)
    for _ in range(3):
        writer.checkpoint()
    damage(site.folder / STATE)
    writer.checkpoint()
    assert site.verify().leaves == 4
    assert site.verify().ok


def test_a_process_that_died_in_the_index(tmp_path: Path, clock: FakeClock) -> None:
    """Half a leaf is removed; a whole one that no checkpoint covers yet stays."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 1, clock)
    writer.checkpoint()
    leaf = writer._head()
    assert leaf is not None
    with open_index(site.folder, site.keys, sync=False) as index:
        index.add(leaf)
    with (site.folder / INDEX).open("ab") as file:
        file.write(b'{"half')
    assert [each.kind for each in site.verify().findings] == ["torn_index"]
    writer.checkpoint()
    report = site.verify()
    assert (report.findings, report.leaves) == ([], 3)


FORK = """
import gc, sys
from pathlib import Path
sys.path.insert(0, {shared!r})
from audited_app import Audited
from flask_secure_ml.principal import SystemClock
from support import HTTPS

audited = Audited(Path({base!r}), SystemClock(), REQUEST_LOG="off")
audited.client.get("/open", base_url=HTTPS)
parent = audited.log._writers.made()
key = parent._stream._key

def work():
    assert not any(key), "the key of the parent is overwritten in the child"
    assert parent._stream is None
    audited.client.get("/open", base_url=HTTPS)
    audited.log.close()

# A thread of the parent may be in the middle of a record.
with parent._lock:
    children = [fork(work) for _ in range(3)]
    for each in children:
        ended(each)
assert any(key)
audited.client.get("/open", base_url=HTTPS)
audited.log.close()
assert len({{each["stream"] for each in audited.records()}}) == 4
assert len(audited.records("request")) == 5
audited.assert_verifies()
"""


def test_forks(tmp_path: Path) -> None:
    """Each child has its own stream, separate from its parent's, as under gunicorn with ``preload_app``."""
    run_forking(FORK.format(shared=str(Path(__file__).parents[2] / "shared"), base=str(tmp_path)))


LOCKED = """
import sys
from pathlib import Path
sys.path.insert(0, {shared!r})
from audit_logs import Site, append
from flask_secure_ml.observe.audit.index import open_index
from flask_secure_ml.testing import FakeClock

site = Site(Path({base!r}), FakeClock())
reader, writer = os.pipe()

def wait():
    # A child that lives on, with everything that it inherited.
    os.close(writer)
    os.read(reader, 1)

with open_index(site.folder, site.keys, sync=False):
    child = fork(wait)
other = site.writer()
append([other], 1, site.clock)
began = time.monotonic()
other.checkpoint()
assert time.monotonic() - began < 5
os.close(writer)
ended(child)
"""


def test_a_fork_while_the_index_is_locked(tmp_path: Path) -> None:
    """The child does not keep the lock."""
    run_forking("import time" + LOCKED.format(shared=str(Path(__file__).parents[2] / "shared"), base=str(tmp_path)))


def test_a_process_starts_while_another_searches_for_dead_ones(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search does not hold the lock of a file that its writer has created and not yet locked."""
    site = Site(tmp_path, clock)
    one, two = site.writer(), site.writer()
    append([one], 3, clock)
    held: list[Any] = []
    create = os.open

    def searching(path: Path) -> bool:
        held.append(path.open("rb"))
        fcntl.flock(held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False

    def created(path: Any, *arguments: Any) -> int:
        descriptor = create(path, *arguments)
        if str(path).endswith("-000000.jsonl"):
            one.checkpoint()
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(retention, "is_in_use", searching)
        patch.setattr(os, "open", created)
        append([two], 3, clock)
    for each in held:
        each.close()
    one.checkpoint()
    two.checkpoint()
    assert site.verify().ok


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"kind":"head"}',
        b'{"kind":"head","seq":"x","stream":"@","time":"2026-01-01T00:00:00.000000Z"}',
        b'{"kind":"head","seq":9,"stream":"@","time":7}',
        b'{"kind":"head","seq":9,"stream":["@"],"time":7}',
    ],
)
def test_a_broken_index(tmp_path: Path, clock: FakeClock, line: bytes) -> None:
    """Whatever a disk or an attacker has put into it: checkpoints and retention continue, and it is reported."""
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_seconds=DAY), retention=10 * DAY, every=DAY)
    writer = site.writer()
    append([writer], 3, clock)
    writer.checkpoint()
    with (site.folder / INDEX).open("ab") as file:
        file.write(line.replace(b"@", stream_of(writer).encode()) + b"\n")
    for _ in range(14):
        clock.advance(DAY)
        append([writer], 3, clock)
        writer.checkpoint()
    assert len(site.files(writer)) < 14
    assert "bad_leaf" in kinds(site.verify(retention_days=10))


@pytest.mark.parametrize("size", [1.5, "1", None, -1, True, 10**30])
def test_a_broken_state(tmp_path: Path, clock: FakeClock, size: object) -> None:
    """The tree is computed again from the index."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 3, clock)
    writer.checkpoint()
    state = json.dumps({"hashes": [], "size": size, "end": 0}).encode()
    (site.folder / STATE).write_bytes(hashlib.sha256(state).hexdigest().encode() + b"\n" + state)
    writer.checkpoint()
    assert site.verify().ok


class _Deleting:
    """Deletes old files at a given moment of a verification."""

    def __init__(self, clock: FakeClock, writer: Writer) -> None:
        self._clock = clock
        self._writer = writer
        self.deletes = True

    def __call__(self, *_: object) -> None:
        if self.deletes:
            self.deletes = False
            self._clock.advance(2 * DAY)
            append([self._writer], 1, self._clock)
            self._writer.checkpoint()


def _retired_while_verified(tmp_path: Path, clock: FakeClock) -> tuple[Site, _Deleting, Callable[[], int]]:
    site = Site(tmp_path, clock, stream=StreamOptions("off", rotate_seconds=DAY), retention=10 * DAY, every=DAY)
    writer = site.writer()
    for _ in range(12):
        append([writer], 3, clock)
        writer.checkpoint()
        clock.advance(DAY)
    return site, _Deleting(clock, writer), lambda: len(site.files(writer))


@pytest.mark.parametrize("when", ["check_heartbeats", "_files"])
def test_retention_while_a_log_is_verified(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Files that the app deletes after the index was read, or the files listed, are not reported."""
    site, delete, count = _retired_while_verified(tmp_path, clock)
    before, original = count(), getattr(verify, when)

    def interrupted(*arguments: Any) -> Any:
        found = original(*arguments)
        delete()
        return found

    monkeypatch.setattr(verify, when, interrupted)
    report = site.verify(retention_days=10, now=clock.now() + 2 * DAY)
    assert count() < before
    assert not delete.deletes
    assert {each.kind for each in report.findings} == {"retired"}


def test_what_somebody_deletes_while_a_log_is_verified(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that someone else deletes is reported, even if the app deletes older files meanwhile."""
    site, delete, _ = _retired_while_verified(tmp_path, clock)
    name = "check_heartbeats"
    original = getattr(verify, name)

    def interrupted(*arguments: Any) -> None:
        original(*arguments)
        delete()
        sorted((site.folder / STREAMS).iterdir())[2].unlink()

    monkeypatch.setattr(verify, name, interrupted)
    assert "missing_segment" in kinds(site.verify(retention_days=10, now=clock.now() + 2 * DAY))
