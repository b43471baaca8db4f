"""One line per request, without secrets, payloads or terminal control characters."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Request, Response, send_file
from marshmallow import Schema

from flask_secure_ml import Exchange, Principal, SecureML, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.request_log.lines import LONGEST_LINE, line_of
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp, caller


def test_the_line(app: Flask, sink: MemorySink, clock: FakeClock) -> None:
    """The caller, time, request, duration and sizes."""

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
            "plan": "default",
            "http.route": "/predict/<name>",
            "http.response.body.size": 13,
            "limit": "requests-60s",
            "limit_remaining": 599,
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
        pytest.param("/%7f%1b]0;owned%07", id="delete, and the title of the terminal"),
        pytest.param("/" + "%f0%9f%98%80" * 300, id="characters whose escapes are longest"),
    ],
)
def test_nothing_breaks_the_line(app: Flask, sink: MemorySink, path: str) -> None:
    """Every line is ASCII without control characters and parses (STANDARDS P6)."""
    app.test_client().get(path, base_url=HTTPS)
    line = sink.lines[0]
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= LONGEST_LINE
    assert json.loads(line)["endpoint"] is None


def test_credentials_in_a_path_are_blacked_out(app: Flask, sink: MemorySink) -> None:
    """A key or token pasted into the path is not logged."""
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
    """stderr is the default; ``off`` disables the log."""
    app = Flask("logged")
    if where != "stderr":
        app.config["SECURE_ML_REQUEST_LOG"] = where
    SecureML(app)
    app.test_client().get("/1", base_url=HTTPS)
    out, err = capsys.readouterr()
    assert (out.count('"path":"/1"'), err.count('"path":"/1"')) == lines


def test_a_log_that_cannot_be_opened_stops_the_app(protected: MakeApp) -> None:
    """Better no service than one without a log."""
    with pytest.raises(ValueError, match="cannot be opened: the directory /no/such/folder does not exist"):
        protected(parts={"sink": None}, REQUEST_LOG="/no/such/folder/requests.jsonl")


def test_a_line_that_is_too_long_is_cut(app: Flask) -> None:
    """Every string and list in it is truncated, so that it is one write to a pipe; other lines are unmarked."""
    hostile = "\N{GRINNING FACE}" * 256
    logged = json.loads(line_of({"path": hostile, "reason": hostile, "pointers": [hostile] * 10, "status": 422}))
    assert logged == {"path": hostile[:32], "reason": hostile[:32], "pointers": [hostile[:32]] * 3, "status": 422} | {
        "cut": True
    }
    assert json.loads(line_of({"path": hostile, "message": "x" * 2_000})) == {
        "path": hostile[:200],
        "message": "x" * 200,
        "cut": True,
    }
    assert "cut" not in line_of({"path": "/"})


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


@pytest.mark.parametrize("quotas", [["100/day"], []], ids=["quota", "no_quota"])
def test_what_was_charged_and_what_is_left(protected: MakeApp, sink: MemorySink, quotas: list[str]) -> None:
    """Charged rows, whether or not a limit counts them, and the limit with the least share left.

    For a 429, the limit that rejected.
    """
    app = protected(PLANS={"default": {"requests": ["2/minute"], "quotas": quotas}})
    predict = protect(body=Rows, cost="instances")(lambda payload: "ok")
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])
    client = app.test_client()
    for rows in (3, 4, 1):
        client.post("/predict", base_url=HTTPS, headers=caller(), json={"instances": [[1, 2]] * rows})
    found = [(r["status"], r.get("rows"), r["limit"], r["limit_remaining"]) for r in sink.records]
    assert found == [(200, 3, "requests-60s", 1), (200, 4, "requests-60s", 0), (429, None, "requests-60s", 0)]


def test_pointers_without_values(protected: MakeApp, sink: MemorySink) -> None:
    """For a 422 at most ten positions are logged, and never the values."""
    app = protected()
    predict = protect(body=Rows)(lambda payload: "ok")
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])
    rows = [[1, "c4n4ry-value"], *[["c4n4ry-value", 1]] * 30]
    client = app.test_client()
    client.post("/predict", base_url=HTTPS, headers=caller(), json={"instances": rows})
    client.post(
        "/predict", base_url=HTTPS, headers=caller(), json={"instances": [[1, 2]], "a\r\n\x1b[31m\u202esml_c4n4ry_x": 1}
    )
    first, second = sink.records
    assert first["pointers"][0] == "/instances/0/1"
    assert len(first["pointers"]) <= 10
    assert second["pointers"] == ["/*"]
    assert all(line.isascii() and line.isprintable() and "c4n4ry" not in line for line in sink.lines)


class Long:
    """Authenticates everyone as a client with hostile names."""

    name = "test"
    challenge = "Test"

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return "x"

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        return Principal("jwt", "s\r\n\x7f" * 300, "https://as.example", client_id="\x1b]0;c\u2028" * 300)


def test_hostile_names_of_a_token(protected: MakeApp, sink: MemorySink) -> None:
    """The subject and the client of an issuer are cut and escaped too."""
    app = protected(parts={"authenticators": [Long()]})
    app.add_url_rule("/x", "x", protect(lambda: "ok"))
    app.test_client().get("/x", base_url=HTTPS)
    assert sink.lines[0].isascii()
    assert sink.lines[0].isprintable()
    assert len(sink.records[0]["principal"]) == len(sink.records[0]["client_id"]) == 256


def test_the_size_of_a_response(app: Flask, sink: MemorySink, tmp_path: Path) -> None:
    """Where it is known: not of a stream, nor of an error that replaced a response; HEAD has no body."""
    (tmp_path / "file").write_bytes(b"x" * 70)
    app.add_url_rule("/stream", "stream", public(lambda: Response(iter(["a", "b"]))))
    app.add_url_rule("/file", "file", public(lambda: send_file(tmp_path / "file")))
    app.add_url_rule("/text", "text", public(lambda: "\N{EURO SIGN}"))
    app.add_url_rule("/same", "same", public(lambda: ("not sent", 304)))
    client = app.test_client()
    for path in ("/stream", "/file", "/text", "/same"):
        client.get(path, base_url=HTTPS, buffered=True)
    client.head("/text", base_url=HTTPS)
    sizes = [(r["endpoint"], r.get("http.response.body.size")) for r in sink.records if "event" not in r]
    assert sizes == [("stream", None), ("file", 70), ("text", 3), ("same", None), ("text", None)]


@pytest.mark.parametrize(
    ("model", "logged"),
    [
        ({"name": "digits", "version": "3"}, {"model.name": "digits", "model.version": "3"}),
        ({"name": "digits"}, {"model.name": "digits"}),
    ],
)
def test_the_model(protected: MakeApp, sink: MemorySink, model: dict[str, str], logged: dict[str, str]) -> None:
    """SECURE_ML_MODEL is part of each line, and a metric."""
    app = protected(MODEL=model, METRICS="/metrics")
    app.test_client().get("/x", base_url=HTTPS)
    assert {name: value for name, value in sink.records[0].items() if name.startswith("model")} == logged
    labels = {"version": ""} | model
    assert app.extensions["secure_ml"].metrics.counters.registry.get_sample_value("secure_ml_model_info", labels) == 1


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 30, 90), (1.0, 240, 240)])
def test_sample(protected: MakeApp, sink: MemorySink, share: float, low: int, high: int) -> None:
    """SECURE_ML_REQUEST_LOG_SAMPLE is the share of 2xx responses with a line; errors always have one."""
    app = protected(REQUEST_LOG_SAMPLE=share)
    app.add_url_rule("/x", "x", public(lambda: "ok"))
    for _ in range(240):
        app.test_client().get("/x", base_url=HTTPS)
    for _ in range(10):
        app.test_client().get("/no", base_url=HTTPS)
    statuses = [record["status"] for record in sink.records]
    assert low <= statuses.count(200) <= high
    assert statuses.count(401) == 10


def test_the_lines_of_a_stream_are_sampled_together(protected: MakeApp, sink: MemorySink) -> None:
    """Both or none, but a broken stream always has its last one."""

    def broken() -> Iterator[str]:
        yield "a"
        raise RuntimeError

    app = protected(REQUEST_LOG_SAMPLE=0.5)
    app.add_url_rule("/stream", "stream", public(lambda: Response(iter(["a", "b"]))))
    app.add_url_rule("/broken", "broken", public(lambda: Response(broken())))
    for _ in range(100):
        app.test_client().get("/stream", base_url=HTTPS, buffered=True)
    counts = Counter(record["request_id"] for record in sink.records)
    assert 20 <= len(counts) <= 80
    assert set(counts.values()) == {2}
    sink.lines.clear()
    for _ in range(20):
        with pytest.raises(RuntimeError):
            app.test_client().get("/broken", base_url=HTTPS, buffered=True)
    assert [record["event"] for record in sink.records if "event" in record] == ["stream_end"] * 20
