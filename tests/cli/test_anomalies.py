"""``flask secure-ml anomalies``: scanning a log with the same signals, and the current scores of the workers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from audited_app import Audited
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
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
    """Time, signal, subject and explanation."""
    code, output = run(app, log)
    first, last = output.splitlines()
    assert code == 0
    assert first.endswith("  scanning    test:ada: 10 different URLs in an hour that do not exist or are not allowed")
    assert last == "requests: 12, anomalies: 1"


def test_files_are_merged(app: Flask, log: Path, tmp_path: Path) -> None:
    """By time, including compressed ones; lines that are not of a request are skipped."""
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
    assert run(app, odd)[1] == "requests: 6, anomalies: 0\n"


def test_a_name_for_a_terminal(app: Flask, log: Path) -> None:
    """Control characters in the log do not reach the terminal."""
    log.write_bytes(log.read_bytes().replace(b"test:ada", b"\\u001b[2Jada"))
    assert "\\x1b[2Jada" in run(app, log)[1]


@pytest.mark.parametrize("content", [b"", b"nothing\n", gzip.compress(b"x" * 9_999, mtime=0)[:30]])
def test_what_is_no_log(app: Flask, tmp_path: Path, content: bytes) -> None:
    """A sentence, no traceback."""
    path = tmp_path / "x"
    path.write_bytes(content)
    code, output = run(app, path)
    assert code == 1
    assert output.startswith("Error: ")
    assert run(app, tmp_path / "missing")[0] == 2


URI = "sqlite:{}/state.db"


@pytest.fixture
def audited(tmp_path: Path, clock: FakeClock) -> Audited:
    """An app that shares its state and blocks scanners, one of which is ada."""
    found = Audited(tmp_path, clock, STORE_URI=URI.format(tmp_path), ANOMALIES={"scanning": "block", "silence": "off"})
    found.app.add_url_rule("/x", "x", lambda: "ok")
    scan(found.app, "ada", 12)
    scan(found.app, "bob", 6)
    scan(found.app, "eve", 1)
    synced(found.app)
    return found


@pytest.fixture
def shared(audited: Audited) -> Flask:
    return audited.app


def scan(app: Flask, name: str, count: int) -> None:
    client = app.test_client()
    for n in range(count):
        client.get(f"/{name}{n}", base_url=HTTPS, headers=caller(name))


def synced(app: Flask) -> None:
    anomalies = state_of(app).anomalies
    assert anomalies is not None
    anomalies.sync()


def invoke(app: Flask, *words: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, ["anomalies", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_list(shared: Flask) -> None:
    """Rejected callers and those near a threshold; with --all everyone."""
    code, output = invoke(shared, "list", "--json")
    assert code == 0
    ada, bob = json.loads(output)
    assert (ada["subject"], ada["kind"]) == ("test:ada", "principal")
    assert ada["penalty"] == {
        "action": "block",
        "signal": "scanning",
        "since": ada["penalty"]["since"],
        "seconds_left": 3600,
        "strikes": 0,
    }
    assert (bob["subject"], bob["signal"], bob["score"], bob["penalty"]) == ("test:bob", "scanning", 0.6, None)
    assert bob["value"] == "different URLs in this hour that do not exist or are not allowed: 6"
    _, everyone = invoke(shared, "list", "--all", "--json")
    assert [each["subject"] for each in json.loads(everyone)] == ["test:ada", "test:bob", "test:eve"]
    headings, first, second = invoke(shared, "list")[1].splitlines()
    assert headings.split() == ["Subject", "Kind", "Signal", "Score", "Value", "Last", "anomaly", "Penalty"]
    assert first.startswith("test:ada")
    assert first.endswith("block, 3600 s")
    assert second.endswith("-")


def test_list_after_an_anomaly(tmp_path: Path, clock: FakeClock) -> None:
    """A caller is listed for an hour after an anomaly that caused no penalty, although its score begins again."""
    found = Audited(tmp_path, clock, STORE_URI=URI.format(tmp_path), ANOMALIES={})
    scan(found.app, "ada", 10)
    scan(found.app, "bob", 6)
    synced(found.app)
    ada, bob = json.loads(invoke(found.app, "list", "--json")[1])
    assert (ada["subject"], ada["last_anomaly"]["signal"]) == ("test:ada", "scanning")
    assert ada["score"] < bob["score"]
    assert (bob["subject"], bob["last_anomaly"]) == ("test:bob", None)
    _, first, second = invoke(found.app, "list")[1].splitlines()
    assert f"scanning, {ada['last_anomaly']['time']}" in first
    assert second.startswith("test:bob")
    clock.advance(3_600)
    assert "test:ada" not in invoke(found.app, "list")[1]
    assert "test:ada" in invoke(found.app, "list", "--all")[1]


def test_explain(shared: Flask) -> None:
    """Each signal with its values, action and time of the last anomaly."""
    code, output = invoke(shared, "explain", "test:ada", "--json")
    assert code == 0
    (ada,) = json.loads(output)
    assert (ada["kind"], ada["penalty"]["action"]) == ("principal", "block")
    assert set(ada["signals"]) == {"rate", "rejections", "scanning", "networks", "rows", "bytes", "regularity"}
    scanning = ada["signals"]["scanning"]
    assert (scanning["action"], scanning["history"]) == ("block", "unusual from 10")
    assert scanning["last"].startswith("20")
    assert ada["signals"]["rate"]["last"] is None
    assert ada["signals"]["rate"]["history"].startswith("not enough history")
    words = invoke(shared, "explain", "test:ada")[1].splitlines()
    assert words[0].startswith("principal test:ada: rejected since 20")
    assert words[0].endswith(" for scanning (block), 3600 s left")
    assert any("action observe; never unusual" in each for each in words)
    assert invoke(shared, "explain", "test:bob")[1].splitlines()[0] == "principal test:bob: not rejected"


def test_clear(audited: Audited, shared: Flask, clock: FakeClock) -> None:
    """The penalty ends in every process, ongoing traffic does not restore it, and the audit log has the operator."""
    client = shared.test_client()

    def status() -> int:
        return client.get("/x", base_url=HTTPS, headers=caller("ada")).status_code

    assert status() == 429
    assert invoke(shared, "clear", "test:ada") == (0, "cleared: test:ada\n")
    clock.advance(1)
    assert status() == 200
    assert invoke(shared, "clear", "test:ada") == (0, "test:ada has no penalty\n")
    assert json.loads(invoke(shared, "clear", "test:ada", "--json")[1]) == {"subject": "test:ada", "cleared": False}
    scan(shared, "ada", 30)
    assert status() == 200
    assert "cleared by an operator" in invoke(shared, "explain", "test:ada")[1]
    (record,) = audited.records("anomaly_cleared")
    assert (record["subject"], record["kind"]) == ("test:ada", "principal")
    assert record["user"]


@pytest.mark.parametrize("words", [["list"], ["explain", "test:ada"], ["clear", "test:ada"]])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "SECURE_ML_ANOMALIES is not set"),
        ({"ANOMALIES": {}}, "in the memory of each worker"),
        ({"ANOMALIES": {}, "STORE_URI": "valkey://127.0.0.1:1/0"}, "store"),
    ],
)
def test_what_a_user_can_do_wrong(protected: MakeApp, words: list[str], settings: dict[str, Any], message: str) -> None:
    """It is one sentence, and no traceback."""
    app = protected(**settings)
    for extra in ([], ["--json"]):
        code, output = invoke(app, *words, *extra)
        assert (code, output.startswith("Error: ")) == (1, True)
        assert message in output
        assert len(output.splitlines()) == 1


def test_an_unknown_principal(shared: Flask) -> None:
    """The message names the command that lists the known ones."""
    code, output = invoke(shared, "explain", "nobody")
    assert code == 1
    assert "unknown subject 'nobody'; see: flask secure-ml anomalies list --all" in output


def test_nothing_unusual(protected: MakeApp, tmp_path: Path) -> None:
    """A sentence, and an empty list."""
    app = protected(STORE_URI=URI.format(tmp_path), ANOMALIES={})
    assert invoke(app, "list") == (0, "No unusual traffic, and no penalties.\n")
    assert invoke(app, "list", "--json") == (0, "[]\n")
