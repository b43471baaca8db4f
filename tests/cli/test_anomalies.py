"""``flask secure-ml anomalies scan``: the same signals over a log."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from flask import Flask

from flask_secure_ml.cli import secure_ml
from support import HTTPS, MakeApp, caller


@pytest.fixture
def log(protected: MakeApp, tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    app = protected(REQUEST_LOG=str(path), parts={"sink": None})
    client = app.test_client()
    for n in range(12):
        client.get(f"/x{n}", base_url=HTTPS, headers=caller("ada"))
    return path


def run(app: Flask, *words: object) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, ["anomalies", "scan", *map(str, words)])
    return result.exit_code, result.output


def test_words(app: Flask, log: Path) -> None:
    """When, what, who, and why."""
    code, output = run(app, log)
    first, last = output.splitlines()
    assert code == 0
    assert first.endswith("  scanning    test:ada: 10 different URLs in an hour that do not exist or are not allowed")
    assert last == "12 requests, 1 anomalies"


def test_files_are_merged(app: Flask, log: Path, tmp_path: Path) -> None:
    """By time, compressed ones too, and what is no line of a request is skipped."""
    lines = log.read_bytes().splitlines(keepends=True)
    even, odd = tmp_path / "even.gz", tmp_path / "odd"
    even.write_bytes(gzip.compress(b"not JSON\n{broken\n[1]\n" + b"".join(lines[::2])))
    odd.write_bytes(b"".join(lines[1::2]))
    code, output = run(app, odd, even, "--json")
    found = json.loads(output)
    assert (code, found["requests"]) == (0, 12)
    (anomaly,) = found["anomalies"]
    assert (anomaly["signal"], anomaly["principal"]) == ("scanning", "test:ada")
    assert "network" not in anomaly
    assert run(app, odd)[1] == "6 requests, 0 anomalies\n"


def test_a_name_for_a_terminal(app: Flask, log: Path) -> None:
    """Nothing of the log reaches a terminal that it could obey."""
    log.write_bytes(log.read_bytes().replace(b"test:ada", b"\\u001b[2Jada"))
    assert "\\x1b[2Jada" in run(app, log)[1]


@pytest.mark.parametrize("content", [b"", b"nothing\n", gzip.compress(b"x" * 9_999)[:30]])
def test_what_is_no_log(app: Flask, tmp_path: Path, content: bytes) -> None:
    """A sentence, no traceback."""
    path = tmp_path / "x"
    path.write_bytes(content)
    code, output = run(app, path)
    assert code == 1
    assert output.startswith("Error: ")
    assert run(app, tmp_path / "missing")[0] == 2
