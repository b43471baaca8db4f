"""``flask secure-ml check``: output, exit status, and apps that cannot be checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from sarif_kit.validate import validation_errors

from flask_secure_ml import ConfigError, SecureML, protect, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.config import Settings
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key
from servers import free_port
from support import RANDOM_SECRET, MakeApp

FACTORY = """
from flask import Flask
from flask_secure_ml import SecureML, protect
import os
def create_app():
    app = Flask(__name__, static_folder=None)
    app.config.from_prefixed_env()
    {before}
    SecureML(app)
    return app
"""


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, ["check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout


def report(app: Flask, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(app, "--json", *arguments)[1])
    return found


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Any:
    """Make an app without findings, but for those of the settings and the app that are given."""
    # Not one of the tests: the doctor would find it in their source.
    monkeypatch.setenv("PEPPER", token_hex(32))

    def make(app: Flask | None = None, **settings: Any) -> Flask:
        app = app or Flask("model_app", static_folder=None)
        sound = {
            "API_KEYS": str(tmp_path / "keys.json"),
            "API_KEY_PEPPER": "env:PEPPER",
            "STORE_URI": f"sqlite:{tmp_path}/state.db",
        }
        app.config.update({f"SECURE_ML_{name}": value for name, value in (sound | settings).items()})
        SecureML(app, clock=clock, sink=MemorySink())
        make_api_key(app, lifetime=90 * 86_400)
        return app

    return make


def script(folder: Path, *words: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "broken_app.py").write_text(FACTORY.format(before=before))
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "broken_app", "secure-ml", "check", *words],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_found(sound: Any) -> None:
    assert run(sound(), "--strict") == (0, "ok: no findings\n")


PRODUCTION = """app.config.update(
        SECURE_ML_API_KEYS="/var/lib/nowhere/keys.json",
        SECURE_ML_API_KEY_PEPPER="env:NOT_SET_HERE",
        SECURE_ML_STORE_URI="sqlite:/var/lib/nowhere/state.db",
        SECURE_ML_AUDIT_LOG="/var/lib/nowhere/audit",
        SECURE_ML_AUDIT_CHECKPOINT_SINKS=["stdout"],
    )"""


def test_without_secrets(tmp_path: Path) -> None:
    """An app is checked on a machine without its secrets and files, for all that its code and settings show."""
    done = script(tmp_path, "--strict", before=PRODUCTION)
    assert done.returncode == 1
    assert "NOT_SET_HERE" in done.stdout
    done = script(tmp_path, "--strict", "--without-secrets", before=PRODUCTION)
    assert (done.returncode, done.stdout) == (0, "ok: no findings\n")
    assert "secrets, API keys, files and stores of the server" in done.stderr
    done = script(tmp_path, "--strict", "--without-secrets", before=PRODUCTION, FLASK_SECURE_ML_LIMIT_OUTAGE="open")
    assert done.returncode == 1
    assert "SML406" in done.stdout
    settings = {"FLASK_SECURE_ML_STORE_URI": "memory:", "WEB_CONCURRENCY": "4"}
    in_memory = PRODUCTION.replace('SECURE_ML_STORE_URI="sqlite:/var/lib/nowhere/state.db",', "")
    done = script(tmp_path, "--strict", "--without-secrets", before=in_memory, **settings)
    assert "SML403" in done.stdout


def test_without_secrets_and_online(sound: Any) -> None:
    """Dependencies require the secrets."""
    result = sound().test_cli_runner().invoke(secure_ml, ["check", "--online", "--without-secrets"])
    assert result.exit_code == 2
    assert "requires its secrets" in result.output


def test_scopes_of_keys_that_are_elsewhere(tmp_path: Path) -> None:
    """They are unknown, so no route is reported that no caller could use."""
    route = "app.add_url_rule('/x', 'x', protect(scopes=['predict'])(lambda: 'ok'))"
    client = (
        'app.config["SECURE_ML_MTLS_CLIENTS"] = [{"client": "trainer", "san_dns": "t.example", "scopes": ["train"]}]'
    )
    more = 'app.config["SECURE_ML_MTLS_CA_FILE"] = "/nowhere/ca.pem"'
    done = script(
        tmp_path, "--strict", "--without-secrets", before=f"{PRODUCTION}\n    {client}\n    {more}\n    {route}"
    )
    assert (done.returncode, done.stdout) == (0, "ok: no findings\n")


def test_a_warning(sound: Any) -> None:
    """It has the fault, its location, the reason and the line that fixes it; only ``--strict`` fails for it."""
    app = sound(LIMIT_OUTAGE="open")
    text = (
        "warning SML406: While the store is down, requests are not limited\n"
        "  SECURE_ML_LIMIT_OUTAGE is open (setting SECURE_ML_LIMIT_OUTAGE)\n"
        "  why: During an outage, any caller can send any number of requests.\n"
        '  fix: SECURE_ML_LIMIT_OUTAGE = "degrade"\n'
        "warnings: 1\n"
    )
    assert run(app) == (0, text)
    assert run(app, "--strict") == (1, text)


def test_an_error(sound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails without ``--strict``."""
    app = sound()
    monkeypatch.setenv("FLASK_DEBUG", "1")
    code, output = run(app)
    assert (code, output.splitlines()[0]) == (1, "error SML102: Debug mode is on")


def test_the_worst_first(sound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app = sound(LIMIT_OUTAGE="open", OPENAPI="public")
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert [line.partition(" ")[0] for line in run(app)[1].splitlines() if " SML" in line] == [
        *("error", "warning", "note")
    ]


def test_json(sound: Any) -> None:
    """A program gets every part of a finding, and the counts."""
    found = report(sound(LIMIT_OUTAGE="open"))
    assert found == {
        "version": 1,
        "ok": True,
        "counts": {"errors": 0, "warnings": 1, "notes": 0, "ignored": 0},
        "findings": [
            {
                "id": "SML406",
                "severity": "warning",
                "title": "While the store is down, requests are not limited",
                "what": "SECURE_ML_LIMIT_OUTAGE is open",
                "why": "During an outage, any caller can send any number of requests.",
                "fix": 'SECURE_ML_LIMIT_OUTAGE = "degrade"',
                "where": {"kind": "setting", "name": "SECURE_ML_LIMIT_OUTAGE"},
            }
        ],
    }
    assert report(sound(LIMIT_OUTAGE="open"), "--strict")["ok"] is False


def test_many_places(sound: Any) -> None:
    """People see ten, programs all."""
    app = Flask("model_app", static_folder=None)
    for number in range(12):
        app.add_url_rule(f"/{number}", f"view{number}", public(lambda: "ok"), methods=["POST"])
    sound(app)
    assert "  ... and 2 more\n" in run(app)[1]
    assert len(report(app)["findings"]) == 12


@pytest.mark.parametrize("name", ["SML406", "SML406:SECURE_ML_LIMIT_OUTAGE"])
def test_an_ignored_finding(sound: Any, name: str) -> None:
    """The option and the setting accept it, with the reason in the report; ``--strict`` passes."""
    for app, options in (
        (sound(LIMIT_OUTAGE="open"), ["--ignore", f"{name}=nobody pays"]),
        (sound(LIMIT_OUTAGE="open", CHECK_IGNORE={name: "nobody pays"}), []),
    ):
        code, output = run(app, "--strict", *options)
        assert code == 0
        assert output.splitlines()[0].endswith("(setting SECURE_ML_LIMIT_OUTAGE), because: nobody pays")
        assert report(app, *options)["findings"][0]["ignored"] == "nobody pays"
        assert report(app, *options)["counts"]["ignored"] == 1


def test_an_ignore_of_another_place(sound: Any) -> None:
    """It has no effect here, and this is reported."""
    found = report(sound(LIMIT_OUTAGE="open"), "--strict", "--ignore", "SML406:elsewhere=ok", "--ignore", "SML101=no")
    assert found["ok"] is False
    assert [(each["id"], each["where"]["name"]) for each in found["findings"]] == [
        ("SML406", "SECURE_ML_LIMIT_OUTAGE"),
        ("SML007", "SML406:elsewhere"),
        ("SML007", "SML101"),
    ]


def test_an_ignore_of_an_unknown_finding(sound: Any) -> None:
    """It is an error, because the intended finding is not ignored."""
    code, output = run(sound(CHECK_IGNORE={"SML999": "typing mistake"}))
    assert (code, output.splitlines()[0]) == (1, "error SML006: An ignore names an unknown finding")


def test_an_error_of_the_command_is_never_ignored(protected: MakeApp) -> None:
    app = protected(POLICIES={"/predct": {}})
    found = report(app, "--ignore", "SML003=later")
    assert found["ok"] is False
    assert found["findings"][0]["id"] == "SML003"
    assert "ignored" not in found["findings"][0]


@pytest.mark.parametrize(
    ("ignores", "problem"),
    [
        ({"SML406": ""}, ".SML406: requires a reason: a sentence that explains why it is ignored"),
        ({"SML406": 1}, ".SML406: requires a reason: a sentence that explains why it is ignored"),
        ({"limits": "ok"}, ".limits: must be the id of a finding, such as SML405, or id and subject"),
        (["SML406"], ': must be an object such as {"SML405": "this app has one worker"}, not a list'),
    ],
)
def test_wrong_ignores(sound: Any, ignores: Any, problem: str) -> None:
    """In the setting each is an error at start-up, and in the option one of its use."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_CHECK_IGNORE": ignores})
    assert str(caught.value.problems[0]).startswith(f"SECURE_ML_CHECK_IGNORE{problem}")
    if isinstance(ignores, dict):
        (name, reason), *_ = ignores.items()
        if isinstance(reason, str):
            assert run(sound(), "--ignore", f"{name}={reason}")[0] == 2


def test_sarif(sound: Any, tmp_path: Path) -> None:
    """The file is valid, and has rules, places, fingerprints and suppressions."""
    app = Flask("model_app", static_folder=None)
    app.add_url_rule("/feedback", "feedback", public(lambda: "ok"), methods=["POST"])
    sound(app, LIMIT_OUTAGE="open", CHECK_IGNORE={"SML406": "nobody pays"})
    assert run(app, "--sarif", str(tmp_path / "report.sarif"))[0] == 0
    log = json.loads((tmp_path / "report.sarif").read_text())
    assert validation_errors(log) == []
    (sarif_run,) = log["runs"]
    first, second = sarif_run["results"]
    assert sarif_run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "SML301"
    place = first["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"].endswith("tests/cli/test_check.py")
    assert place["physicalLocation"]["region"]["startLine"] > 1
    assert place["logicalLocations"] == [{"fullyQualifiedName": "POST /feedback", "kind": "route"}]
    assert second["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "nobody pays"}]
    assert first["partialFingerprints"] != second["partialFingerprints"]


def test_sarif_of_an_app_that_cannot_be_loaded(tmp_path: Path) -> None:
    done = script(tmp_path, "--sarif", "report.sarif", before="missing_name")
    log = json.loads((tmp_path / "report.sarif").read_text())
    assert done.returncode == 1
    assert validation_errors(log) == []
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "broken_app.py", "uriBaseId": "SRCROOT"},
        "region": {"startLine": 8},
    }


def test_a_sarif_file_that_cannot_be_written(sound: Any, tmp_path: Path) -> None:
    result = sound().test_cli_runner().invoke(secure_ml, ["check", "--sarif", str(tmp_path / "no" / "x.sarif")])
    assert (result.exit_code, "cannot be written" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("before", "environment", "lines"),
    [
        pytest.param("missing_name", {}, ["error SML001", "NameError in broken_app.py, line 8"], id="name"),
        pytest.param("import nothing_like_it", {}, ["error SML001", "No module named 'nothing_like_it'"], id="import"),
        pytest.param("raise SystemExit(3)", {}, ["error SML001", "it exits the process (SystemExit 3)"], id="exit"),
        pytest.param("open('/nowhere')", {}, ["error SML001", "No such file or directory: /nowhere"], id="file"),
        pytest.param("return app", {}, ["error SML008", "is not protected: call SecureML().init_app(app)"], id="bare"),
        pytest.param(
            "",
            {"FLASK_SECURE_ML_REALM": '"?"', "FLASK_SECURE_ML_TRUSTED_PROXIES": "10.0.0.0/8"},
            [
                "error SML002",
                "SECURE_ML_TRUSTED_PROXIES: must be a list",
                "SECURE_ML_REALM: must be 1 to 64 letters",
                "(setting SECURE_ML_REALM)",
            ],
            id="settings",
        ),
        pytest.param(
            "",
            {"FLASK_SECURE_ML_POLICIES": '{"/predct": {}}'},
            ["error SML003", "'/predct', which is neither an endpoint nor a URL rule"],
            id="policy",
        ),
        pytest.param("protect(scope=['predict'])", {}, ["error SML002", "did you mean scopes?"], id="decorator"),
    ],
)
def test_an_app_that_cannot_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, environment: dict[str, str], lines: list[str]
) -> None:
    """Any failure is a finding in the report, never a traceback."""
    (tmp_path / "broken_app.py").write_text(FACTORY.format(before=before))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_app", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(secure_ml, ["check"], obj=ScriptInfo("broken_app"))
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "Traceback" not in done.output
    for line in lines:
        assert line in done.stdout


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flask", "--app", "no_such_app", "secure-ml", "check"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "error SML001: The app cannot be loaded")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_message_that_may_hold_a_secret(tmp_path: Path) -> None:
    """The type of the exception is reported, without its message."""
    done = script(tmp_path, before="int('redis://:hunter2@host')")
    assert "ValueError in broken_app.py, line 8" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_store_that_is_down(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure to read is one error, and the other checks run."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(
        API_KEYS="store",
        API_KEY_PEPPER="env:PEPPER",
        STORE_URI=f"redis://127.0.0.1:{free_port()}",
        LIMIT_OUTAGE="open",
    )
    found = report(app)
    ids = [each["id"] for each in found["findings"]]
    assert (ids.count("SML009"), "SML406" in ids) == (1, True)


def test_an_owner_hook_that_is_missing(protected: MakeApp) -> None:
    app = Flask("model_app", static_folder=None)
    app.add_url_rule("/jobs/<job>", "job", protect(owner=True)(lambda job: job))
    assert [each["id"] for each in report(protected(app))["findings"]].count("SML003") == 1
