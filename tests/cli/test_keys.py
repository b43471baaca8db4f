"""``flask secure-ml keys``: what an operator types, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.authentication.api_keys import key_id
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.testing import FakeClock, MemorySink

Run = Callable[..., Result]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000)


@pytest.fixture
def configured(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("TEST_PEPPER", "pepper-" * 6)
    app = Flask("model_app")
    app.config["SECURE_ML_API_KEYS_FILE"] = str(tmp_path / "keys.json")
    app.config["SECURE_ML_API_KEY_PEPPER"] = "env:TEST_PEPPER"
    app.config["SECURE_ML_PLANS"] = {"default": {}, "gold": {}}
    SecureML(clock=clock, sink=MemorySink()).init_app(app)

    @app.get("/whoami")
    def whoami() -> str:
        return "known"

    return app


@pytest.fixture
def run(configured: Flask) -> Run:
    return lambda *arguments, app=configured: app.test_cli_runner().invoke(secure_ml, ["keys", *arguments])


def status(app: Flask, key: str) -> int:
    return app.test_client().get("/whoami", base_url="https://localhost", headers={"X-API-Key": key}).status_code


def test_created_key_works_at_once(run: Run, configured: Flask) -> None:
    """The key is alone on stdout, the note on stderr, and the running app accepts it."""
    result = run("create", "--client", "ada", "--scope", "predict", "--scope", "metrics")
    key = result.stdout.strip()
    assert result.exit_code == 0
    assert key_id(key) == key[4:16]
    assert "cannot be shown again" in result.stderr
    assert status(configured, key) == 200


def test_create_as_json(run: Run) -> None:
    """--json prints the key and its terms."""
    result = run(
        "create", "--client", "ada", "--scope", "b", "--scope", "a", "--plan", "gold", "--expires-days", "90", "--json"
    )
    told = json.loads(result.stdout)
    assert told.pop("key")[4:16] == told.pop("id")
    assert told == {
        "client": "ada",
        "scopes": ["a", "b"],
        "plan": "gold",
        "created": 1_800_000_000,
        "expires": 1_800_000_000 + 90 * 86_400,
        "status": "active",
    }


def test_list_is_a_table_without_secrets(run: Run, clock: FakeClock) -> None:
    """The list shows who has which key, in columns, and never the key."""
    key = run("create", "--client", "ada", "--scope", "predict", "--expires-days", "1").stdout.strip()
    run("create", "--client", "a longer name")
    clock.advance(86_400)
    output = run("list").stdout
    first, second, third = output.splitlines()
    assert first.split() == ["Id", "Client", "Scopes", "Plan", "Created", "Expires", "Status"]
    assert second.split() == [key[4:16], "ada", "predict", "default", "2027-01-15", "2027-01-16", "active,", "expired"]
    assert third.split()[-1] == "active"
    assert first.index("Scopes") == second.index("predict") == third.index("-  ")
    assert key[17:] not in output


def test_list_as_json(run: Run) -> None:
    """--json prints a list of records without hashes."""
    assert json.loads(run("list", "--json").stdout) == []
    run("create", "--client", "ada")
    assert [sorted(each) for each in json.loads(run("list", "--json").stdout)] == [
        ["client", "created", "expires", "id", "plan", "scopes", "status"]
    ]


def test_revoked_key_is_refused_at_the_next_request(run: Run, configured: Flask) -> None:
    """A revocation reaches the running app without a restart."""
    key = run("create", "--client", "ada").stdout.strip()
    assert status(configured, key) == 200
    assert run("revoke", key[4:16]).exit_code == 0
    assert status(configured, key) == 401
    assert "revoked" in run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["create", "--client", "ada", "--plan", "golden"], "no plan 'golden'; it has default, gold", id="plan"
        ),
        pytest.param(["create", "--client", "a\nb"], "client name", id="client"),
        pytest.param(["create", "--client", "ada", "--scope", "a b"], "scope", id="scope"),
        pytest.param(["create"], "--client", id="no client"),
        pytest.param(["create", "--client", "ada", "--expires-days", "0"], "expires-days", id="no days"),
        pytest.param(["revoke", "nobody"], "no key with the id 'nobody'", id="unknown id"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], told: str) -> None:
    """A mistake is one sentence and a failing exit code, never a trace."""
    result = run(*arguments)
    assert result.exit_code in {1, 2}
    assert told in result.stderr


@pytest.mark.parametrize(
    "command", [["create", "--client", "x"], ["list"], ["revoke", "x"]], ids=lambda words: words[0]
)
def test_not_configured(run: Run, command: list[str], protected: Callable[..., Flask]) -> None:
    """Without a key file the message says which setting to make."""
    result = run(*command, app=protected())
    assert (result.exit_code, "SECURE_ML_API_KEYS_FILE" in result.stderr) == (1, True)


def test_not_protected(run: Run) -> None:
    """An app without SecureML is told so."""
    result = run("list", app=Flask("bare"))
    assert (result.exit_code, "init_app" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "command", [["create", "--client", "x"], ["list"], ["revoke", "x"]], ids=lambda words: words[0]
)
def test_damaged_file(run: Run, command: list[str], configured: Flask) -> None:
    """A damaged key file is named, and left as it is."""
    path = Path(configured.config["SECURE_ML_API_KEYS_FILE"])
    path.write_text("{")
    result: Any = run(*command)
    assert (result.exit_code, "damaged" in result.stderr, path.read_text()) == (1, True, "{")
