"""Files that an attacker has written: every command reads them to their end, and no terminal obeys them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import audit_attacks
from audit_attacks import Scene
from audit_logs import Site, stream_of
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.observe.audit.records import timestamp
from flask_secure_ml.testing import FakeClock

CORPUS = Path(__file__).parents[2] / "corpus/audit"
RECORDS = json.loads((CORPUS / "hostile_records.json").read_text())
LEAVES = json.loads((CORPUS / "hostile_leaves.json").read_text())


@pytest.fixture
def scene(tmp_path: Path, clock: FakeClock) -> Scene:
    return Scene(Site(tmp_path, clock))


def line_of(case: dict[str, Any], stream: str) -> bytes:
    times = case.get("times", 0)
    nested = case.get("opens", "") * times + "1" + case.get("closes", "") * times
    record: str = case["record"].replace("@", nested).replace("STREAM", stream)
    mac: bytes = (case["mac"].encode() * 64)[:64]
    return b'{"mac":"' + mac + b'","record":' + record.encode() + b"}\n"


def run(*words: object) -> Result:
    return CliRunner().invoke(secure_ml, ["audit", *map(str, words)], color=True)


def commands(scene: Scene, page: Path) -> list[tuple[object, ...]]:
    folder = scene.site.folder
    return [
        ("verify", folder, "--key", scene.site.key_file),
        ("verify", folder, "--key", scene.site.key_file, "--json"),
        ("show", folder),
        ("show", folder, "--json"),
        ("export", folder),
        ("export", folder, "--format", "cef"),
        ("report", folder, "--html", page),
    ]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: str(case["name"]))
def test_a_line_in_place_of_a_record(scene: Scene, tmp_path: Path, case: dict[str, Any]) -> None:
    """It is a finding; commands complete and print no control characters."""
    lines = scene.lines(scene.one)
    lines[audit_attacks.OLD] = line_of(case, stream_of(scene.one))
    scene.put(scene.one, lines)
    (fault,) = scene.site.verify().faults()
    assert fault.seq == audit_attacks.OLD
    for words in commands(scene, tmp_path / "page.html"):
        done = run(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        assert all(line.isprintable() for line in done.stdout.split("\n")), words
        assert not any(line.startswith("CEF:0|forged") for line in done.stdout.splitlines())


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf(scene: Scene, leaf: dict[str, Any]) -> None:
    """It is a finding."""
    time = timestamp(scene.site.clock.now())
    scene.add_leaf({"kind": "head", "mac": "0" * 64, "time": time, **leaf})
    faults = list(scene.site.verify(outside=False).faults())
    assert faults
    assert all(str(each).isprintable() for each in faults)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_something_else_in_place_of_a_file(scene: Scene, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """It does not block: if the index has the stream, the stream is missing."""
    make(scene.site.folder / "streams" / f"{'a' * 32}-000000.jsonl")
    scene.checkpoint()
    assert scene.site.verify().ok
    (path,) = scene.site.files(scene.one)
    path.unlink()
    make(path)
    assert [each.kind for each in scene.site.verify().faults()] == ["missing_stream"]
    for words in commands(scene, tmp_path / "page.html"):
        done = run(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words


@pytest.mark.parametrize("name", ["index.jsonl", "checkpoint"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_something_else_in_place_of_the_index(
    scene: Scene, tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    """It does not block: the file is missing."""
    (scene.site.folder / name).unlink()
    make(scene.site.folder / name)
    assert "missing_checkpoint" in [each.kind for each in scene.site.verify().faults()]
    for words in commands(scene, tmp_path / "page.html"):
        done = run(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
