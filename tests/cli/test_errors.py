"""A wrong configuration, from the command line: the list of problems, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flask_secure_ml.cli import secure_ml
from servers import free_port
from support import RANDOM_SECRET, MakeApp

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
    "SECURE_ML_TRUSTED_PROXIES: must be a list, not one string; write ['10.0.0.0/8']",
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


@pytest.mark.parametrize("words", [["check"], ["keys", "list"]], ids=" ".join)
def test_wrong_settings(tmp_path: Path, words: list[str]) -> None:
    """Each problem is a line, and the exit code says that it failed."""
    (tmp_path / "broken_app.py").write_text(APP.format(module_level="", route=""))
    done = run(tmp_path, *words, FLASK_SECURE_ML_REALM='"?"', FLASK_SECURE_ML_TRUSTED_PROXIES="10.0.0.0/8")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.removeprefix("  - ") for line in done.stderr.splitlines()[1:]] == PROBLEMS


def test_a_wrong_decorator(tmp_path: Path) -> None:
    """Also where the module of the app itself raises."""
    (tmp_path / "broken_app.py").write_text(APP.format(module_level="protect(scope=['predict'])", route=""))
    done = run(tmp_path, "routes")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == ["  - scope: is not known; did you mean scopes?"]


def test_a_policy_that_fits_no_route(tmp_path: Path) -> None:
    """The command itself finds it."""
    (tmp_path / "broken_app.py").write_text(APP.format(module_level="", route=""))
    done = run(tmp_path, "check", FLASK_SECURE_ML_POLICIES='{"/predct": {}}')
    assert (done.returncode, done.stdout) == (1, "")
    assert "'/predct', which is neither an endpoint nor a URL rule" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_down(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """``check`` reads the plans of the keys; a message says why it cannot."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(API_KEYS="store", API_KEY_PEPPER="env:PEPPER", STORE_URI=f"redis://127.0.0.1:{free_port()}")
    done = app.test_cli_runner().invoke(secure_ml, ["check"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the shared store failed")
