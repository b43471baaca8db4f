"""``flask secure-ml limits``: what an operator types, and what comes back."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_secure_ml import protect
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.testing import FakeClock
from servers import free_port
from support import HTTPS, MakeApp, caller

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
    """Every limit of which something is used, by its name and amount."""
    call(configured, "ada", 4)
    found = listed(run("show", "test:ada", "--json"))
    assert {limit: (line["used"], line["amount"], line["state"]) for (_, limit), line in found.items()} == {
        "plan:requests-60s": (4, 5, "near"),
        "route:x:requests-3600s": (4, 20, "ok"),
    }
    assert all(0 < line["resets_in"] <= 3600 for line in found.values())
    table = run("show", "test:ada").output.splitlines()
    assert table[0].split() == ["Caller", "Limit", "Used", "Of", "Resets", "in", "State"]
    assert run("show", "nobody").output == "nobody has used nothing of any limit.\n"


def test_list(configured: Flask, run: Run) -> None:
    """Those near or over a limit, or everybody."""
    call(configured, "ada", 5)
    call(configured, "bob", 1)
    assert {name: line["state"] for name, line in listed(run("list", "--json")).items()} == {
        ("test:ada", "plan:requests-60s"): "over"
    }
    assert {name for name, _ in listed(run("list", "--all", "--json"))} == {"test:ada", "test:bob"}


def test_nobody(run: Run) -> None:
    """No table without rows."""
    assert run("list").output == "Nobody is near a limit.\n"


def test_a_block_is_listed_and_lifted(configured: Flask, run: Run, clock: FakeClock) -> None:
    """Who went on is waiting, then blocked, until an operator clears the caller or it ends by itself."""
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
    assert run("clear", "test:ada").output == "nothing was counted for test:ada\n"


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["clear", "x"], ["usage"]], ids=" ".join)
def test_memory_cannot_be_seen(protected: MakeApp, run: Run, words: list[str]) -> None:
    """The message says what to set."""
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
    assert run("usage", "--until", "2026-10-31", app=billing).output == "Nothing was used.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "client,color"], "'color' is none of client, plan, route, day"),
        (["--since", "yesterday"], "'yesterday' does not match"),
        (["--csv", "--json"], "exclude each other"),
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
