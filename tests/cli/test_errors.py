"""A wrong configuration, from the command line: the list of problems, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.cli.context import mistakes_as_messages
from flask_secure_ml.refresh import sentence_of

APP = """
from flask import Flask
from flask_secure_ml import SecureML, protect

{module_level}
def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    SecureML(app)
    {route}
    return app
"""
PROBLEMS = [
    'SECURE_ML_TRUSTED_PROXIES: must be a list, not one string; write ["10.0.0.0/8"]',
    "SECURE_ML_REALM: must be 1 to 64 letters, digits, spaces or ._-, not '?'",
]


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "broken_app", "secure-ml", *words],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [["routes"], ["keys", "list"]], ids=" ".join)
def test_wrong_settings(tmp_path: Path, words: list[str]) -> None:
    """Each problem is one line, and the exit code signals failure."""
    (tmp_path / "broken_app.py").write_text(APP.format(module_level="", route=""))
    done = run(tmp_path, *words, FLASK_SECURE_ML_REALM='"?"', FLASK_SECURE_ML_TRUSTED_PROXIES="10.0.0.0/8")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.removeprefix("  - ") for line in done.stderr.splitlines()[1:]] == PROBLEMS


def test_a_wrong_decorator(tmp_path: Path) -> None:
    """Also where the module of the app itself raises; the message has the line."""
    (tmp_path / "broken_app.py").write_text(APP.format(module_level="protect(scope=['predict'])", route=""))
    done = run(tmp_path, "routes")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == ["  - scope: is not known; did you mean scopes? (broken_app.py, line 5)"]


COMMANDS_THAT_NEED = [
    (["keys", "list"], "SECURE_ML_API_KEYS"),
    (["revocations", "list"], "SECURE_ML_STORE_URI"),
    (["limits", "list"], "SECURE_ML_STORE_URI"),
    (["anomalies", "list"], "SECURE_ML_ANOMALIES"),
]


@pytest.mark.parametrize(("words", "setting"), COMMANDS_THAT_NEED, ids=["keys", "revocations", "limits", "anomalies"])
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("prefix", ["FLASK_", ""])
def test_a_variable_that_is_not_read(
    monkeypatch: pytest.MonkeyPatch, words: list[str], setting: str, read: bool, prefix: str
) -> None:
    """The message explains why a variable in the environment did not reach the app."""
    app = Flask("model_app")
    if read and setting == "SECURE_ML_STORE_URI":
        app.config[setting] = "memory:"
    SecureML(app)
    if not read:
        monkeypatch.setenv(f"{prefix}{setting}", "x")
    result = app.test_cli_runner().invoke(secure_ml, words)
    assert result.exit_code == 1
    assert setting in result.stderr
    hints = [f"; FLASK_{setting} is not read: call app.config.from_prefixed_env() before init_app"]
    hints += [f"; the variable must be FLASK_{setting}"]
    assert [each in result.stderr for each in hints] == [not read and bool(prefix), not read and not prefix]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", "/nowhere/x"), "the directory /nowhere does not exist"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no lock"), "no lock"),
        (ValueError("two"), "two"),
    ],
)
def test_what_the_system_says(error: Exception, sentence: str) -> None:
    """The message has the file and the reason, without the error number."""
    assert sentence_of(error) == sentence
    with pytest.raises(click.ClickException) as caught, mistakes_as_messages():
        raise error
    assert caught.value.message == sentence
