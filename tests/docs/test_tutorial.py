"""The tutorial, walked as a reader walks it: configuration from the environment, a key from the command, a request."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from support import RANDOM_SECRET

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial/first_model.rst"
HTTPS = "https://localhost"
FLOWER = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return the secured app of the tutorial, with the environment that the tutorial sets."""
    monkeypatch.setenv("FLASK_APP", "app")
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    monkeypatch.setenv("FLASK_SECURE_ML_API_KEY_PEPPER", "env:PEPPER")
    monkeypatch.setenv("FLASK_SECURE_ML_API_KEYS", str(tmp_path / "keys.json"))
    (tmp_path / "app.py").write_text(secured_app())
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    exec(secured_app(), namespace)
    made = namespace["create_app"]()
    assert isinstance(made, Flask)
    return made


@pytest.fixture
def key(app: Flask, tmp_path: Path) -> str:
    """Run the command of the tutorial and return the key that it prints."""
    command = re.search(r"\$ flask (secure-ml keys create .*)", TUTORIAL.read_text())
    assert command
    printed = flask(tmp_path, command[1]).strip()
    assert re.fullmatch(r"sml_\w+", printed)
    return printed


def flask(folder: Path, arguments: str) -> str:
    command = [sys.executable, "-m", "flask", *shlex.split(arguments)]
    outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def secured_app() -> str:
    text = TUTORIAL.read_text()
    lines = text.partition(":class: complete\n\n")[2].splitlines()
    return "\n".join(line[3:] for line in _indented(lines))


def _indented(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line and not line.startswith("   "):
            return
        yield line


def test_the_key_opens_the_route(app: Flask, key: str) -> None:
    """The response to the tutorial's request is the one that the tutorial shows."""
    response = app.test_client().post("/v1/predict", json=FLOWER, headers={"X-API-Key": key}, base_url=HTTPS)
    assert response.status_code == 200
    assert response.get_json() == {"predictions": ["setosa"]}
    assert response.get_data(as_text=True).strip() in TUTORIAL.read_text()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b'{"instances": [[5.1, 3.5, 1.4]]}', 422, id="three-columns"),
        pytest.param(b'{"instances": [["a", 3.5, 1.4, 0.2]]}', 422, id="a-letter"),
        pytest.param(b'{"instances": [[NaN, 3.5, 1.4, 0.2]]}', 400, id="nan"),
    ],
)
def test_what_used_to_work_is_rejected(app: Flask, key: str, body: bytes, status: int) -> None:
    """Each input that the tutorial calls rejected is rejected, with its own status."""
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    response = app.test_client().post("/v1/predict", data=body, headers=headers, base_url=HTTPS)
    assert response.status_code == status


def test_strangers_are_rejected(app: Flask) -> None:
    """Without a key, over clear text and for an unknown address, the responses are those of the errors page."""
    client = app.test_client()
    assert client.post("/v1/predict", json=FLOWER, base_url=HTTPS).status_code == 401
    assert client.get("/nothing-here", base_url=HTTPS).status_code == 401
    assert client.post("/v1/predict", json=FLOWER, base_url="http://localhost").status_code == 403
    assert client.get("/healthz", base_url=HTTPS).status_code == 200


def test_commands_show_what_is_enforced(app: Flask, tmp_path: Path) -> None:
    """The two commands of the tutorial succeed; the first mentions the memory counters, as the text states."""
    assert "memory" in flask(tmp_path, "secure-ml check")
    assert "/v1/predict" in flask(tmp_path, "secure-ml routes")
