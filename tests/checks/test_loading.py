"""Loading an app: whatever its code raises is a finding with the place, and no value that could be secret."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import NoAppException, ScriptInfo

from flask_secure_ml import ConfigError
from flask_secure_ml.checks.loading import is_absent, load
from flask_secure_ml.model_files import ModelFileError


def raising(error: BaseException) -> Callable[[], Flask]:
    def find() -> Flask:
        raise error

    return find


@pytest.mark.parametrize(
    ("error", "id_", "what"),
    [
        (ConfigError(["SECURE_ML_REALM: is wrong", "two"]), "SML002", "SECURE_ML_REALM: is wrong"),
        (NoAppException("Could not locate a Flask application.\n\nMore."), "SML001", "Could not locate a Flask"),
        (SystemExit("bye"), "SML001", "it exits the process (SystemExit bye)"),
        (NameError("name 'x' is not defined"), "SML001", ": name 'x' is not defined"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "SML001", ": No such file or directory: /x"),
        (ModelFileError("m.pkl", "it is a pickle", "Convert it"), "SML001", ": m.pkl: it is a pickle. Convert it."),
        (OSError(), "SML001", "OSError in test_loading.py, line 21: "),
        (ValueError("hunter2"), "SML001", "ValueError in test_loading.py, line 21"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_what_is_raised(error: BaseException, id_: str, what: str) -> None:
    app, findings = load(raising(error))
    assert app is None
    assert findings[0].check.id == id_
    assert what in findings[0].what
    assert "hunter2" not in findings[0].what


def test_the_place_of_a_setting() -> None:
    """A problem that begins with a setting is located at that setting."""
    problems = [
        "SECURE_ML_REALM: is wrong",
        "SECURE_ML_PLANS.default.requests[0]: is wrong",
        "SECURE_ML_PROBES needs /x",
    ]
    _, found = load(raising(ConfigError(problems)))
    assert [str(each.where) for each in found] == [
        "setting SECURE_ML_REALM",
        "setting SECURE_ML_PLANS.default.requests[0]",
        "setting SECURE_ML_PROBES",
    ]


def test_the_place_of_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid option in code is located at the line of the decorator, in any file."""
    (tmp_path / "views_of_app.py").write_text("from flask_secure_ml import protect\n\n\nprotect(\n    scope=['a'])\n")
    (tmp_path / "app_of_views.py").write_text("import views_of_app\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("views_of_app", "app_of_views"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    _, (finding,) = load(ScriptInfo(app_import_path="app_of_views").load_app)
    assert finding.what == "scope: is not known; did you mean scopes?"
    assert str(finding.where) == "file views_of_app.py, line 4"
    assert (Path(finding.where.file).name, finding.where.line) == ("views_of_app.py", 4)


def test_an_import_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask puts the whole traceback into its message; only the exception and its location are reported."""
    (tmp_path / "lame_app.py").write_text("import nothing_like_it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lame_app", raising=False)
    _, (finding,) = load(ScriptInfo(app_import_path="lame_app").load_app)
    assert finding.what == "ModuleNotFoundError in lame_app.py, line 1: No module named 'nothing_like_it'"
    assert (Path(finding.where.file).name, finding.where.line) == ("lame_app.py", 1)


def test_an_app_without_protection(bare_app: Flask) -> None:
    app, (finding,) = load(lambda: bare_app)
    assert (app, finding.check.id) == (None, "SML008")


def test_a_protected_app(app: Flask) -> None:
    assert load(lambda: app) == (app, [])


@pytest.mark.parametrize(
    ("options", "file", "absent"),
    [
        ({}, "", True),
        ({}, "app.py", False),
        ({}, "wsgi.py", False),
        ({"app_import_path": "model"}, "", False),
        ({"create_app": Flask}, "", False),
    ],
)
def test_no_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], file: str, absent: bool
) -> None:
    """Without a name there is no app; a named one that cannot be loaded is an error."""
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / file).touch()
    assert is_absent(ScriptInfo(**options)) is absent
