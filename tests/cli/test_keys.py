"""``flask secure-ml keys``: commands and their output."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_secure_ml import SecureML, protect
from flask_secure_ml.authentication.api_keys.key import key_id, new_key
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.testing import FakeClock, MemorySink
from support import RANDOM_SECRET

Run = Callable[..., Result]
NOW = 1_800_000_000
LEAKED = new_key()
COMMANDS = [
    ["create", "--client", "x"],
    ["list"],
    ["show", "x"],
    ["rotate", "x"],
    ["revoke", "x"],
    ["disable", "x"],
    ["enable", "x"],
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def configured(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("TEST_PEPPER", RANDOM_SECRET)
    app = Flask("model_app")
    app.config["SECURE_ML_API_KEYS"] = str(tmp_path / "keys.json")
    app.config["SECURE_ML_API_KEY_PEPPER"] = "env:TEST_PEPPER"
    app.config["SECURE_ML_PLANS"] = {"default": {}, "gold": {}}
    SecureML(clock=clock, sink=MemorySink()).init_app(app)

    @app.get("/whoami")
    def whoami() -> str:
        return "known"

    @app.get("/predict")
    @protect(scopes=["predict", "metrics"])
    def predict() -> str:
        return "a number"

    return app


@pytest.fixture
def run(configured: Flask) -> Run:
    return lambda *arguments, app=configured: app.test_cli_runner().invoke(secure_ml, ["keys", *arguments])


def list_of(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


def status(app: Flask, key: str) -> int:
    return app.test_client().get("/whoami", base_url="https://localhost", headers={"X-API-Key": key}).status_code


def test_created_key_works_at_once(run: Run, configured: Flask) -> None:
    """The key is alone on stdout, the note on stderr, and the running app accepts it."""
    result = run("create", "--client", "ada", "--scope", "predict", "--scope", "metrics")
    key = result.stdout.strip()
    assert result.exit_code == 0
    assert key_id(key) == key[4:16]
    assert "cannot be printed again" in result.stderr
    assert status(configured, key) == 200


def test_create_as_json(run: Run) -> None:
    """--json prints the key and its record."""
    words = "create --client ada --scope b --scope a --plan gold --expires-days 90 --endpoint x --endpoint /y"
    printed = json.loads(run(*words.split(), "--json").stdout)
    assert printed.pop("key")[4:16] == printed.pop("id")
    assert printed == {
        "client": "ada",
        "scopes": ["a", "b"],
        "plan": "gold",
        "created": NOW,
        "expires": NOW + 90 * 86_400,
        "status": "active",
        "endpoints": ["/y", "x"],
        "replaced_by": None,
        "last_used": None,
    }


def test_unknown_names_are_named(run: Run) -> None:
    """A scope that no route needs, or an endpoint that is not there, is most likely a typing error."""
    result = run("create", "--client", "ada", "--scope", "predct", "--scope", "metrics", "--endpoint", "/predct")
    assert result.exit_code == 0
    assert key_id(result.stdout.strip())
    assert [line for line in result.stderr.splitlines() if line.startswith("Warning")] == [
        "Warning: no route requires the scope 'predct'; the routes require metrics, predict",
        "Warning: the app has no endpoint or URL rule '/predct'; see: flask secure-ml routes",
    ]


def test_known_names_are_not_named(run: Run) -> None:
    """An endpoint may be named by itself or by its URL rule."""
    words = "create --client ada --scope predict --endpoint whoami --endpoint /predict"
    assert "Warning" not in run(*words.split()).stderr


def test_list_is_a_table_without_secrets(run: Run, clock: FakeClock) -> None:
    """The list has clients and key ids in columns, and never a key."""
    key = run("create", "--client", "ada", "--scope", "predict", "--expires-days", "1").stdout.strip()
    run("create", "--client", "a longer name")
    clock.advance(86_400)
    output = run("list").stdout
    first, second, third = output.splitlines()
    assert list_of(first) == ["Id", "Client", "Scopes", "Plan", "Created", "Expires", "Last used", "Status"]
    assert list_of(second) == [
        key[4:16],
        "ada",
        "predict",
        "default",
        "2027-01-15",
        "2027-01-16",
        "never",
        "active, expired",
    ]
    assert list_of(third)[-1] == "active"
    assert first.index("Scopes") == second.index("predict") == third.index("-  ")
    assert key[17:] not in output


def test_list_before_the_first_key(run: Run, tmp_path: Path) -> None:
    """The message names the file, whose path may be wrong."""
    path = tmp_path / "keys.json"
    assert run("list").stdout == f"No API keys in {path}, which does not exist.\n"
    path.write_text('{"version": 1, "keys": []}')
    path.chmod(0o600)
    assert run("list").stdout == f"No API keys in {path}.\n"


def test_list_as_json(run: Run) -> None:
    """--json prints a list of records without hashes."""
    assert json.loads(run("list", "--json").stdout) == []
    run("create", "--client", "ada")
    assert [sorted(each) for each in json.loads(run("list", "--json").stdout)] == [
        ["client", "created", "endpoints", "expires", "id", "last_used", "plan", "replaced_by", "scopes", "status"]
    ]


def test_revoked_key_is_rejected_at_the_next_request(run: Run, configured: Flask) -> None:
    """A revocation reaches the running app without a restart."""
    key = run("create", "--client", "ada").stdout.strip()
    assert status(configured, key) == 200
    assert run("revoke", key[4:16]).stdout == f"{key[4:16]} is revoked\n"
    assert status(configured, key) == 401
    assert "revoked" in run("list").stdout


def test_disabled_key_comes_back(run: Run, configured: Flask) -> None:
    """Disabling is temporary; each command prints its result, as JSON too."""
    key = run("create", "--client", "ada").stdout.strip()
    assert run("disable", key[4:16]).stdout == f"{key[4:16]} is disabled\n"
    assert status(configured, key) == 401
    assert json.loads(run("enable", key[4:16], "--json").stdout)["status"] == "active"
    assert status(configured, key) == 200


def test_rotate(run: Run, configured: Flask, clock: FakeClock) -> None:
    """The new key is alone on stdout; the old one is accepted for a day, then no more."""
    old = run("create", "--client", "ada", "--scope", "predict", "--endpoint", "whoami").stdout.strip()
    result = run("rotate", old[4:16])
    new = result.stdout.strip()
    assert key_id(new) == new[4:16] != old[4:16]
    assert "accepted for at most 24 more hours" in result.stderr
    assert "cannot be printed again" in result.stderr
    clock.advance(86_399)
    assert [status(configured, key) for key in (old, new)] == [200, 200]
    clock.advance(1)
    assert [status(configured, key) for key in (old, new)] == [401, 200]
    first, second = json.loads(run("list", "--json").stdout)
    assert (first["replaced_by"], first["expires"]) == (new[4:16], NOW + 86_400)
    assert (second["client"], second["scopes"], second["endpoints"]) == ("ada", ["predict"], ["whoami"])
    assert list_of(run("list").stdout.splitlines()[1])[-1] == "active, replaced, expired"


def test_rotate_a_leaked_key(run: Run, configured: Flask) -> None:
    """--overlap-hours 0 ends the old key at once."""
    old = run("create", "--client", "ada").stdout.strip()
    printed = json.loads(run("rotate", old[4:16], "--overlap-hours", "0", "--json").stdout)
    assert [status(configured, key) for key in (old, printed["key"])] == [401, 200]


def test_show(run: Run, configured: Flask, clock: FakeClock) -> None:
    """One key with all that is known of it: also when it was last used, and never its secret or its hash."""
    key = run("create", "--client", "ada", "--scope", "predict", "--endpoint", "whoami").stdout.strip()
    clock.advance(3600)
    status(configured, key)
    output = run("show", key[4:16]).stdout
    assert [list_of(line) for line in output.splitlines()] == [
        ["Id", key[4:16]],
        ["Client", "ada"],
        ["Scopes", "predict"],
        ["Plan", "default"],
        ["Created", "2027-01-15 08:00:00 UTC"],
        ["Expires", "never"],
        ["Last used", "2027-01-15 09:00:00 UTC"],
        ["Status", "active"],
        ["Endpoints", "whoami"],
        ["Replaced by", "-"],
    ]
    printed = run("show", key[4:16], "--json").stdout
    assert json.loads(printed)["last_used"] == NOW + 3600
    assert all(secret not in output + printed for secret in (key[17:], "hmac"))
    assert "2027-01-15" in list_of(run("list").stdout.splitlines()[1])[-2]


def test_show_a_key_for_every_endpoint(run: Run) -> None:
    """A key without --endpoint is for every one."""
    key = run("create", "--client", "ada").stdout.strip()
    assert ["Endpoints", "all"] in [list_of(line) for line in run("show", key[4:16]).stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        pytest.param(
            ["create", "--client", "ada", "--plan", "golden"],
            "'golden'; SECURE_ML_PLANS has default, gold",
            id="plan",
        ),
        pytest.param(["create", "--client", "a\nb"], "client name", id="client"),
        pytest.param(["create", "--client", "ada", "--scope", "a b"], "scope", id="scope"),
        pytest.param(["create"], "--client", id="no client"),
        pytest.param(["create", "--client", "ada", "--expires-days", "0"], "expires-days", id="no days"),
        pytest.param(["create", "--client", "ada", "--expires-days", "9999999"], "year 10000", id="too many days"),
        pytest.param(["create", "--client", "ada", "--endpoint", ""], "endpoints", id="endpoint"),
        pytest.param(["revoke", "nobody"], "unknown key id 'nobody'", id="revoke unknown"),
        pytest.param(["disable", "nobody"], "unknown key id 'nobody'", id="disable unknown"),
        pytest.param(["enable", "nobody"], "unknown key id 'nobody'", id="enable unknown"),
        pytest.param(["rotate", "nobody"], "unknown key id 'nobody'", id="rotate unknown"),
        pytest.param(["show", "nobody"], "unknown key id 'nobody'", id="show unknown"),
        pytest.param(["show", "api_key:nobody"], "use the key id, nobody", id="show a principal"),
        pytest.param(["rotate", "nobody", "--overlap-hours", "-1"], "overlap-hours", id="negative overlap"),
        pytest.param(["rotate", "nobody", "--overlap-hours", "nan"], "overlap-hours", id="no number of hours"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], printed: str) -> None:
    """A mistake is one sentence and a failing exit code, never a trace."""
    result = run(*arguments)
    assert result.exit_code in {1, 2}
    assert printed in result.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_not_configured(run: Run, command: list[str], protected: Callable[..., Flask]) -> None:
    """Without a key file the message names the setting."""
    result = run(*command, app=protected())
    assert (result.exit_code, "SECURE_ML_API_KEYS" in result.stderr) == (1, True)


@pytest.mark.parametrize("change", [["enable"], ["disable"], ["rotate"]], ids=lambda words: words[0])
def test_revoked_key_is_not_changed(run: Run, configured: Flask, change: list[str]) -> None:
    """Revoked is for good."""
    key = run("create", "--client", "ada").stdout.strip()
    run("revoke", key[4:16])
    result = run(*change, key[4:16])
    assert (result.exit_code, "is revoked" in result.stderr, result.stdout) == (1, True, "")
    assert status(configured, key) == 401


def test_not_protected(run: Run) -> None:
    """The message names the missing call."""
    result = run("list", app=Flask("bare"))
    assert (result.exit_code, "init_app" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_damaged_file(run: Run, command: list[str], configured: Flask) -> None:
    """A damaged key file is named, and left as it is."""
    path = Path(configured.config["SECURE_ML_API_KEYS"])
    path.write_text("{")
    result: Any = run(*command)
    assert (result.exit_code, "damaged" in result.stderr, path.read_text()) == (1, True, "{")


@pytest.mark.parametrize("command", ["show", "rotate", "revoke", "disable", "enable"])
@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        pytest.param(LEAKED, f"that is a key; use its id, {key_id(LEAKED)}\n", id="key"),
        pytest.param(LEAKED[:-1], "that is not a key id\n", id="part of a key"),
    ],
)
def test_a_key_in_the_place_of_its_id(run: Run, command: str, typed: str, answer: str) -> None:
    """A leaked key may be pasted as an id. The message has its id, but never repeats the secret."""
    result = run(command, typed)
    assert (result.exit_code, result.stderr) == (1, f"Error: {answer}")
