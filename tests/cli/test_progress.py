"""The progress of commands: drawn on a terminal only, and on standard error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

APP = """
from flask import Flask
from flask_secure_ml import SecureML

app = Flask("app")
SecureML(app)
"""
AN_ID = "0123456789abcdef"


@pytest.mark.parametrize("terminal", [True, False])
def test_why(tmp_path: Path, terminal: bool) -> None:
    """The bar reaches its end, the output stays as it is, and into a pipe nothing is drawn."""
    lines = [
        {"time": "2026-03-01T12:00:00.000+00:00", "request_id": f"{number:016x}", "client": "192.0.2.1", "status": 404}
        for number in range(5_000)
    ]
    lines.append(lines[-1] | {"request_id": AN_ID})
    (tmp_path / "log").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    output, drawn = run(tmp_path, "why", AN_ID, "--log", "log", terminal=terminal)
    assert "the 5001st rejected request of this client" in output
    assert ("Reading" in drawn, "100%" in drawn) == (terminal, terminal), drawn[-300:]


@pytest.mark.parametrize("terminal", [True, False])
def test_check(tmp_path: Path, terminal: bool) -> None:
    """A terminal has one line, which is erased at the end; a log has one for each check."""
    output, drawn = run(tmp_path, "check", "--online", terminal=terminal)
    assert "checking for" not in output
    begin, *probes = drawn.replace("\r\n", "\n").partition("Not checked: ")[0].split("checking for: ")
    assert begin == ("\r\x1b[K" if terminal else "")
    assert len(probes) > 5
    assert all(each.endswith("\r\x1b[K" if terminal else "\n") for each in probes), probes


def run(folder: Path, *words: str, terminal: bool) -> tuple[str, str]:
    """Return the output of a command, and its standard error on a terminal or a pipe."""
    (folder / "app.py").write_text(APP)
    reader, writer = pty.openpty()
    parts: list[bytes] = []
    thread = threading.Thread(target=read_all, args=[reader, parts])
    thread.start()
    done = subprocess.run(
        [sys.executable, "-m", "flask", "secure-ml", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=writer if terminal else subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(writer)
    thread.join(60)
    os.close(reader)
    return done.stdout, b"".join(parts).decode() if terminal else done.stderr


def read_all(reader: int, parts: list[bytes]) -> None:
    with suppress(OSError):
        # The end of a terminal is an error.
        while part := os.read(reader, 4096):
            parts.append(part)
