"""One line for each request; no secret, no payload, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from flask import Flask

from flask_secure_ml import SecureML, protect
from flask_secure_ml.observe.request_log import open_sink
from flask_secure_ml.testing import FakeClock, MemorySink
from forks import run_forking
from support import HTTPS, MakeApp, caller


def test_the_line(app: Flask, sink: MemorySink, clock: FakeClock) -> None:
    """Who, when, what, how long and how much."""

    @app.post("/predict/<name>")
    @protect
    def predict(name: str) -> str:
        clock.advance(0.25)
        return "secret answer"

    response = app.test_client().post(
        "/predict/digits?key=hidden", base_url=HTTPS, headers=caller("ada"), json={"rows": [3.14159]}
    )
    assert sink.records == [
        {
            "time": "2027-01-15T08:00:00.000+00:00",
            "request_id": response.headers["X-Request-ID"],
            "client": "127.0.0.1",
            "principal": "test:ada",
            "method": "POST",
            "endpoint": "predict",
            "status": 200,
            "code": None,
            "reason": None,
            "ms": 250.0,
            "bytes_in": 19,
        }
    ]


def test_rejections_have_code_and_reason(app: Flask, sink: MemorySink) -> None:
    """The private reason is in the log, and only there."""
    response = app.test_client().get("/x", base_url=HTTPS, headers=caller("bad"))
    assert "bad caller" not in response.text
    record = sink.records[0]
    assert (record["status"], record["code"], record["reason"]) == (401, "not_authenticated", "a bad caller")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/a%0d%0aINFO%20admin", id="line break"),
        pytest.param("/%1b%5b31mred", id="terminal colour"),
        pytest.param("/%e2%80%a8%e2%80%ae", id="line separator and right-to-left override"),
        pytest.param("/%ff%fe", id="not UTF-8"),
    ],
)
def test_nothing_breaks_the_line(app: Flask, sink: MemorySink, path: str) -> None:
    """Every line is ASCII without control characters and parses (STANDARDS P6)."""
    app.test_client().get(path, base_url=HTTPS)
    line = sink.lines[0]
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["endpoint"] is None


def test_credentials_in_a_path_are_blacked_out(app: Flask, sink: MemorySink) -> None:
    """A key or token that someone pasted into the path does not reach the log."""
    client = app.test_client()
    client.get("/sml_0123456789ab_secretsecret", base_url=HTTPS)
    client.get("/x/eyJhbGciOiJSUzI1NiJ9.eyJzdWIi.c2ln", base_url=HTTPS)
    assert [record["path"] for record in sink.records] == ["/[redacted]", "/x/[redacted]"]


def test_long_paths_are_cut(app: Flask, sink: MemorySink) -> None:
    """One request cannot fill the disk."""
    app.test_client().get("/" + "a" * 5000, base_url=HTTPS)
    assert len(sink.records[0]["path"]) == 256


def test_log_file(tmp_path: Path, clock: FakeClock) -> None:
    """SECURE_ML_REQUEST_LOG as a path: private, appended to, reopened a second after rotation at the latest."""
    path = tmp_path / "requests.jsonl"
    app = Flask("logged")
    app.config["SECURE_ML_REQUEST_LOG"] = str(path)
    SecureML(app, clock=clock)
    client = app.test_client()
    client.get("/1", base_url=HTTPS)
    older = path.rename(tmp_path / "requests.jsonl.1")
    client.get("/2", base_url=HTTPS)
    clock.advance(1)
    client.get("/3", base_url=HTTPS)
    assert [json.loads(line)["path"] for line in older.read_text().splitlines()] == ["/1", "/2"]
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == ["/3"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(("where", "lines"), [("stderr", (0, 1)), ("stdout", (1, 0)), ("off", (0, 0))])
def test_standard_streams(where: str, lines: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    """stderr is the default; ``off`` writes nothing."""
    app = Flask("logged")
    if where != "stderr":
        app.config["SECURE_ML_REQUEST_LOG"] = where
    SecureML(app)
    app.test_client().get("/1", base_url=HTTPS)
    out, err = capsys.readouterr()
    assert (out.count('"path": "/1"'), err.count('"path": "/1"')) == lines


def test_a_log_that_cannot_be_opened_stops_the_app(protected: MakeApp) -> None:
    """Better no service than one without a log."""
    with pytest.raises(ValueError, match="SECURE_ML_REQUEST_LOG cannot be opened"):
        protected(parts={"sink": None}, REQUEST_LOG="/no/such/folder/requests.jsonl")


FORK = """
import select
from flask_secure_ml.observe.request_log import open_sink
from flask_secure_ml.principal import SystemClock

reader, writer = os.pipe()
sink = open_sink(f"/dev/fd/{writer}", SystemClock())
threading.Thread(target=sink.write, args=["x" * 1_000_000], daemon=True).start()
# The pipe is too small for the line: the thread waits in the middle of it.
select.select([reader], [], [])
pid = fork(lambda: sink.write("of the child"))
received = b""
while b"of the child\\n" not in received or received.count(b"x") < 1_000_000:
    received += os.read(reader, 65_536)
assert received.count(b"\\n") == 2
ended(pid)
"""


def test_a_fork_in_the_middle_of_a_line() -> None:
    """The child is not blocked by the locks of the log and of its stream, and repeats nothing of the line."""
    run_forking(FORK)


def test_a_line_is_written_whole(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system writes a part at a time."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    sink = open_sink(str(tmp_path / "log"), clock)
    assert sink is not None
    sink.write("a long line")
    monkeypatch.undo()
    assert (tmp_path / "log").read_text() == "a long line\n"


def test_a_full_disk(clock: FakeClock) -> None:
    """It is an error, which the pipeline logs."""
    sink = open_sink("/dev/full", clock)
    assert sink is not None
    with pytest.raises(OSError, match="No space left"):
        sink.write("x")
