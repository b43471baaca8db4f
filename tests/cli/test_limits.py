"""``flask secure-ml limits``: commands and their output."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from audited_app import Audited
from flask_secure_ml import protect
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.secrets import secret_ring
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from servers import free_port
from stored_keys import stored_key
from support import HTTPS, RANDOM_SECRET, MakeApp, NameAuthenticator, caller

Run = Callable[..., Result]
PLANS = {"default": {"requests": ["5/minute"], "in_flight": 3}, "gold": {"requests": ["50/minute"]}}
BACKOFF = {"tolerance": 1, "base": 30, "jitter": 0, "block_after": 2, "block": 4000}


@pytest.fixture
def configured(protected: MakeApp, tmp_path: Path) -> Flask:
    app = protected(STORE_URI=f"sqlite:{tmp_path}/state.db", PLANS=PLANS, LIMIT_BACKOFF=BACKOFF)
    app.add_url_rule("/x", "x", protect(limits=["20/hour"])(lambda: "ok"))
    return app


@pytest.fixture
def run(configured: Flask) -> Run:
    return lambda *words, app=configured: app.test_cli_runner().invoke(secure_ml, ["limits", *words])


def call(app: Flask, name: str, times: int) -> list[int]:
    client = app.test_client()
    return [client.get("/x", base_url=HTTPS, headers=caller(name)).status_code for _ in range(times)]


def listed(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["caller"], line["limit"]): line for line in json.loads(result.output)}


def test_show(configured: Flask, run: Run) -> None:
    """Every limit with usage, by its name and amount."""
    call(configured, "ada", 4)
    found = listed(run("show", "test:ada", "--json"))
    assert {limit: (line["used"], line["amount"], line["state"]) for (_, limit), line in found.items()} == {
        "plan:requests-60s": (4, 5, "near"),
        "route:x:requests-3600s": (4, 20, "ok"),
    }
    assert all(0 < line["resets_in"] <= 3600 for line in found.values())
    table = run("show", "test:ada").output.splitlines()
    assert table[0].split() == ["Caller", "Limit", "Used", "Of", "Resets", "in", "State"]
    assert run("show", "nobody").output == "nobody has no usage.\n"


def test_list(configured: Flask, run: Run) -> None:
    """Callers near or over a limit, or all."""
    call(configured, "ada", 5)
    call(configured, "bob", 1)
    assert {name: line["state"] for name, line in listed(run("list", "--json")).items()} == {
        ("test:ada", "plan:requests-60s"): "over"
    }
    assert {name for name, _ in listed(run("list", "--all", "--json"))} == {"test:ada", "test:bob"}


def gold(protected: MakeApp, tmp_path: Path, **settings: Any) -> Flask:
    """Return an app whose callers have the plan gold."""
    app = protected(
        STORE_URI=f"sqlite:{tmp_path}/state.db",
        PLANS=PLANS,
        parts={"authenticators": [NameAuthenticator("gold")]},
        **settings,
    )
    app.add_url_rule("/x", "x", protect()(lambda: "ok"))
    return app


@pytest.mark.parametrize(
    ("used", "amount", "state"), [(4, 5, "near"), (6, 50, "ok"), (49, 50, "near"), (50, 50, "over")]
)
def test_a_plan_that_is_not_known(
    protected: MakeApp, tmp_path: Path, run: Run, used: int, amount: int, state: str
) -> None:
    """Of a caller with a token: the least amount that it did not exceed."""
    app = gold(protected, tmp_path)
    assert call(app, "ada", used) == [200] * used
    line = listed(run("show", "test:ada", "--json", app=app))["test:ada", "plan:requests-60s"]
    assert (line["used"], line["amount"], line["state"]) == (used, amount, state)


def test_the_plan_of_a_key(
    protected: MakeApp, tmp_path: Path, run: Run, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API key has the amounts of its plan, also when it is near those of another one."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = gold(protected, tmp_path, API_KEYS="store", API_KEY_PEPPER="env:PEPPER")
    keys = state_of(app).keys
    assert keys is not None
    key = stored_key(keys, secret_ring("env:PEPPER"), clock, plan="gold")
    client = app.test_client()
    assert [client.get("/x", base_url=HTTPS, headers={"X-API-Key": key}).status_code for _ in range(5)] == [200] * 5
    (line,) = listed(run("list", "--all", "--json", app=app)).values()
    assert (line["limit"], line["used"], line["amount"], line["state"]) == ("plan:requests-60s", 5, 50, "ok")


def test_nobody(run: Run) -> None:
    """No table without rows."""
    assert run("list").output == "No caller is near a limit.\n"
    assert run("list", "--all").output == "No caller has used a limit.\n"


@pytest.mark.parametrize("command", ["show", "clear"])
def test_a_network_instead_of_a_caller(run: Run, command: str) -> None:
    """The message has the name of an anonymous caller, and that these commands do not lift the block of a network."""
    output = run(command, "192.0.2.1").output
    assert "an anonymous caller is address:192.0.2.1, and the block of a network ends by itself" in output
    assert "anonymous" not in run(command, "api_key:lost").output


def test_a_block_is_listed_and_lifted(configured: Flask, run: Run, clock: FakeClock) -> None:
    """A caller that continues waits, then is blocked, until an operator clears it or the block ends."""
    call(configured, "ada", 6)
    states = set()
    for _ in range(20):
        clock.advance(2)
        call(configured, "ada", 1)
        states.add(listed(run("show", "test:ada", "--json")).get(("test:ada", "backoff"), {}).get("state"))
    assert states == {None, "waiting", "blocked"}
    line = listed(run("list", "--json"))["test:ada", "backoff"]
    assert (line["used"] >= 2, line["amount"], line["state"]) == (True, 2, "blocked")
    clock.advance(120)
    assert call(configured, "ada", 1) == [429]
    assert run("clear", "test:ada").output == "cleared: test:ada\n"
    clock.advance(1)
    assert call(configured, "ada", 1) == [200]
    assert json.loads(run("clear", "test:ada", "--json").output) == {"principal": "test:ada", "cleared": True}
    assert run("clear", "test:ada").output == "test:ada has no counters\n"


def test_the_audit_log_has_the_operator(tmp_path: Path, clock: FakeClock) -> None:
    """Of a command that lifted limits; a command that changed nothing has no record."""
    audited = Audited(tmp_path, clock, STORE_URI=f"sqlite:{tmp_path}/state.db")
    runner = audited.app.test_cli_runner()
    audited.client.get("/unknown", base_url=HTTPS, headers=caller("ada"))
    for _ in range(2):
        assert runner.invoke(secure_ml, ["limits", "clear", "test:ada"]).exit_code == 0
    (record,) = audited.records("limits_cleared")
    assert record["subject"] == "test:ada"
    assert record["user"]


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["clear", "x"], ["usage"]], ids=" ".join)
def test_memory_cannot_be_seen(protected: MakeApp, run: Run, words: list[str]) -> None:
    """The message names the setting to change."""
    result = run(*words, app=protected())
    assert result.exit_code == 1
    assert "SECURE_ML_STORE_URI" in result.output


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["clear", "x"], ["usage"]], ids=" ".join)
def test_store_that_is_down(protected: MakeApp, run: Run, words: list[str]) -> None:
    """A sentence and no traceback."""
    result = run(*words, app=protected(STORE_URI=f"redis://127.0.0.1:{free_port()}", USAGE_DAYS=1))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output


# --- usage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def billing(protected: MakeApp, tmp_path: Path, clock: FakeClock) -> Flask:
    """An app that counts usage, with three requests yesterday and three today."""
    app = protected(STORE_URI=f"sqlite:{tmp_path}/state.db", USAGE_DAYS=400)
    app.add_url_rule("/x", "x", protect()(lambda: "ok"))
    app.add_url_rule("/y", "y", protect()(lambda: "ok"))
    clock.advance(dt.datetime(2026, 11, 14, 23, tzinfo=dt.UTC).timestamp() - clock.now())
    client = app.test_client()
    for _ in range(2):
        for name, path in (("bob", "/x"), ("ada", "/y"), ("ada", "/x")):
            client.get(path, base_url=HTTPS, headers=caller(name))
        clock.advance(3600)
    return app


def sums(result: Result) -> list[tuple[Any, ...]]:
    assert result.exit_code == 0, result.output
    return [tuple(line.values()) for line in json.loads(result.output)]


def test_usage(billing: Flask, run: Run) -> None:
    """By any of the groups, from the first of the month to today unless the days are given."""
    assert sums(run("usage", "--json", app=billing)) == [("test:ada", 4, 0, 0), ("test:bob", 2, 0, 0)]
    assert sums(run("usage", "--json", "--by", "route,client", app=billing)) == [
        ("x", "test:ada", 2, 0, 0),
        ("x", "test:bob", 2, 0, 0),
        ("y", "test:ada", 2, 0, 0),
    ]
    by_day = ("usage", "--json", "--by", "day")
    assert sums(run(*by_day, app=billing)) == [("2026-11-14", 3, 0, 0), ("2026-11-15", 3, 0, 0)]
    assert sums(run(*by_day, "--since", "2026-11-15", app=billing)) == [("2026-11-15", 3, 0, 0)]
    assert sums(run(*by_day, "--until", "2026-11-14", app=billing)) == [("2026-11-14", 3, 0, 0)]
    assert sums(run(*by_day, "--until", "2026-10-31", app=billing)) == []


def test_usage_as_csv_and_as_a_table(billing: Flask, run: Run) -> None:
    """For a spreadsheet, and to read."""
    csv = run("usage", "--csv", "--by", "client,plan,route", app=billing)
    assert csv.output.splitlines()[:2] == ["client,plan,route,requests,rows,cost", "test:ada,default,x,2,0,0"]
    table = run("usage", "--by", "client,plan", app=billing).output.splitlines()
    assert [line.split() for line in table[:2]] == [
        ["Client", "Plan", "Requests", "Rows", "Cost"],
        ["test:ada", "default", "4", "0", "0"],
    ]
    assert run("usage", "--until", "2026-10-31", app=billing).output == "No usage.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "client,color"], "'color' is not one of client, plan, route, day"),
        (["--since", "yesterday"], "'yesterday' does not match"),
        (["--csv", "--json"], "mutually exclusive"),
    ],
    ids=str,
)
def test_mistakes_about_usage(billing: Flask, run: Run, words: list[str], said: str) -> None:
    """Each is named."""
    result = run("usage", *words, app=billing)
    assert result.exit_code == 2
    assert said in result.output


def test_usage_that_is_not_counted(run: Run) -> None:
    """The message names the setting."""
    result = run("usage")
    assert result.exit_code == 1
    assert "SECURE_ML_USAGE_DAYS" in result.output
