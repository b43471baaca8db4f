"""The Python examples in the README and the documentation run, and their routes reject anonymous requests."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from doc_blocks import HOWTO, ROOT, blocks, write_file
from flask_secure_ml import SecureML
from flask_secure_ml.state import state_of
from loggers import unchanged_loggers

PAGES = sorted([ROOT / "README.rst", *(ROOT / "docs").rglob("*.rst")])


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


def pages_with(marked: str) -> list[Any]:
    return [pytest.param(page, id=name_of(page)) for page in PAGES if blocks(page, marked)]


def run(page: Path) -> Flask:
    """Run the complete blocks of a page in one namespace and return the app that they made."""
    namespace: dict[str, Any] = {"__name__": f"snippets_of_{page.stem}"}
    for code in blocks(page, ":class: complete"):
        exec(compile(code, str(page), "exec"), namespace)
    app = namespace["create_app"]() if "create_app" in namespace else namespace["app"]
    assert isinstance(app, Flask)
    return app


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Pages that configure logging do so for the whole process."""
    with unchanged_loggers("flask_secure_ml", "model.requests"):
        yield


@pytest.mark.parametrize("page", pages_with(""))
def test_python_parses(page: Path) -> None:
    """Every block is Python, also those that show a part only."""
    for code in blocks(page):
        ast.parse(code)


@pytest.mark.parametrize("page", pages_with(":class: complete"))
def test_complete_example_is_closed_to_strangers(page: Path) -> None:
    """A complete example starts, its policies match its routes, and routes that are not public respond with 401."""
    app = run(page)
    SecureML.check(app)
    client = app.test_client()
    for rule, method, policy in state_of(app).policies.routes():
        if rule.arguments or method == "OPTIONS":
            continue
        response = client.open(rule.rule, method=method, base_url="https://localhost")
        assert (response.status_code == 401) is not policy.public, f"{method} {rule}: {response.status}"


def test_example_tests_pass(tmp_path: Path) -> None:
    """The tests that the page on testing shows pass, as a user would run them."""
    for file in ("app.py", "test_app.py"):
        write_file(HOWTO / "test_your_app.rst", file, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
