"""``flask secure-ml audit``: keys, verification, reading and export, all without the app."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask

import audit_attacks
from audit_attacks import Scene
from audit_logs import Site
from audited_app import Audited
from flask_secure_ml import SecureML
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.observe.audit.reading import follow
from flask_secure_ml.testing import FakeClock, make_api_key
from support import HTTPS, RANDOM_SECRET, caller


def run(*words: object) -> Result:
    return CliRunner().invoke(secure_ml, ["audit", *map(str, words)])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    # The commands use the time of the system, for which the default clock of tests may be in the future.
    return Scene(Site(tmp_path, FakeClock(1_700_000_000.0)))


@pytest.fixture
def audited(tmp_path: Path, clock: FakeClock) -> Audited:
    found = Audited(tmp_path, clock)
    found.client.get("/open", base_url=HTTPS)
    clock.advance(3600)
    found.client.get("/x", base_url=HTTPS, headers=caller("bad"))
    clock.advance(3600)
    found.client.get("/x", base_url=HTTPS, headers=caller("ada"))
    return found


def test_init(tmp_path: Path) -> None:
    """Makes the directory and the key, once, and never puts the key where the app is."""
    done = run("init", tmp_path / "log", "--verification-key", tmp_path / "key", "--origin", "example.com/audit")
    assert done.exit_code == 0
    assert "move it to another machine" in done.stdout
    assert "example.com/audit+" in done.stdout
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    again = run("init", tmp_path / "log", "--verification-key", tmp_path / "key2")
    assert (again.exit_code, "already exists" in again.output) == (1, True)
    inside = run("init", tmp_path / "other", "--verification-key", tmp_path / "other/key")
    assert (inside.exit_code, "must not be in the log directory" in inside.output) == (1, True)
    named = run("init", tmp_path / "other", "--verification-key", tmp_path / "key3", "--origin", "a b")
    assert (named.exit_code, "the origin must have" in named.output) == (1, True)


def test_verify(scene: Scene) -> None:
    """Exit code 0 with the coverage; 1 with the first invalid record; 2 for a log that cannot be read."""
    words = ("verify", scene.site.folder, "--key", scene.site.key_file)
    done = run(*words, "--checkpoint-from", scene.site.outside)
    assert done.exit_code == 0
    assert "60 records in 2 streams, 4 leaves in the index\n" in done.stdout
    assert "cover 4 leaves; later records may be missing" in done.stdout
    assert "ok: the log is intact" in done.stdout
    assert "No external checkpoint was given" in run(*words).stdout
    audit_attacks.edit(scene)
    done = run(*words, "--checkpoint-from", scene.site.outside)
    assert done.exit_code == 1
    assert "record 10: its code is wrong" in done.stdout
    assert "TAMPERED" in done.stdout
    for wrong in (
        ("verify", scene.site.folder, "--key", scene.site.folder / "keys.json"),
        ("verify", scene.site.folder, "--key", "nowhere"),
        ("verify", "nowhere", "--key", scene.site.key_file),
        (*words, "--checkpoint-from", "nowhere"),
    ):
        assert run(*wrong).exit_code == 2


def test_verify_with_the_key_of_another_log(scene: Scene, tmp_path: Path) -> None:
    """It looks like a forged log, so the exit code is 1, but the message names the likely mistake."""
    run("init", tmp_path / "another", "--verification-key", tmp_path / "another.key")
    done = run("verify", scene.site.folder, "--key", tmp_path / "another.key")
    assert (done.exit_code, "TAMPERED" in done.stdout) == (1, True)
    assert f"Is {tmp_path}/another.key the verification key of this log?" in done.stderr


def test_verify_as_json(scene: Scene) -> None:
    """For programs."""
    audit_attacks.missing_stream(scene)
    done = run("verify", scene.site.folder, "--key", scene.site.key_file, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"], found["covered"]) == (1, False, None)
    assert [(each["level"], each["kind"]) for each in found["findings"]] == [("tampered", "missing_stream")]


@pytest.mark.parametrize(("age", "code"), [(500, 0), (700, 1)])
def test_verify_tells_the_age(scene: Scene, monkeypatch: pytest.MonkeyPatch, age: int, code: int) -> None:
    """A log whose newest checkpoint is older than allowed is not written any more, or was truncated."""
    now = scene.site.clock.now() + age
    monkeypatch.setattr("flask_secure_ml.cli.verification.time.time", lambda: now)
    words = ("verify", scene.site.folder, "--key", scene.site.key_file, "--checkpoint-from", scene.site.outside)
    done = run(*words, "--max-age", 600)
    assert (done.exit_code, "missing_heartbeat" in done.stdout) == (code, bool(code))


def test_verify_needs_no_app(scene: Scene, tmp_path: Path) -> None:
    """On a machine without the app, with the command as people type it; progress is on the other stream."""
    command = [sys.executable, "-m", "flask", "secure-ml", "audit", "verify", "log", "--key", "verification.key"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASK")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ok: the log is intact"), done.stderr


def test_show(audited: Audited) -> None:
    """Every record in the order of time, or the selected ones."""
    everything = run("show", audited.folder).stdout.splitlines()
    assert [line.split(" ")[1] for line in everything] == ["start", "configuration", "request", "request", "request"]
    assert everything[3].startswith("2027-01-15T09:00:00.000000Z request 401 not_authenticated GET 127.0.0.1 ")
    assert 'reason="a bad caller"' in everything[3]

    def shown(*words: str) -> list[int]:
        lines = run("show", audited.folder, "--json", *words).stdout.splitlines()
        return [json.loads(line)["seq"] for line in lines]

    assert shown("--action", "request") == [2, 3, 4]
    assert shown("--status", "401") == [3]
    assert shown("--principal", "test:ada") == [4]
    assert shown("--since", "2027-01-15T09:00") == [3, 4]
    assert shown("--until", "2027-01-15T09:00", "--action", "request") == [2]
    assert shown("--endpoint", "open_", "--network", "127.0.0.1") == [2]
    assert shown("--code", "not_found") == [4]
    assert shown("--limit", "2") == [0, 1]
    request_id = audited.records("request")[1]["request_id"]
    assert shown("--request-id", request_id) == [3]
    assert shown("--client", "nobody") == []


def test_follow(audited: Audited) -> None:
    """New records are printed as they are written, of new streams too."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        audited.client.get("/open", base_url=HTTPS)

    found = follow(audited.folder, pause)
    records = [next(found) for _ in range(3)]
    assert [each["seq"] for each in records] == [5, 6, 7]
    assert pauses


def test_lines_that_are_none(audited: Audited) -> None:
    """They are omitted: ``verify`` reports them."""
    (path,) = (audited.folder / "streams").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"no record\n", *lines[2:], b'{"mac":"torn']))
    assert len(run("show", audited.folder).stdout.splitlines()) == 5


def test_follow_command(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is interrupted."""

    def interrupted(_folder: Path) -> Iterator[dict[str, object]]:
        yield {"time": "t", "action": "note"}
        raise KeyboardInterrupt

    monkeypatch.setattr("flask_secure_ml.cli.audit.follow", interrupted)
    done = run("show", audited.folder, "--follow")
    assert done.stdout.startswith("t note\n")
    assert isinstance(done.exception, (SystemExit, click.exceptions.Abort))


def test_export(audited: Audited) -> None:
    """One line for each record, in ECS or CEF."""
    ecs = [json.loads(line) for line in run("export", audited.folder).stdout.splitlines()]
    assert [each["event"]["action"] for each in ecs] == ["start", "configuration", "request", "request", "request"]
    cef = run("export", audited.folder, "--format", "cef", "--since", "2027-01-15T10").stdout.splitlines()
    assert len(cef) == 1
    assert cef[0].startswith("CEF:0|flask-secure-ml|")
    assert len(run("export", audited.folder, "--until", "2027-01-15T09").stdout.splitlines()) == 3


@pytest.mark.parametrize("command", ["show", "export"])
@pytest.mark.parametrize("option", ["--since", "--until"])
def test_what_is_not_a_time(audited: Audited, command: str, option: str) -> None:
    """A message, instead of no records, which an operator could believe."""
    done = run(command, audited.folder, option, "yesterday")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "'yesterday' is not a time in UTC such as 2026-05-01" in done.stderr


def test_no_record_matches(audited: Audited) -> None:
    """A note on standard error; standard output has only records."""
    done = run("show", audited.folder, "--client", "nobody")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No record matches.\n")


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_reader_that_has_enough(audited: Audited, command: str) -> None:
    """``head`` ends the command without a message."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "flask", "secure-ml", "audit", command, str(audited.folder)]
    try:
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_digest(audited: Audited, tmp_path: Path) -> None:
    """The one that the record of a request has, of the body that was sent with it."""
    body = b'{"rows": [[1, 2]]}'
    headers = caller("ada", "predict") | {"Content-Type": "application/json"}
    audited.client.post("/predict/x", base_url=HTTPS, headers=headers, data=body)
    (tmp_path / "body").write_bytes(body)
    done = run("digest", audited.folder, tmp_path / "body")
    assert done.stdout.strip() == audited.records("request")[-1]["input_digest"]


def test_commands_are_recorded(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator, the command and the key id, and revocations; never a key."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    settings = {"API_KEYS": str(tmp_path / "keys.json"), "API_KEY_PEPPER": "env:PEPPER"}
    audited = Audited(tmp_path, clock, STORE_URI=f"sqlite:{tmp_path}/state.db", **settings)

    def command(*words: str) -> str:
        done = audited.app.test_cli_runner().invoke(secure_ml, list(words))
        assert done.exit_code == 0, done.output
        return done.stdout

    key = command("keys", "create", "--client", "ada", "--scope", "predict").strip()
    key_id = key[4:16]
    rotated = command("keys", "rotate", key_id).strip()
    for verb in ("disable", "enable", "revoke"):
        command("keys", verb, rotated[4:16])
    revoked = json.loads(command("revocations", "principal", "api_key:x", "--json"))
    command("revocations", "undo", revoked["id"])
    found = audited.records()[2:]
    assert [each["action"] for each in found] == [
        *("key_created", "key_rotated", "key_disabled", "key_enabled", "key_revoked"),
        *("revoked", "revocation_undone"),
    ]
    assert (found[0]["key"], found[0]["client"], found[0]["scopes"]) == (key_id, "ada", ["predict"])
    assert found[1]["replaced_by"] == rotated[4:16]
    assert (found[5]["what"], found[5]["revocation"]) == ("principal api_key:x", revoked["id"])
    assert all(each["user"] for each in found)
    written = "".join(path.read_text() for path in (audited.folder / "streams").iterdir())
    assert key[17:] not in written
    assert rotated[17:] not in written


def test_a_key_with_many_scopes_is_recorded(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record has at most 64 of them, and the number of the others."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    settings = {"API_KEYS": str(tmp_path / "keys.json"), "API_KEY_PEPPER": "env:PEPPER"}
    audited = Audited(tmp_path, clock, **settings)
    scopes = [f"--scope={number:03}{'x' * 1000}" for number in range(70)]
    done = audited.app.test_cli_runner().invoke(secure_ml, ["keys", "create", "--client", "ada", *scopes])
    assert done.exit_code == 0, done.output
    (record,) = audited.records("key_created")
    assert (len(record["scopes"]), record["scopes_left_out"]) == (64, 6)
    assert record["scopes"][0].startswith("000xxx")


@pytest.mark.parametrize(("required", "code"), [(True, 1), (False, 0)])
def test_a_command_that_cannot_be_recorded(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, required: bool, code: int
) -> None:
    """It reports this, and fails if records are required; its effect is not undone."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    settings = {"API_KEYS": str(tmp_path / "keys.json"), "API_KEY_PEPPER": "env:PEPPER"}
    audited = Audited(tmp_path, clock, AUDIT_REQUIRED=required, **settings)
    key = make_api_key(audited.app)
    (audited.folder / "streams").rmdir()
    done = audited.app.test_cli_runner().invoke(secure_ml, ["keys", "revoke", key[4:16]])
    assert done.exit_code == code
    assert "the audit log cannot be written: No such file or directory" in done.stderr
    assert "revoked" in audited.app.test_cli_runner().invoke(secure_ml, ["keys", "list"]).stdout


def test_check_warns_without_sinks(tmp_path: Path, clock: FakeClock) -> None:
    """A log whose checkpoints stay with the app can be replaced as a whole."""
    audited = Audited(tmp_path, clock, AUDIT_CHECKPOINT_SINKS=[])
    warning = "SECURE_ML_AUDIT_CHECKPOINT_SINKS is empty"
    assert warning in audited.app.test_cli_runner().invoke(secure_ml, ["check"]).output
    quiet = Flask("quiet")
    SecureML(quiet)
    assert warning not in quiet.test_cli_runner().invoke(secure_ml, ["check"]).output


@pytest.mark.parametrize("command", ["verify", "show", "export", "report"])
def test_a_directory_without_a_log(scene: Scene, tmp_path: Path, command: str) -> None:
    """A directory without a log is a usage error, not an unchanged log."""
    options = {"verify": ["--key", scene.site.key_file], "report": ["--html", tmp_path / "page.html"]}
    (tmp_path / "elsewhere").mkdir()
    result = run(command, tmp_path / "elsewhere", *options.get(command, []))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "elsewhere contains no audit log: use the directory in SECURE_ML_AUDIT_LOG" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_log_of_which_nothing_is_left(scene: Scene, tmp_path: Path) -> None:
    """With external checkpoints, a missing log is tampering."""
    (tmp_path / "empty").mkdir()
    checkpoints = ["--checkpoint-from", scene.site.outside]
    result = run("verify", tmp_path / "empty", "--key", scene.site.key_file, *checkpoints)
    assert result.exit_code == 1
    assert "tampered" in result.stdout


APP = """
from flask import Flask
from flask_secure_ml import SecureML

def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    SecureML(app)
    return app
"""


def test_checkpoints_are_not_in_the_output_of_commands(tmp_path: Path) -> None:
    """With the sink ``stdout``, commands write checkpoints to standard error, apart from their result."""
    (tmp_path / "app.py").write_text(APP)
    run("init", tmp_path / "log", "--verification-key", tmp_path / "verification.key")
    environ = os.environ | {
        "TEST_PEPPER": RANDOM_SECRET,
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:TEST_PEPPER",
        "FLASK_SECURE_ML_API_KEYS": str(tmp_path / "keys.json"),
        "FLASK_SECURE_ML_AUDIT_LOG": str(tmp_path / "log"),
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SINKS": '["stdout"]',
    }

    def done(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flask", "secure-ml", *words]
        found = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert "\N{EM DASH}" not in found.stdout
        return found

    created = done("keys", "create", "--client", "first")
    checked, listed = done("check", "--online", "--json"), done("keys", "list")
    assert (created.returncode, len(created.stdout.split())) == (0, 1)
    assert json.loads(checked.stdout)["version"] == 1
    assert "first" in listed.stdout
    for each in (created, checked):
        assert "\N{EM DASH} " in each.stderr
