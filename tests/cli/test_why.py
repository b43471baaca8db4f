"""``flask secure-ml why``: the explanation of one request."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, Response, abort
from marshmallow import Schema

from flask_secure_ml import protect, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.inputs import Tensor
from support import HTTPS, MakeApp, caller

Run = Callable[..., Result]


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


@pytest.fixture
def logged(protected: MakeApp, log: Path) -> Flask:
    app = protected(
        REQUEST_LOG=str(log),
        REQUEST_LOG_SAMPLE=0.5,
        PLANS={"default": {"requests": ["4/minute"], "quotas": ["50/day"]}},
        TRUSTED_PROXIES=["127.0.0.0/8"],
        parts={"sink": None},
    )
    predict = protect(body=Rows, cost="instances")(lambda payload: {"ok": True})
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])

    @app.get("/own/<kind>")
    @public
    def own(kind: str) -> Response:
        if kind == "text":
            abort(400, "feature x is missing")
        if kind == "crash":
            abort(500, "the model is gone")
        return Response(iter(["a", "b"]), status=299 if kind == "stream" else 404)

    return app


@pytest.fixture
def run(logged: Flask) -> Run:
    return lambda *words, **options: logged.test_cli_runner().invoke(secure_ml, ["why", *words], **options)


def call(app: Flask, method: str, path: str, name: str = "ada", **options: Any) -> str:
    response = app.test_client().open(
        path, method=method, base_url=HTTPS, headers=caller(name), buffered=True, **options
    )
    return response.headers["X-Request-ID"]


def told(result: Result) -> dict[str, str]:
    assert result.exit_code == 0, result.output
    return dict(line.split(":", 1) for line in result.output.splitlines())


def test_a_rejected_body(logged: Flask, run: Run) -> None:
    """The caller, the request, the reason, its location and the response."""
    for _ in range(3):
        call(logged, "GET", "/own/text")
    request_id = call(logged, "POST", "/predict", json={"instances": [[1, "c4n4ry"]]})
    result = run(request_id)
    found = {name: text.strip() for name, text in told(result).items()}
    assert found["Time"].startswith("20")
    assert found["Who"] == "test:ada, plan default, from 127.0.0.1"
    assert found["What"].startswith("POST /predict, ")
    assert found["Result"].startswith("422 validation_failed after ")
    assert found["Why"] == "the schema found 1 error"
    assert found["Where"] == "/instances/0/1"
    assert found["Client"].startswith('saw 422 validation_failed: "')
    assert found["Client"].endswith('" and the invalid fields of the body')
    assert "c4n4ry" not in result.output


def test_a_limit(logged: Flask, run: Run) -> None:
    """Which one rejected the request."""
    ids = [call(logged, "POST", "/predict", json={"instances": [[1, 2]]}) for _ in range(5)]
    found = told(run(ids[-1]))
    assert found["Limit"].strip() == "requests-60s, 0 left"
    assert "429 rate_limited" in found["Client"]


@pytest.mark.parametrize(
    ("kind", "saw"),
    [
        ("text", 'saw 400 malformed_request: "feature x is missing"'),
        ("other", "saw the response of the app"),
        ("crash", 'saw 500 internal_error: "'),
    ],
)
def test_errors_of_the_app(logged: Flask, run: Run, kind: str, saw: str) -> None:
    """The text that the app wrote for the client; of a 5xx the client saw none."""
    found = told(run(call(logged, "GET", f"/own/{kind}")))
    assert found["Client"].strip().startswith(saw)
    assert "the model is gone" not in found["Client"]


def test_a_stream(logged: Flask, run: Run) -> None:
    """It has a second line, for its end."""
    for number in range(60):
        # Half of them have a line, and each address has a limit.
        place = {"REMOTE_ADDR": f"192.0.2.{number}"}
        result = run(call(logged, "GET", "/own/stream", environ_overrides=place))
        if result.exit_code == 0:
            break
    assert told(result)["Stream"].strip().startswith("ended normally, ")


def test_rotated_files(logged: Flask, run: Run, log: Path) -> None:
    """Files rotated and compressed by logrotate are read too; --log selects another file."""
    request_id = call(logged, "POST", "/predict", json={})
    data = log.read_bytes()
    log.write_bytes(b"")
    for name, content in ((".1", b"{}\n"), (".2.gz", gzip.compress(data)), ("-20270115", b"not a log\n")):
        log.with_name(log.name + name).write_bytes(content)
    assert "422" in told(run(request_id))["Result"]
    other = log.with_name("other")
    other.write_bytes(b"Jan 15 host gunicorn[7]: " + data)
    for path in log.parent.glob(f"{log.name}*"):
        path.unlink()
    assert "422" in told(run(request_id, "--log", str(other)))["Result"]
    assert "422" in told(run(request_id, "--log", "-", input=data))["Result"]


def test_json(logged: Flask, run: Run) -> None:
    """The records as they are, and the client's response."""
    request_id = call(logged, "POST", "/predict", json={})
    found = json.loads(run(request_id, "--json").output)
    (request,) = found["requests"]
    assert (found["request_id"], request["log"]["status"], request["audit"]) == (request_id, 422, None)
    assert request["client_saw"].startswith("422 validation_failed")


def test_a_message_of_the_request(logged: Flask, run: Run, log: Path) -> None:
    """Messages with its id, which the JSON formatter wrote into the same file."""
    request_id = call(logged, "POST", "/predict", json={})
    with log.open("a") as file:
        message = {"level": "ERROR", "logger": "app", "message": "\x1b[31mred", "request_id": request_id}
        file.write(json.dumps(message) + "\n")
    assert told(run(request_id))["Message"].strip() == "ERROR app: \\x1b[31mred"


def test_not_found(logged: Flask, run: Run, log: Path) -> None:
    """Exit code 1 and a message; a part of an id does not match."""
    request_id = call(logged, "POST", "/predict", json={})
    log.with_name(log.name + ".1").write_bytes(b"")
    log.with_name(log.name + ".2.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    result = run(request_id[:-1])
    assert result.exit_code == 1
    assert f"request {request_id[:-1]} is not in {log} and 1 older file; only 0.5 of the 2xx" in result.output
    assert f"{log}.2.gz could not be read (its compression is damaged" in result.output
    result = run("\x1b[31m", "--log", "-", input=b"{}")
    assert result.exit_code == 1
    assert result.output.startswith("Error: request \\x1b[31m is not in standard input; only 0.5 of ")
    assert run("x", "--log", "/no/such/log").output == "Error: the log file /no/such/log cannot be read\n"


@pytest.mark.parametrize("where", ["stderr", "logging:x"])
def test_a_log_that_is_no_file(protected: MakeApp, where: str) -> None:
    """The message has a remedy."""
    result = protected(REQUEST_LOG=where).test_cli_runner().invoke(secure_ml, ["why", "x"])
    assert (result.exit_code, "--log FILE" in result.output) == (1, True)


HOSTILE = ["/%1b%5b31m", "/%0d%0aResult:%20200", "/%e2%80%ae%e2%80%a8", "/%7f", "/%ff%fe"]


@pytest.mark.parametrize("path", HOSTILE)
def test_nothing_that_a_client_sent_is_obeyed(logged: Flask, run: Run, path: str) -> None:
    """The terminal gets escapes, and no line is forged (STANDARDS P6)."""
    output = run(call(logged, "GET", path)).output
    assert output.isascii()
    assert all(line.isprintable() for line in output.splitlines())
    assert [line.split(":")[0] for line in output.splitlines()].count("Result") == 1


def test_a_line_that_is_no_object(logged: Flask, run: Run, log: Path) -> None:
    """Other lines of the file are skipped, whatever they are."""
    request_id = call(logged, "POST", "/predict", json={})
    data = log.read_text()
    lines = [
        f'[{{"request_id":"{request_id}"',
        f"{request_id} {{",
        f'"{request_id}" {{"a":1}}',
        f'{{"x":"{request_id}"}}',
    ]
    log.write_text("\n".join([*lines, data]))
    assert "422" in told(run(request_id))["Result"]


@pytest.mark.parametrize("member", ["ms", "status", "duration_us"])
def test_a_number_that_no_machine_holds(run: Run, log: Path, member: str) -> None:
    """Its line is none of a log."""
    line = {"request_id": "big", "status": 200, "time": "2027-01-15T08:00:00+00:00", "x": float("nan")}
    log.write_text(json.dumps(line | {member: 10**400}) + "\n" + json.dumps(line | {"event": "stream_end"}) + "\n")
    done = run("big", "--log", str(log))
    assert isinstance(done.exception, SystemExit)
    assert "request big is not in" in done.output
