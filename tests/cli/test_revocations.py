"""``flask secure-ml revocations``: commands and their output."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from flask_secure_ml import Principal
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.testing import FakeClock
from servers import free_port
from support import HTTPS, MakeApp, caller

ISSUER = "https://issuer.example"
KNOWN = f"SECURE_ML_TOKEN_ISSUERS has {ISSUER}"
NOW = 1_800_000_000
Run = Callable[..., Result]
COMMANDS = [
    ["token", "t1", "--issuer", ISSUER],
    ["principal", "x:y"],
    ["before", "now"],
    ["list"],
    ["undo", "x"],
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def configured(protected: MakeApp, tmp_path: Path) -> Flask:
    issuer = {"issuer": ISSUER, "audience": "a", "algorithms": ["RS256"], "jwks_uri": f"{ISSUER}/jwks"}
    return protected(STORE_URI=f"sqlite:{tmp_path}/state.db", TOKEN_ISSUERS=[issuer])


@pytest.fixture
def run(configured: Flask) -> Run:
    return lambda *words, app=configured: app.test_cli_runner().invoke(secure_ml, ["revocations", *words])


def rejected(app: Flask, principal: Principal) -> bool:
    try:
        app.extensions["secure_ml"].revocations.check(principal)
    except NotAuthenticated:
        return True
    return False


def last_word(result: Result) -> str:
    return result.output.split()[-1]


def test_token(run: Run, configured: Flask) -> None:
    """A token is named by its jti and its issuer; the message has the command to undo it."""
    done = run("token", "t1", "--issuer", ISSUER)
    assert done.exit_code == 0
    assert done.stdout == f"Revoked: token t1 of {ISSUER}; all workers apply this within a second.\n"
    assert re.fullmatch(r"To undo it: flask secure-ml revocations undo [0-9a-f]{24}\n", done.stderr)
    assert rejected(configured, Principal("jwt", "a", ISSUER, token_id="t1"))
    assert not rejected(configured, Principal("jwt", "a", ISSUER, token_id="t2"))


def test_no_revocations(run: Run) -> None:
    """No table without rows."""
    assert run("list").stdout == "No revocations.\n"


def test_days(run: Run, clock: FakeClock) -> None:
    """A revocation is kept for 31 days, longer than any token can live, or for --days."""
    run("token", "t1", "--issuer", ISSUER)
    run("token", "t2", "--issuer", ISSUER, "--days", "90")
    clock.advance(31 * 86_400 - 1)
    assert len(json.loads(run("list", "--json").stdout)) == 2
    clock.advance(1)
    assert [each["token_id"] for each in json.loads(run("list", "--json").stdout)] == ["t2"]


def test_app_rejects_the_caller(run: Run, configured: Flask) -> None:
    """The running app rejects it, and accepts it again after an undo."""

    def status() -> int:
        return configured.test_client().get("/x", base_url=HTTPS, headers=caller("ada")).status_code

    key = last_word(run("principal", "test:ada"))
    assert status() == 401
    assert run("undo", key).stdout == f"Removed: {key}; all workers apply this within a second.\n"
    assert status() == 404
    again = run("undo", key)
    assert (again.exit_code, "flask secure-ml revocations list" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("instant", "hit"),
    [
        pytest.param("now", True, id="now"),
        pytest.param("2027-01-15T08:00:00Z", True, id="a time in UTC"),
        pytest.param("2027-01-15T09:00:00+01:00", True, id="a time with a zone"),
        pytest.param("2027-01-15T08:00:00", True, id="a time without a zone is UTC"),
        pytest.param("2027-01-15T07:59:59", False, id="a second earlier"),
        pytest.param("2027-01-15", False, id="a day begins at midnight"),
    ],
)
def test_before(run: Run, configured: Flask, instant: str, hit: bool) -> None:
    """Credentials issued at that time or earlier."""
    assert run("before", instant).exit_code == 0
    assert rejected(configured, Principal("jwt", "a", ISSUER, issued=NOW)) is hit
    assert not rejected(configured, Principal("jwt", "a", ISSUER, issued=NOW + 1))


@pytest.mark.parametrize(
    ("words", "hit"),
    [
        pytest.param([], ["jwt", "api_key"], id="everyone"),
        pytest.param(["--issuer", ISSUER], ["jwt"], id="one issuer"),
        pytest.param(["--principal", "api_key:k"], ["api_key"], id="one caller"),
    ],
)
def test_before_of_some(run: Run, configured: Flask, words: list[str], hit: list[str]) -> None:
    """An option limits whose."""
    assert run("before", "now", *words).exit_code == 0
    principals = [Principal("jwt", "a", ISSUER, issued=NOW), Principal("api_key", "k", issued=NOW)]
    assert [each.kind for each in principals if rejected(configured, each)] == hit


def test_list_is_a_table(run: Run, clock: FakeClock) -> None:
    """Oldest first: what is revoked, since when, until when, and the id for undo."""
    for words in (
        ["token", "t1", "--issuer", ISSUER, "--days", "1"],
        ["principal", f"{ISSUER}#ada"],
        ["before", "now"],
    ):
        run(*words)
        clock.advance(60)
    rows = [re.split(r"  +", line.strip()) for line in run("list").stdout.splitlines()]
    assert [row[1:] for row in rows] == [
        ["Revoked", "Created", "Expires"],
        [f"token t1 of {ISSUER}", "2027-01-15 08:00", "2027-01-16 08:00"],
        [f"principal {ISSUER}#ada", "2027-01-15 08:01", "never"],
        ["credentials issued to anyone until 2027-01-15 08:02:00 UTC", "2027-01-15 08:02", "never"],
    ]
    assert run("undo", rows[1][0]).exit_code == 0


def test_json(run: Run) -> None:
    """--json prints the record, and the list of all."""
    expected = {
        "kind": "before",
        "issuer": ISSUER,
        "token_id": "",
        "principal": "",
        "instant": NOW,
        "created": NOW,
        "expires": None,
    }
    assert json.loads(run("list", "--json").stdout) == []
    done = json.loads(run("before", "now", "--issuer", ISSUER, "--json").stdout)
    assert json.loads(run("list", "--json").stdout) == [done]
    key = done.pop("id")
    assert done == expected
    assert run("undo", key).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["token", "t1", "--issuer", ISSUER + "/"],
            f"unknown issuer '{ISSUER}/'; SECURE_ML_TOKEN_ISSUERS has {ISSUER}",
            id="issuer",
        ),
        pytest.param(
            ["before", "now", "--issuer", "x"],
            f"unknown issuer 'x'; SECURE_ML_TOKEN_ISSUERS has {ISSUER}",
            id="issuer of before",
        ),
        pytest.param(["token", "t1"], "--issuer", id="no issuer"),
        pytest.param(["token", "", "--issuer", ISSUER], "1 to", id="no jti"),
        pytest.param(["token", "t1", "--issuer", ISSUER, "--days", "0"], "--days", id="no days"),
        pytest.param(["principal", "ada"], "'ada' is not a principal", id="subject alone"),
        pytest.param(["before", "yesterday"], "neither a time such as", id="no time"),
        pytest.param(["before", "2027-01-16"], "in the future", id="in the future"),
        pytest.param(["before", "1969-12-31"], "since the epoch", id="before the epoch"),
        pytest.param(["before", "now", "--issuer", ISSUER, "--principal", "x:y"], "not both", id="both"),
        pytest.param(
            ["undo", "nothing"], "unknown revocation 'nothing'; see: flask secure-ml revocations list", id="undo"
        ),
    ],
)
def test_mistakes(run: Run, words: list[str], message: str) -> None:
    """A mistake is one message and a nonzero exit code; nothing is revoked."""
    done = run(*words)
    assert done.exit_code in {1, 2}
    assert message in done.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_going_back_takes_an_undo(run: Run) -> None:
    """An earlier instant would accept rejected tokens; the message has the command to run first."""
    key = last_word(run("before", "now"))
    done = run("before", "2027-01-14")
    assert (done.exit_code, f"undo {key} first" in done.stderr) == (1, True)


def test_no_issuers(run: Run, protected: MakeApp, tmp_path: Path) -> None:
    """The message lists the configured methods."""
    app = protected(STORE_URI=f"sqlite:{tmp_path}/other.db")
    assert "SECURE_ML_TOKEN_ISSUERS is empty" in run(*COMMANDS[0], app=app).stderr


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda words: words[0])
def test_memory_cannot_be_reached(run: Run, protected: MakeApp, command: list[str]) -> None:
    """A command is a separate process: it names the setting to change instead of having no effect."""
    done = run(*command, app=protected())
    assert (done.exit_code, done.stdout) == (1, "")
    assert "SECURE_ML_STORE_URI is memory:" in done.stderr
    assert "sqlite:/path" in done.stderr


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda words: words[0])
def test_store_that_is_down(run: Run, protected: MakeApp, command: list[str]) -> None:
    """The message has the reason, without a traceback and without the password."""
    port = free_port()
    app = protected(STORE_URI=f"redis://:hunter2@127.0.0.1:{port}")
    done = run(*command, app=app)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"the shared store failed: ConnectionError at 127.0.0.1:{port}" in done.stderr
    # Only a change may be half done.
    assert ("flask secure-ml revocations list" in done.stderr) == (command != ["list"])
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_damaged_store(run: Run, command: list[str], tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "state.db").write_bytes(b"damaged" * 1000)
    done = run(*command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(tmp_path / "state.db") in done.stderr
