"""Sinks of the request log never delay requests, and every lost line is counted."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import SecureML, public
from flask_secure_ml.observe.request_log import RequestLog, open_log, open_sink
from flask_secure_ml.observe.request_log.drops import Drops
from flask_secure_ml.observe.request_log.streams import Sink, StreamSink, _take_back, standard_stream
from flask_secure_ml.testing import FakeClock
from forks import run_forking
from support import HTTPS, MakeApp


@pytest.fixture
def stream(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that makes a descriptor stderr, and returns the sink that writes there."""
    opened = []

    def sink_for(descriptor: int) -> StreamSink:
        opened.append(os.fdopen(descriptor, "w"))
        monkeypatch.setattr(sys, "stderr", opened[-1])
        return StreamSink(standard_stream("stderr"), clock)

    yield sink_for
    for each in opened:
        each.close()


def fill(sink: Sink) -> int:
    """Write until a line is rejected; return how many were written."""
    for count in range(100_000):
        try:
            sink.write(f"{count:500}")
        except BlockingIOError:
            return count
    raise AssertionError("nothing was rejected")


def lines_of(data: bytes) -> list[int]:
    return [int(line) for line in data.split(b"\n") if line]


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    parts = []
    try:
        while part := os.read(descriptor, 65_536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


def forbid_opening_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no ``/proc``, as a process that has changed its user cannot open what another user has open."""
    open_ = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: open_(str(path).replace("/proc/", "/none/"), *rest))


@pytest.mark.parametrize("way", ["opened again", "flag", "poll"])
def test_a_pipe_that_nobody_reads(stream: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are rejected, not waited for; every other one arrives whole, and the shared descriptor is not changed."""
    reader, writer = os.pipe()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    sink = stream(writer)
    if way != "opened again":
        forbid_opening_again(monkeypatch)
    if way == "poll":
        monkeypatch.delattr(os, "RWF_NOWAIT")
    written = fill(sink)
    assert written > 50
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags
    assert lines_of(drain(reader)) == list(range(written))
    sink.write("7")
    assert lines_of(drain(reader)) == [7]
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.write("8")


def test_a_socket_that_nobody_reads(stream: Any) -> None:
    """As systemd gives a service for its stderr."""
    ours, theirs = socket.socketpair()
    sink = stream(ours.detach())
    written = fill(sink)
    assert written > 10
    assert not fcntl.fcntl(sys.stderr.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    received = drain(theirs.fileno())
    while received.count(b"\n") < written:
        received += drain(theirs.fileno())
    sink.write("7")
    assert lines_of(received + drain(theirs.fileno())) == [*range(written), 7]
    theirs.close()


def test_a_terminal_that_is_stopped(stream: Any) -> None:
    """Ctrl-S on a terminal stops no request."""
    master, slave = pty.openpty()
    sink = stream(slave)
    assert fill(sink) > 2
    assert not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(master)


def test_streams_are_followed(stream: Any, clock: FakeClock, tmp_path: Path) -> None:
    """A server that puts another file under stderr, as gunicorn does to rotate its log, is followed within a second."""
    first, second = tmp_path / "1", tmp_path / "2"
    descriptor = os.open(first, os.O_WRONLY | os.O_CREAT)
    sink = stream(descriptor)
    sink.write("1")
    other = os.open(second, os.O_WRONLY | os.O_CREAT)
    os.dup2(other, descriptor)
    os.close(other)
    clock.advance(1)
    sink.write("2")
    assert (first.read_text(), second.read_text()) == ("1\n", "2\n")


def test_a_stream_that_is_closed(stream: Any, clock: FakeClock, tmp_path: Path) -> None:
    """Its descriptor may belong to another file, which must not be written to."""
    descriptor = os.open(tmp_path / "1", os.O_WRONLY | os.O_CREAT)
    sink = stream(descriptor)
    sink.write("1")
    sys.stderr.close()
    other = os.open(tmp_path / "2", os.O_WRONLY | os.O_CREAT)
    assert other == descriptor
    sink.write("2")
    clock.advance(1)
    with pytest.raises(OSError, match="stderr is closed"):
        sink.write("3")
    os.close(other)
    assert ((tmp_path / "1").read_text(), (tmp_path / "2").read_text()) == ("1\n2\n", "")


def test_a_named_pipe_without_a_reader(tmp_path: Path, clock: FakeClock) -> None:
    """The app does not start, rather than wait for one."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        open_sink(str(tmp_path / "fifo"), clock)


def test_a_file_that_cannot_be_opened_again(tmp_path: Path, clock: FakeClock) -> None:
    """Lines are lost while its folder is gone, and written once it is back."""
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = open_sink(str(folder / "log"), clock)
    assert sink is not None
    folder.rename(tmp_path / "moved")
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            sink.write("lost")
    folder.mkdir()
    sink.write("kept")
    assert (folder / "log").read_text() == "kept\n"


FORK = """
from flask_secure_ml.observe.request_log import open_sink
from flask_secure_ml.principal import SystemClock

reader, writer = os.pipe()
sink = open_sink(f"/dev/fd/{writer}", SystemClock())
sink.write("of the parent")
with sink._lock.get():
    pid = fork(lambda: sink.write("of the child"))
    ended(pid)
assert os.read(reader, 1000) == b"of the parent\\nof the child\\n"
"""


def test_a_fork_in_the_middle_of_a_line() -> None:
    """The lock of the log does not block the child, which repeats no data."""
    run_forking(FORK)


def test_a_line_is_written_whole(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system writes a part at a time."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    sink = open_sink(str(tmp_path / "log"), clock)
    assert sink is not None
    sink.write("a long line")
    assert (tmp_path / "log").read_text() == "a long line\n"


FULL_DISK = """
import json, resource, sys
from flask import Flask
from flask_secure_ml import SecureML, public

path, size = sys.argv[1], 3_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
app = Flask("full")
app.config.update(SECURE_ML_REQUEST_LOG=path, SECURE_ML_FAILED_AUTH_LIMITS=[], SECURE_ML_METRICS="/metrics")
app.config["SECURE_ML_PLANS"] = {"default": {"requests": []}}
SecureML(app)
app.add_url_rule("/x", "x", public(lambda: "ok"))
with open(path, "r+b") as log:
    log.write(b"\\n" * (size - 2_000))
client = app.test_client()
statuses = {client.get("/x", base_url="https://localhost").status_code for _ in range(50)}
full = open(path, "rb").read().count(b"http.route")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
client.get("/x", base_url="https://localhost")
lines = open(path, "rb").read().split()
dropped = app.extensions["secure_ml"].metrics.counters.registry.get_sample_value("secure_ml_log_dropped_lines_total")
print(json.dumps([sorted(statuses), full, len([json.loads(line) for line in lines]), dropped]))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Requests continue without a traceback; one message has the start and one the number of lost lines.

    No part of a line that did not fit is left in the file, where another process would write behind it.
    """
    (tmp_path / "log").touch()
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(tmp_path / "log")]
    done = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    statuses, full, whole, dropped = json.loads(done.stdout)
    assert statuses == [200]
    assert 1 < full < 50
    assert dropped == 50 + 1 - whole > 0
    assert done.stderr.splitlines() == [
        "the request log is dropping lines: OSError: File too large",
        f"the request log works again; dropped lines: {dropped:.0f}",
    ]


CLOSED = """
import os, sys
from flask import Flask
from flask_secure_ml import SecureML, public

assert sys.stderr is None
app = Flask("closed")
SecureML(app)
app.add_url_rule("/x", "x", public(lambda: "ok"))
mine = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
statuses = {app.test_client().get("/x", base_url="https://localhost").status_code for _ in range(5)}
print(mine, statuses, app.extensions["secure_ml"].pipeline.recorders[-1]._drops.total)
"""


def test_stderr_that_is_closed_from_the_beginning(tmp_path: Path) -> None:
    """As ``2>&-`` leaves it: lines are dropped, and the file that gets its number has none of them."""
    command = ["sh", "-c", 'exec "$0" -W ignore -c "$1" "$2" 2>&-', sys.executable, CLOSED, str(tmp_path / "mine")]
    done = subprocess.run(command, timeout=60, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "2 {200} 5\n"
    assert (tmp_path / "mine").read_bytes() == b""


class Failing:
    def __init__(self) -> None:
        self.works = False

    def write(self, line: str) -> None:
        if not self.works:
            raise ValueError(f"cannot write {line}")


def test_drops_are_reported_twice(clock: FakeClock, caplog: pytest.LogCaptureFixture, app: Flask) -> None:
    """When they begin and, with their number, when they end; a flapping sink is reported once a minute."""
    sink = Failing()
    log = RequestLog(sink, Drops(clock.monotonic))
    app.extensions["secure_ml"].pipeline.recorders[-1].__dict__.update(log.__dict__)
    client = app.test_client()

    def gets(count: int, *, works: bool) -> None:
        sink.works = works
        for _ in range(count):
            assert client.get("/x", base_url=HTTPS).status_code == 401

    gets(3, works=False)
    gets(2, works=True)
    gets(4, works=False)
    gets(1, works=True)
    clock.advance(60)
    gets(1, works=False)
    gets(1, works=True)
    begins = "the request log is dropping lines: ValueError"
    assert [record.getMessage() for record in caplog.records] == [
        begins,
        "the request log works again; dropped lines: 3",
        begins,
        "the request log works again; dropped lines: 5",
    ]


def test_a_message_does_not_wait_for_the_stream_that_is_full(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a beginning waits until there is space; the end comes with it."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        # The handlers of pytest take every message, also without a stream.
        logger = logging.getLogger("flask_secure_ml.observe.request_log.drops")
        monkeypatch.setattr(logger, "propagate", False)
        log = open_log("stderr", None, clock, 1.0)
        app = Flask("full")
        app.config["SECURE_ML_REQUEST_LOG"] = "stderr"
        SecureML(app, clock=clock)
        app.add_url_rule("/x", "x", public(lambda: "ok"))
        assert log is not None
        fill(log._sink)
        # To the last byte, so that not even a short message has space.
        for _ in range(5_000):
            with suppress(BlockingIOError):
                log._sink.write("")
        assert [app.test_client().get("/x", base_url=HTTPS).status_code for _ in range(3)] == [200] * 3
        drain(reader)
        app.test_client().get("/x", base_url=HTTPS)
        end = drain(reader).decode().splitlines()
    assert end[1:] == ["the request log works again; dropped lines: 3"]
    assert json.loads(end[0])["status"] == 200
    os.close(reader)


def test_dropped_lines_are_a_metric(protected: MakeApp) -> None:
    """``secure_ml_log_dropped_lines_total``, for any sink."""
    app = protected(METRICS="/metrics", parts={"sink": Failing()})
    app.test_client().get("/x", base_url=HTTPS)
    registry = app.extensions["secure_ml"].metrics.counters.registry
    assert registry.get_sample_value("secure_ml_log_dropped_lines_total") == 1


def test_the_mode_of_a_log_file(tmp_path: Path, clock: FakeClock) -> None:
    """Others cannot read it."""
    open_sink(str(tmp_path / "log"), clock)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(
    ("after", "own", "left"),
    [(b"", True, b"before\n"), (b"other\n", True, b"before\nmineother\n"), (b"", False, b"before\nmine")],
    ids=["the end", "behind which another process wrote", "of the parent"],
)
def test_a_part_of_a_line_in_a_file(tmp_path: Path, after: bytes, own: bool, left: bytes) -> None:
    """It is removed if it is at the end and of this process; lines of others are never cut."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"mine")
    with path.open("ab") as other:
        other.write(after)
    assert _take_back(descriptor, os.getpid() if own else os.getppid(), 4) is (left == b"before\n")
    os.close(descriptor)
    assert path.read_bytes() == left


FILE_OF_A_CHILD = """
import sys, tempfile
from pathlib import Path
from flask_secure_ml.observe.request_log.streams import StreamSink, file_of
from flask_secure_ml.testing import FakeClock

clock, path = FakeClock(), Path(tempfile.mkdtemp()) / "log"
sink = StreamSink(file_of(str(path)), clock, at_once=True)
sink.write("parent")
clock.advance(1)

def work():
    sink.write("child")
    # With a position of its own, the child knows whose end that of the file is.
    assert sink._open[0].take_back(len("child\\n"))
    sink.write("child")

ended(fork(work))
sink.write("parent")
assert path.read_text() == "parent\\nchild\\nparent\\n", path.read_text()
"""


def test_a_child_opens_the_file_again() -> None:
    """The inherited descriptor shares its position with the parent."""
    run_forking(FILE_OF_A_CHILD)
