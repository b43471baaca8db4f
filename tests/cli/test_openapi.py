"""``flask secure-ml openapi``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from described_app import add_routes
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.openapi import build_document
from support import MakeApp


def test_it_prints_the_description(protected: MakeApp) -> None:
    """Whether it is served or not, the whole document comes out as JSON."""
    app = add_routes(protected())
    done = app.test_cli_runner().invoke(secure_ml, ["openapi"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == json.loads(json.dumps(build_document(app)))


def test_it_writes_a_file(protected: MakeApp, tmp_path: Path) -> None:
    """With --output the same document replaces the content of a file, and nothing is printed."""
    app = add_routes(protected())
    file = tmp_path / "openapi.json"
    file.write_text("x" * 1_000_000)
    done = app.test_cli_runner().invoke(secure_ml, ["openapi", "--output", str(file)])
    assert (done.exit_code, done.output) == (0, "")
    assert file.read_text() == app.test_cli_runner().invoke(secure_ml, ["openapi"]).output


def test_a_file_that_cannot_be_written(protected: MakeApp, tmp_path: Path) -> None:
    """The message names it, without a traceback."""
    done = protected().test_cli_runner().invoke(secure_ml, ["openapi", "--output", str(tmp_path / "no" / "x.json")])
    assert done.exit_code != 0
    assert "x.json" in done.output


def test_the_package_is_missing(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the install command, and an existing file is not changed."""
    app = protected()
    file = tmp_path / "openapi.json"
    file.write_text("old")
    monkeypatch.setitem(sys.modules, "apispec.ext.marshmallow", None)
    done = app.test_cli_runner().invoke(secure_ml, ["openapi", "--output", str(file)])
    assert done.exit_code == 1
    assert file.read_text() == "old"
    assert "pip install 'flask-secure-ml[openapi]'" in done.output
