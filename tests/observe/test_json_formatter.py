"""Messages as lines of JSON, of the form that the request log has."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml.observe.request_log import JsonFormatter
from flask_secure_ml.observe.request_log.lines import LONGEST_LINE
from support import HTTPS, caller


def record(message: str, *args: Any, exc_info: Any = None) -> logging.LogRecord:
    made = logging.LogRecord("flask_secure_ml.x", logging.WARNING, "x.py", 1, message, args or None, exc_info)
    made.created = 1_800_000_000.25
    return made


def test_the_line() -> None:
    """Time as in the request log, level, logger, process and message."""
    assert json.loads(JsonFormatter().format(record("%d parts are down", 2))) == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "WARNING",
        "logger": "flask_secure_ml.x",
        "process.pid": os.getpid(),
        "message": "2 parts are down",
    }


@pytest.mark.parametrize(
    "message",
    ["a\r\nb", "\x1b[31mred\x7f", "\u2028\u202e", "\udcff", "\N{GRINNING FACE}" * 3_000, '{"time":"0","status":200}'],
)
def test_nothing_breaks_the_line(message: str) -> None:
    """One line of ASCII for any message, which cannot imitate a line of the request log."""
    line = JsonFormatter().format(record(message))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= LONGEST_LINE
    assert json.loads(line)["logger"] == "flask_secure_ml.x"


def test_an_exception() -> None:
    """Its type and the end of its trace, without credentials."""
    try:
        int("sml_0123456789ab_c4n4ry eyJhbGciOi.c4n4ry.c4n4ry")
    except ValueError:
        line = JsonFormatter().format(record("sml_c4n4ry failed", exc_info=sys.exc_info()))
    found = json.loads(line)
    assert found["exception.type"] == "ValueError"
    assert found["exception.stacktrace"].endswith(": '[redacted] [redacted]'")
    assert "c4n4ry" not in line


@pytest.mark.parametrize("character", ["x", "\n", "\N{GRINNING FACE}", "\udcff"])
def test_a_long_trace(character: str) -> None:
    """As much of its end as fits into the line."""
    error = ValueError(character * 5_000 + "the end")
    line = JsonFormatter().format(record("failed", exc_info=(ValueError, error, None)))
    assert json.loads(line)["exception.stacktrace"].endswith(character * 100 + "the end")
    assert LONGEST_LINE - 24 <= len(line) <= LONGEST_LINE


def test_a_long_message_with_a_trace() -> None:
    """That leaves no space for it."""
    message = "\N{GRINNING FACE}" * 3_000
    line = JsonFormatter().format(record(message, exc_info=(ValueError, ValueError("failed"), None)))
    assert len(line) <= LONGEST_LINE
    assert json.loads(line)["exception.type"] == "ValueError"


def test_the_request_of_a_message(app: Flask) -> None:
    """A message within a request has its id."""
    lines = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Handler()
    handler.setFormatter(JsonFormatter())
    app.logger.addHandler(handler)

    @app.get("/x")
    def view() -> str:
        app.logger.warning("from the view")
        return "ok"

    response = app.test_client().get("/x", base_url=HTTPS, headers=caller())
    app.logger.removeHandler(handler)
    assert [json.loads(line)["request_id"] for line in lines] == [response.headers["X-Request-ID"]]
