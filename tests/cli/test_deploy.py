"""``flask secure-ml deploy``: written, compared and checked for drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from deployed_app import SETTINGS, create_app
from flask_secure_ml.cli import secure_ml


def run(*arguments: str, **settings: Any) -> tuple[int, str]:
    done = create_app(**settings).test_cli_runner().invoke(secure_ml, ["deploy", *arguments])
    return done.exit_code, done.output


def test_list_needs_no_app() -> None:
    """Every target is listed, as a table and as JSON."""
    runner = Flask("other").test_cli_runner()
    assert "gunicorn  " in runner.invoke(secure_ml, ["deploy", "list"]).output
    found = json.loads(runner.invoke(secure_ml, ["deploy", "list", "--json"]).output)
    assert {"name", "summary"} == found[0].keys()


def test_written_and_up_to_date(tmp_path: Path) -> None:
    """Until the app changes: then ``--check`` fails and ``--diff`` shows it."""
    out = ("--out", str(tmp_path))
    code, output = run("gunicorn", *out)
    assert code == 0
    assert f"{tmp_path}/gunicorn/gunicorn.conf.py: created" in output
    assert "up to date" in run("gunicorn", *out)[1]
    assert run("gunicorn", "--check", *out) == (0, "")
    changed = {"SECURE_ML_DEPLOY": SETTINGS["SECURE_ML_DEPLOY"] | {"workers": 7}}
    code, output = run("gunicorn", "--check", *out, **changed)
    assert code == 1
    assert "gunicorn.conf.py: is out of date" in output
    assert "Error: 1 file is out of date; run the command without --check" in output
    code, output = run("gunicorn", "--diff", *out, **changed)
    assert (code, "-workers = 2\n+workers = 7\n" in output) == (0, True)
    assert run("gunicorn", "--check", *out) == (0, "")
    assert "updated" in run("gunicorn", *out, **changed)[1]


def test_a_warning_of_several_targets(tmp_path: Path) -> None:
    """It is printed once, with the names of all."""
    _, output = run("nginx", "haproxy", "--out", str(tmp_path), SECURE_ML_TRUSTED_PROXIES=[])
    assert output.count("SECURE_ML_TRUSTED_PROXIES is empty") == 1
    assert "Warning (nginx, haproxy): SECURE_ML_TRUSTED_PROXIES is empty" in output


@pytest.mark.parametrize("absolute", [False, True])
def test_the_commands_that_check_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, absolute: bool) -> None:
    """Programs that need an absolute path get one, for a relative and an absolute output directory."""
    monkeypatch.chdir(tmp_path)
    _, output = run("nginx", "apache", "--out", str(tmp_path / "out") if absolute else "out")
    folder = f"{tmp_path}/out" if absolute else "$PWD/out"
    assert f"nginx -t -c {folder}/nginx/nginx.conf\n" in output
    assert f"apache2ctl -t -f {folder}/apache/apache2.conf\n" in output


def test_what_the_image_installs(tmp_path: Path) -> None:
    """The build fails without this file, so the command names it."""
    settings = {"SECURE_ML_DEPLOY": SETTINGS["SECURE_ML_DEPLOY"] | {"requirements": "requirements/server.txt"}}
    _, output = run("docker", "--out", str(tmp_path), **settings)
    assert "docker: list the app's packages, flask-secure-ml and gunicorn in  requirements/server.txt\n" in output


def test_without_targets(tmp_path: Path) -> None:
    """Those that were written before are meant, as a job of CI wants it."""
    out = ("--out", str(tmp_path))
    run("gunicorn", *out)
    assert run("--check", *out) == (0, "")
    (tmp_path / "gunicorn/gunicorn.conf.py").unlink()
    code, output = run("--check", *out)
    assert (code, "gunicorn.conf.py: is missing" in output) == (1, True)


def test_an_edit_by_hand_is_kept(tmp_path: Path) -> None:
    """The message has a remedy."""
    run("gunicorn", "--out", str(tmp_path))
    file = tmp_path / "gunicorn/gunicorn.conf.py"
    file.write_text(file.read_text() + "workers = 9\n")
    code, output = run("gunicorn", "--out", str(tmp_path))
    assert code == 1
    assert "these files were edited by hand" in output
    assert "No file was written" in output
    assert "workers = 9" in file.read_text()
    assert "overwritten" in run("gunicorn", "--force", "--out", str(tmp_path))[1]
    assert "workers = 9" not in file.read_text()


def test_all_and_json(tmp_path: Path) -> None:
    """``all`` means every target; the report is machine-readable."""
    code, output = run("all", "--json", "--out", str(tmp_path))
    assert code == 0
    done = json.loads(output.splitlines()[0])
    assert {Path(each["path"]).relative_to(tmp_path).parts[0] for each in done} >= {"gunicorn"}
    assert {each["done"] for each in done} == {"created"}
    assert run("all", "--check", "--out", str(tmp_path))[0] == 0


def test_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is written."""
    monkeypatch.chdir(tmp_path)
    code, output = run("gunicorn", "--stdout")
    assert (code, "workers = 2" in output) == (0, True)
    assert json.loads(run("gunicorn", "--stdout", "--json")[1]).keys() == {"gunicorn/gunicorn.conf.py"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nginxx",), "unknown target 'nginxx'"),
        ((), "deploy has no generated files, so name a target"),
        (("list", "gunicorn"), "unknown target 'list'"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], sentence: str) -> None:
    """A sentence and no traceback."""
    code, output = run(*arguments)
    assert (code, sentence in output) == (2, True)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A sentence and no traceback."""
    (tmp_path / "gunicorn").write_text("a file where the folder would be")
    code, output = run("gunicorn", "--out", str(tmp_path))
    assert (code, "Traceback" in output) == (1, False)


def test_an_app_that_is_not_protected() -> None:
    """The message names the missing call."""
    done = Flask("bare").test_cli_runner().invoke(secure_ml, ["deploy", "gunicorn"])
    assert (done.exit_code, "init_app" in done.output) == (1, True)


def test_files_that_move_the_cursor(tmp_path: Path) -> None:
    """Control characters in their names and lines are escaped."""
    out = ("--out", str(tmp_path))
    run("gunicorn", *out)
    manifest = tmp_path / ".flask-secure-ml.json"
    name = "gunicorn/\x1b[2Jx"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {name: "0"}))
    (tmp_path / name).write_text("a\x1b[2J\u202eb\n")
    for words in (("--check",), ("--diff",), ()):
        done = create_app().test_cli_runner().invoke(secure_ml, ["deploy", "gunicorn", *words, *out], color=True)
        assert done.exit_code == (0 if words == ("--diff",) else 1)
        assert "\x1b[2J" not in done.output
        assert "\u202e" not in done.output


def test_a_manifest_that_is_a_directory(tmp_path: Path) -> None:
    """It is a sentence, with targets and without."""
    (tmp_path / ".flask-secure-ml.json").mkdir()
    for words in (("gunicorn",), ()):
        code, output = run(*words, "--out", str(tmp_path))
        assert (code, "Is a directory" in output) == (1, True)
