"""A record that cannot be written: 503 or a signal, as configured, and never silence."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from audit_logs import IdleWriter, Site, append, kinds, stream_of
from audited_app import Audited
from flask_secure_ml import Exchange
from flask_secure_ml.signals import audit_unavailable
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from loggers import unchanged_loggers
from support import HTTPS, caller

SENT = "a secret"


class FullDisk:
    """Lets writes of records fail after a number of bytes, as a full disk does."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        write = os.write

        def limited(descriptor: int, data: bytes) -> int:
            if self.left is None:
                return write(descriptor, data)
            if not self.left:
                raise OSError(28, "No space left on device")
            done = write(descriptor, bytes(data)[: self.left])
            self.left -= done
            return done

        patch.setattr(os, "write", limited)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


@pytest.fixture
def unavailable() -> Iterator[list[str]]:
    found: list[str] = []

    def note(_sender: object, exchange: Exchange, reason: str) -> None:
        found.append(f"{exchange.status} {reason}")

    audit_unavailable.connect(note)
    yield found
    audit_unavailable.disconnect(note)


@pytest.mark.parametrize("left", [0, 100])
def test_required(tmp_path: Path, clock: FakeClock, disk: FullDisk, unavailable: list[str], left: int) -> None:
    """The response is replaced by a 503 without anything of it, until records can be written again."""
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=True)
    call = {"base_url": HTTPS, "headers": caller("ada", "predict"), "json": {"rows": [[1, 2]]}}
    assert audited.client.post("/predict/x", **call).status_code == 200
    disk.left = left
    response = audited.client.post("/predict/x", **call)
    assert (response.status_code, response.get_json()["code"]) == (503, "dependency_unavailable")
    assert response.headers["Retry-After"]
    assert "sums" not in response.text
    assert len(response.headers.getlist("Content-Length")) == 1
    assert unavailable == ["200 the audit log cannot be written: No space left on device"]
    assert audited.sink.records[-1]["status"] == 503
    disk.left = None
    assert audited.client.post("/predict/x", **call).status_code == 200
    assert [(each["action"], each.get("lost")) for each in audited.records()[-2:]] == [("gap", 1), ("request", None)]
    audited.log.close()
    audited.assert_verifies()


@pytest.mark.parametrize("path", ["/open", "/stream", "/crash", "/x"])
def test_required_for_every_response(tmp_path: Path, clock: FakeClock, disk: FullDisk, path: str) -> None:
    """Public ones, streams, errors and rejections too."""
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=True)
    audited.log.start()
    disk.left = 0
    response = audited.client.get(path, base_url=HTTPS)
    assert (response.status_code, response.get_json()["code"]) == (503, "dependency_unavailable")


def test_not_required(
    tmp_path: Path, clock: FakeClock, disk: FullDisk, unavailable: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The response leaves; the outage is logged once, each missing record is a signal, and their number is recorded."""
    audited = Audited(tmp_path, clock)
    audited.log.start()
    disk.left = 0
    with caplog.at_level(logging.WARNING, "flask_secure_ml.refresh.breaker"):
        assert [audited.client.get("/open", base_url=HTTPS).status_code for _ in range(3)] == [200] * 3
        disk.left = None
        assert audited.client.get("/open", base_url=HTTPS).status_code == 200
    assert len(unavailable) == 3
    assert [each.getMessage() for each in caplog.records if "checkpoints" not in each.getMessage()] == [
        "the audit log cannot be written: No space left on device",
        "the audit log is written again",
    ]
    assert audited.records("gap")[0]["lost"] == 3


def test_readiness(tmp_path: Path, clock: FakeClock, disk: FullDisk) -> None:
    """An app that needs its log and cannot write it is not ready, until it can: without any request."""
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=True)
    audited.client.get("/open", base_url=HTTPS)
    disk.left = 0
    audited.client.get("/open", base_url=HTTPS)
    readiness = state_of(audited.app).readiness
    assert readiness.problems() == ("audit log",)
    disk.left = None
    clock.advance(2)
    assert readiness.problems() == ()
    # The response, and the outage of the readiness itself.
    assert audited.records("gap")[0]["lost"] == 2
    assert audited.records()[-1]["message"] == "ready again: audit log"


def test_a_directory_that_is_gone(tmp_path: Path, clock: FakeClock) -> None:
    """No first record, no response."""
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=True)
    shutil.rmtree(audited.folder / "streams")
    assert audited.client.get("/open", base_url=HTTPS).status_code == 503
    (audited.folder / "streams").mkdir()
    assert audited.client.get("/open", base_url=HTTPS).status_code == 200


def test_a_bug_is_no_missing_record(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any error while a record is created, the response is not sent without it."""
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=True)

    def broken(*_source: object) -> dict[str, object]:
        raise ZeroDivisionError(SENT)

    monkeypatch.setattr("flask_secure_ml.observe.audit.log.members_of", broken)
    response = audited.client.get("/open", base_url=HTTPS)
    assert response.status_code == 503
    assert SENT not in response.text


@pytest.mark.parametrize("left", range(0, 700, 50))
def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, clock: FakeClock, disk: FullDisk, left: int) -> None:
    """Wherever the disk ends, in a record or at the beginning of a file: the part is removed."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 3, clock)
    disk.left = left
    with pytest.raises(OSError, match="No space left"):
        append([writer], 5, clock)
    stream = writer._stream
    assert stream is not None
    with pytest.raises(OSError, match="No space left"):
        stream._begin_segment({"action": "segment"})
    disk.left = None
    append([writer], 3, clock)
    writer.checkpoint()
    report = site.verify()
    assert report.ok
    assert report.findings == []


def test_a_part_that_cannot_be_removed(
    tmp_path: Path, clock: FakeClock, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process begins a new stream after it, and the part looks like the result of a crash."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 3, clock)
    stream = stream_of(writer)

    def broken(_descriptor: int, _size: int) -> None:
        raise OSError(5, "Input/output error")

    disk.left = 50
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match="Input/output error"):
            append([writer], 1, clock)
    disk.left = None
    append([writer], 3, clock)
    assert stream_of(writer) != stream
    writer.checkpoint()
    report = site.verify()
    assert (kinds(report), [each.kind for each in report.findings], report.streams) == ([], ["torn"], 2)


@pytest.mark.parametrize("written", [0, 50, 10_000])
def test_a_worker_that_is_stopped_in_the_middle_of_a_record(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """A signal handler that raises, as gunicorn's do, leaves no two records of one number."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 3, clock)
    write = os.write

    def stopped(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:written])
        raise SystemExit(1)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", stopped)
        with pytest.raises(SystemExit):
            append([writer], 1, clock)
    writer.close()
    assert site.verify(outside=False).streams == 2
    report = site.verify()
    assert kinds(report) == []
    assert {each.kind for each in report.findings} <= {"torn"}


FULL = """
import os, resource, sys, time
from pathlib import Path
sys.path.insert(0, {shared!r})
import logging
logging.disable()
from audited_app import Audited
from flask_secure_ml.principal import SystemClock
from support import HTTPS

audited = Audited(Path({base!r}), SystemClock(), AUDIT_REQUIRED=True, REQUEST_LOG="off", **{settings!r})
call = lambda: audited.client.get("/open", base_url=HTTPS).status_code
assert call() == 200
{fill}
found = [call() for _ in range(400)]
assert found[0] == 200 and found[-1] == 503, found
assert found == sorted(found), "once it is full, nothing leaves"
{free}
assert call() == 200
audited.log.close()
audited.assert_verifies()
assert sum(each["lost"] for each in audited.records("gap")) == found.count(503)
assert len(audited.records("request")) == 2 + found.count(200)
"""
LIMITED = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"
UNLIMITED = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"


def run_full(base: Path, fill: str, free: str, **settings: object) -> None:
    shared = str(Path(__file__).parents[2] / "shared")
    code = FULL.format(shared=shared, base=str(base), fill=fill, free=free, settings=settings)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The limit of the process on files (RLIMIT_FSIZE)."""
    run_full(tmp_path, LIMITED, UNLIMITED)


def test_a_real_full_disk(tmp_path: Path) -> None:
    """A file system of a few pages, if the tests may mount one."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mounted)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting is not allowed")
    try:
        fill = f"(Path({str(mounted)!r}) / 'ballast').write_bytes(bytes(65_536))"
        free = f"(Path({str(mounted)!r}) / 'ballast').unlink()"
        run_full(mounted, fill, free)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_an_end_that_cannot_be_written(
    tmp_path: Path, clock: FakeClock, disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Is logged, once; the next process finds the stream and adds its end."""
    audited = Audited(tmp_path, clock)
    audited.client.get("/open", base_url=HTTPS)
    disk.left = 0
    audited.log.close()
    audited.log.close()
    assert [each for each in caplog.messages if "could not be written" in each] == [
        f"the end of the audit log of process {os.getpid()} could not be written: No space left on device"
    ]
    disk.left = None
    clock.advance(60)
    after = Audited(tmp_path, clock)
    after.client.get("/open", base_url=HTTPS)
    after.log.checkpoint()
    after.log.close()
    assert "adopted" in (after.folder / "index.jsonl").read_text()
    after.assert_verifies()


def test_an_index_that_cannot_be_written(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a leaf is removed, recording continues, and the next checkpoint covers it."""
    site = Site(tmp_path, clock)
    writer: IdleWriter = site.writer()  # type: ignore[assignment]
    append([writer], 3, clock)
    writer.checkpoint()
    disk = FullDisk(monkeypatch)
    disk.left = 50
    with pytest.raises(OSError, match="No space left"):
        writer.checkpoint()
    disk.left = None
    append([writer], 3, clock)
    writer.checkpoint()
    report = site.verify()
    assert (kinds(report), report.leaves, report.records) == ([], 2, 7)


class Printed:
    """The output of logging if there is no handler."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._stream = StringIO()
        patch.setattr(logging, "lastResort", logging.StreamHandler(self._stream))
        for name in ("", "flask_secure_ml"):
            logging.getLogger(name).handlers = []

    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


@pytest.mark.parametrize("apps", [1, 2])
def test_messages_are_still_printed(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, apps: int
) -> None:
    """Without a logging configuration, messages are printed once, with an audit log too."""
    with unchanged_loggers("flask_secure_ml"):
        printed = Printed(monkeypatch)
        audited = [Audited(tmp_path / str(number), clock) for number in range(apps)]
        logging.getLogger("flask_secure_ml.refresh.breaker").error("the store is down")
        assert printed.lines() == ["the store is down"]
        assert [each.records("outage")[0]["message"] for each in audited] == ["the store is down"] * apps


@pytest.mark.parametrize("taker", ["", "flask_secure_ml", "flask_secure_ml.refresh"])
def test_messages_that_the_app_handles_are_not_printed(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, taker: str
) -> None:
    with unchanged_loggers("flask_secure_ml", "flask_secure_ml.refresh"):
        printed = Printed(monkeypatch)
        audited = Audited(tmp_path, clock)
        logging.getLogger(taker).addHandler(logging.NullHandler())
        logging.getLogger("flask_secure_ml.refresh.breaker").error("the store is down")
        assert printed.lines() == []
        assert len(audited.records("outage")) == 1
