"""The logs of a real server: a stderr that nobody reads, and requests that gunicorn itself rejects."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from flask_secure_ml.deploy.gunicorn_logger import JsonLogger, WithoutRequestData
from loggers import unchanged_loggers
from servers import accepts, free_port, gunicorn, wait_until

WORKERS = {"sync": (), "gthread": ("--threads", "4"), "gevent": ("--worker-class", "gevent")}


@contextmanager
def unread(folder: Path, environ: dict[str, str], *options: str) -> Iterator[tuple[int, int]]:
    """Serve with a pipe as stderr; yield the port and the end of the pipe that someone could read."""
    port = free_port()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "gunicorn", "served_app:create_app()", "--bind", f"127.0.0.1:{port}"]
    command += ["--chdir", str(Path(__file__).parents[1] / "shared"), "--worker-tmp-dir", str(folder)]
    command += ["--no-control-socket", "--log-level", "critical", *options]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=writer)
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


@pytest.mark.parametrize("kind", WORKERS)
def test_a_stderr_that_nobody_reads(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    """No request hangs in any worker, each line in the pipe is whole, and lines arrive again when someone reads."""
    with unread(tmp_path, environ, "--workers", "2", *WORKERS[kind]) as (port, reader):
        # Over several connections, so that each worker has a few.
        assert [get(port, 100) for _ in range(8)] == [{403}] * 8  # clear text: tls_required
        os.set_blocking(reader, False)
        received = drain(reader)
        assert 50_000 < len(received) <= 65_536
        assert all(record["code"] == "tls_required" for record in lines(received))
        assert len(lines(received)) == received.count(b"\n")
        again = b""

        def is_written_again() -> bool:
            nonlocal again
            assert get(port, 1) == {403}
            again += drain(reader)
            return b"the request log is written again; lines dropped: " in again

        wait_until(is_written_again, "the message")
    assert lines(again)


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
    """Its line is JSON as all others, without what the client sent."""
    before = len(served.log.read_bytes())
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
        plain.sendall(request_)
        assert plain.recv(100).startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))

    def rejected() -> list[Any]:
        found = lines(served.log.read_bytes()[before:])
        return [each for each in found if each["message"].startswith("Invalid request from ip=127.0.0.1: ")]

    wait_until(lambda: bool(rejected()), "the line")
    text = served.log.read_bytes()
    assert [line for line in text.splitlines() if not line.startswith(b'{"time":')] == []
    assert b"c4n4ry" not in text[before:]
    assert text.isascii()
    assert {"time", "level", "logger", "process.pid", "message"} == set(rejected()[0])
    assert (rejected()[0]["level"], rejected()[0]["logger"]) == ("WARNING", "gunicorn.error")


@pytest.fixture
def config() -> Iterator[Config]:
    with unchanged_loggers("gunicorn.error", "gunicorn.access"):
        yield Config()


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
