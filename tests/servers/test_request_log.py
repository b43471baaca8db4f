"""The logs of a real server: a stderr that is not read, and requests that gunicorn itself rejects."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from flask_secure_ml.deploy.gunicorn_logger import JsonLogger, WithoutRequestData
from flask_secure_ml.observe.audit.keys import make_keys
from loggers import unchanged_loggers
from servers import PATIENCE, accepts, free_port, gunicorn, wait_until

CAPACITY = 16_384
"""The capacity of the pipe in bytes: a quarter of the default, so that a quarter of the requests fill it."""

WORKERS = {"sync": (), "gthread": ("--threads", "4"), "gevent": ("--worker-class", "gevent")}


@contextmanager
def unread(folder: Path, environ: dict[str, str], *options: str, stream: str = "stderr") -> Iterator[tuple[int, int]]:
    """Serve with a pipe as a standard stream; yield the port and the read end of the pipe."""
    port = free_port()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CAPACITY)
    command = [sys.executable, "-m", "gunicorn", "served_app:create_app()", "--bind", f"127.0.0.1:{port}"]
    command += ["--chdir", str(Path(__file__).parents[1] / "shared"), "--worker-tmp-dir", str(folder)]
    command += ["--no-control-socket", "--log-level", "critical", *options]
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writer}
    process = subprocess.Popen(command, env=environ, **streams)
    os.close(writer)
    try:
        wait_until(lambda: accepts(port), "gunicorn")
        yield port, reader
    finally:
        process.terminate()
        process.wait(30)
        os.close(reader)


def get(port: int, count: int) -> set[int]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    statuses = set()
    for _ in range(count):
        connection.request("GET", "/healthz", headers={"Connection": "keep-alive"})
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    connection.close()
    return statuses


def drain(descriptor: int) -> bytes:
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(descriptor, 65_536):
            parts.append(part)
    return b"".join(parts)


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines() if line.startswith(b"{")]


def wait_for_report(reader: int, request: Callable[[], object]) -> None:
    """Send requests and read the stream until it has the number of dropped lines."""
    found = b""

    def is_reported() -> bool:
        nonlocal found
        request()
        found += drain(reader)
        return b"dropped lines that were not read: " in found

    wait_until(is_reported, "the message")


@pytest.mark.parametrize("kind", WORKERS)
def test_a_stderr_that_nobody_reads(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    """No request hangs, each line in the pipe is complete, and lines arrive again when it is read."""
    with unread(tmp_path, environ, "--workers", "2", *WORKERS[kind]) as (port, reader):
        # Over several connections, so that each worker has a few.
        assert [get(port, 25) for _ in range(8)] == [{403}] * 8  # clear text: tls_required
        os.set_blocking(reader, False)
        received = drain(reader)
        assert CAPACITY - 4_000 < len(received) <= CAPACITY
        assert all(record["code"] == "tls_required" for record in lines(received))
        assert len(lines(received)) == received.count(b"\n")
        again = b""

        def is_written_again() -> bool:
            nonlocal again
            assert get(port, 1) == {403}
            again += drain(reader)
            return b"the request log works again; dropped lines: " in again

        wait_until(is_written_again, "the message")
    assert lines(again)


MALFORMED = b"GET / HTTP/1.1\r\nno header\r\n\r\n"


@pytest.mark.parametrize("kind", WORKERS)
def test_strangers_while_nobody_reads_stderr(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    """Malformed requests, each with a log line, do not block, and the server still ends."""
    options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--log-level", "info", *WORKERS[kind])
    with unread(tmp_path, environ | {"TMPDIR": str(tmp_path)}, *options) as (port, reader):

        def malformed() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                plain.sendall(MALFORMED)
                return plain.recv(12)

        assert {malformed() for _ in range(200)} == {b"HTTP/1.1 400"}
        assert get(port, 1) == {403}
        os.set_blocking(reader, False)
        received = drain(reader)
        assert len(lines(received)) == received.count(b"\n")
        wait_for_report(reader, malformed)


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_warnings_that_nobody_reads(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    """A message of this package that a client causes, such as a block of its network, delays no request."""
    settings = {"FLASK_SECURE_ML_REQUIRE_TLS": "false", "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["5/minute"]'}
    options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "1", "--worker-class", kind)
    with unread(tmp_path, environ | {"TMPDIR": str(tmp_path), **settings}, *options) as (port, reader):
        assert get(port, 400) == {200}

        def guess() -> int:
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", "/whoami", headers={"X-API-Key": "sml_wrong"})
                with connection.getresponse() as response:
                    return response.status

        assert [guess() for _ in range(8)] == [401] * 5 + [429] * 3
        assert get(port, 10) == {200}
        os.set_blocking(reader, False)
        drain(reader)
        wait_for_report(reader, lambda: get(port, 1))


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_tracebacks_that_nobody_reads(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    """Views that fail, each with a traceback, delay no request of an app without a logging configuration."""
    settings = {"FLASK_SECURE_ML_REQUIRE_TLS": "false", "FLASK_SECURE_ML_POLICIES": '{"/crash": {"public": true}}'}
    options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "1", "--worker-class", kind)
    with unread(tmp_path, environ | {"TMPDIR": str(tmp_path), **settings}, *options) as (port, reader):

        def crash() -> int:
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", "/crash")
                with connection.getresponse() as response:
                    return response.status

        assert {crash() for _ in range(100)} == {500}
        os.set_blocking(reader, False)
        received = drain(reader)
        assert "Exception on /crash [GET]" in {each.get("message") for each in lines(received)}
        assert len(lines(received)) == received.count(b"\n")
        wait_for_report(reader, crash)


def test_checkpoints_that_nobody_reads(tmp_path: Path, environ: dict[str, str]) -> None:
    """They delay neither requests nor later checkpoints in the index nor the end of the server."""
    make_keys(tmp_path / "log", tmp_path / "verification.key", "tests/audit")
    settings = {
        "FLASK_SECURE_ML_REQUIRE_TLS": "false",
        "FLASK_SECURE_ML_REQUEST_LOG": "stdout",
        "FLASK_SECURE_ML_AUDIT_LOG": str(tmp_path / "log"),
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SINKS": '["stdout"]',
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SECONDS": "1",
    }
    options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "1", "--worker-class", "gevent")
    with unread(tmp_path, environ | {"TMPDIR": str(tmp_path), **settings}, *options, stream="stdout") as (port, reader):
        assert get(port, 400) == {200}
        index = tmp_path / "log/index.jsonl"
        known = index.read_bytes().count(b"\n")
        wait_until(lambda: get(port, 1) == {200} and index.read_bytes().count(b"\n") >= known + 3, "checkpoints")
        os.set_blocking(reader, False)
        found = b""

        def is_sent() -> bool:
            nonlocal found
            found += drain(reader)
            return found.count("\n\n\N{EM DASH} tests/audit ".encode()) >= known + 3

        wait_until(is_sent, "the checkpoints of the time without a reader")


HOSTILE = [
    pytest.param(b"GET /\x1b[31m?key=c4n4ry HTTP/1.1 x\r\n\r\n", id="request line"),
    pytest.param(b"G\xe2\x80\xaeT /c4n4ry HTTP/1.1\r\n\r\n", id="method"),
    pytest.param(b"GET / HTTP/1.1\r\nX-API-Key : c4n4ry\r\n\r\n", id="header name"),
    pytest.param(b"GET / HTTP/1.1\r\nX-API-Key: c4n4ry\x1b[31m\x00\r\n\r\n", id="header value"),
    pytest.param(b"GET /c4n4ry" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", id="414"),
    pytest.param(b"GET / HTTP/9.c4n4ry\r\n\r\n", id="version"),
    pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: c4n4ry\r\n\r\n", id="transfer coding"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("served")
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    with gunicorn(folder, None, environ, "-c", "python:flask_secure_ml.deploy.gunicorn", app="plain_site:app") as found:
        yield found


@pytest.mark.parametrize("request_", HOSTILE)
def test_what_gunicorn_rejects(served: Any, request_: bytes) -> None:
    """Its line is JSON like all others, without input of the client."""
    before = len(served.log.read_bytes())
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
        plain.sendall(request_)
        response = plain.recv(4096)
    assert response.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))

    def rejected() -> list[Any]:
        found = lines(served.log.read_bytes()[before:])
        return [each for each in found if each["message"].startswith("Invalid request from ip=127.0.0.1: ")]

    wait_until(lambda: bool(rejected()), "the line")
    text = served.log.read_bytes()
    assert [line for line in text.splitlines() if not line.startswith(b'{"time":')] == []
    assert b"c4n4ry" not in text[before:]
    assert text.isascii()
    (line,) = rejected()
    assert set(line) == {
        *("time", "level", "logger", "process.pid", "message"),
        *("client", "code", "request_id", "status"),
    }
    assert (line["level"], line["logger"], line["client"]) == ("WARNING", "gunicorn.error", "127.0.0.1")
    assert response.startswith(b"HTTP/1.1 %d " % line["status"])
    for name, header in (("request_id", b"X-Request-ID"), ("code", b"X-Error-Code")):
        assert b"\r\n%b: %b\r\n" % (header, line[name].encode()) in response


@pytest.fixture
def config() -> Iterator[Config]:
    last = logging.lastResort
    assert last is not None
    with unchanged_loggers("gunicorn.error", "gunicorn.access"):
        yield Config()
    last.setFormatter(None)


def test_the_options_of_gunicorn_hold(config: Config, tmp_path: Path) -> None:
    """The file of ``--error-logfile`` gets the lines, also after the configuration was read again."""
    config.set("errorlog", str(tmp_path / "log"))
    logger = JsonLogger(config)
    logger.warning("a %s", "message")
    replaced = list(logger.error_log.handlers)
    logger.setup(config)
    logger.warning("another")
    logger.debug("below the level")
    found = lines((tmp_path / "log").read_bytes())
    assert [(each["level"], each["message"]) for each in found] == [("WARNING", "a message"), ("WARNING", "another")]
    # gunicorn leaves the older file open.
    for handler in [*replaced, *logger.error_log.handlers]:
        handler.close()


def test_a_log_configuration_of_the_user_stays(config: Config) -> None:
    """``logconfig_dict`` has formatters of its own."""
    plain = {"formatters": {"generic": {"format": "plain %(message)s"}}}
    config.set("logconfig_dict", plain)
    logger = JsonLogger(config)
    (handler,) = logger.error_log.handlers
    assert handler.format(logging.makeLogRecord({"msg": "x"})) == "plain x"


def test_the_query_of_a_request_that_failed_in_gunicorn() -> None:
    """Its own line for an exception names the URI."""
    record = logging.makeLogRecord({"msg": "Error handling request %s %s", "args": ("GET", "/x?token=c4n4ry")})
    assert json.loads(WithoutRequestData().format(record))["message"] == "Error handling request GET /x"


PRINTING = """
import logging

from flask import Flask
from flask.logging import default_handler

from flask_secure_ml import SecureML, public


def create_app(own=False):
    if own:
        default_handler.setFormatter(logging.Formatter("own %(message)s"))
    app = Flask("printing")
    app.config["SECURE_ML_REQUIRE_TLS"] = False
    SecureML(app)

    @app.get("/crash")
    @public
    def crash():
        logging.getLogger("flask_secure_ml.refresh").error("the store is down")
        raise ValueError("c4n4ry")

    return app
"""


def crashed(folder: Path, create: str, *options: str) -> tuple[str, list[bytes]]:
    """Return the id of a request that crashed, and the lines that the server printed."""
    (folder / "printing_app.py").write_text(PRINTING)
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--chdir", str(folder), *options)
    with gunicorn(folder, None, environ, *options, app=f"printing_app:{create}") as served:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
        connection.request("GET", "/crash")
        response = connection.getresponse()
        assert response.status == 500
        connection.close()
        wait_until(lambda: b"ValueError" in served.log.read_bytes(), "the traceback")
        return response.headers["X-Request-ID"], served.log.read_bytes().splitlines()


@pytest.mark.parametrize("options", [("--preload",), WORKERS["gthread"]], ids=["preload", "gthread"])
def test_what_an_app_prints(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Without a logging configuration: messages of this package and tracebacks, as lines with the request's id."""
    request_id, printed = crashed(tmp_path, "create_app()", *options)
    found = [json.loads(line) for line in printed]
    of_request = [each for each in found if each.get("request_id") == request_id and "message" in each]
    assert [(each["level"], each["logger"], each["message"]) for each in of_request] == [
        ("ERROR", "flask_secure_ml.refresh", "the store is down"),
        ("ERROR", "printing", "Exception on /crash [GET]"),
    ]
    trace = of_request[1]["exception.stacktrace"]
    assert trace.startswith("Traceback ")
    assert trace.endswith("ValueError: c4n4ry")


def test_a_formatter_of_the_app_stays(tmp_path: Path) -> None:
    """On the handler that Flask prints with; before the app is loaded, the server sets its own."""
    _, printed = crashed(tmp_path, "create_app(own=True)", "--preload")
    assert b"own Exception on /crash [GET]" in printed


PACKAGE = "flask_secure_ml"

APP = """
import logging

def create_app():
    logging.getLogger("flask_secure_ml").error("the store is down")
    return lambda environ, start_response: []
"""


MISCONFIGURED = """
from flask import Flask
from flask_secure_ml import SecureML

def create_app():
    app = Flask(__name__)
    app.config["SECURE_ML_REALMS"] = "models"
    SecureML(app)
    return app
"""


def test_a_configuration_error(tmp_path: Path) -> None:
    """Its problems are in the message of the line, not only at the end of the traceback."""
    (tmp_path / "misconfigured_app.py").write_text(MISCONFIGURED)
    command = [sys.executable, "-m", "gunicorn", "misconfigured_app:create_app()", "--workers", "1"]
    command += ["-c", "python:flask_secure_ml.deploy.gunicorn", "--chdir", str(tmp_path), "--no-control-socket"]
    command += ["--bind", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE)
    assert done.returncode != 0
    (found,) = [each for each in lines(done.stderr) if "exception.type" in each]
    assert found["message"].startswith("Exception in worker process: flask-secure-ml is not configured safely:")
    assert "SECURE_ML_REALMS: is not known; did you mean SECURE_ML_REALM?" in found["message"]
    assert (found["level"], found["exception.type"]) == ("ERROR", "ConfigError")


def test_a_daemon_keeps_what_others_log(tmp_path: Path) -> None:
    """A daemon has no standard error, where Python prints messages without a logging configuration."""
    (tmp_path / "logging_app.py").write_text(APP)
    log, pid = tmp_path / "log", tmp_path / "pid"
    command = [sys.executable, "-m", "gunicorn", "logging_app:create_app()", "--bind", f"127.0.0.1:{free_port()}"]
    command += ["-c", "python:flask_secure_ml.deploy.gunicorn", "--chdir", str(tmp_path), "--workers", "1"]
    command += ["--daemon", "--pid", str(pid), "--error-logfile", str(log), "--no-control-socket"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and b"Booting worker" in log.read_bytes() and pid.exists(), "gunicorn")
        wait_until(lambda: b'"message":"the store is down"' in log.read_bytes(), "the message")
        found = {each["message"]: each for each in lines(log.read_bytes())}
        assert (found["the store is down"]["level"], found["the store is down"]["logger"]) == ("ERROR", PACKAGE)
    finally:
        wait_until(pid.exists, "the process id")
        os.kill(int(pid.read_text()), signal.SIGTERM)
        wait_until(lambda: not pid.exists(), "the end")
