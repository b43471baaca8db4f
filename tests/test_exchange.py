"""The exchange: each attribute has one writer, and shared methods keep the first value."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import NotFound

import flask_secure_ml
from flask_secure_ml import Exchange, Principal
from flask_secure_ml.config.plans import Plan
from flask_secure_ml.errors import RateLimited

PACKAGE = Path(flask_secure_ml.__file__).parent
SOURCE = PACKAGE / "exchange.py"
ANY_GUARD = {"reply_headers"}
"""The one slot to which guards add, each under names of its own."""

CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("id", 0.0, 0.0, "127.0.0.1", "127.0.0.1", True)


# --- one writer for each slot ---------------------------------------------------------------------------------------


def documented() -> dict[str, str]:
    """Return the writer of each slot, as the comments in exchange.py name it."""
    writers: dict[str, str] = {}
    writer = ""
    for line in SOURCE.read_text(encoding="utf-8").splitlines():
        if (block := re.match(r"    # Written by ([\w/]+(?:\.py)?)", line)) is not None:
            writer = block[1]
        elif (slot := re.match(r"    (\w+): ", line)) is not None and writer:
            writers[slot[1]] = writer
        elif line.startswith("    def "):
            break
    return writers


def written_by(path: Path) -> Iterator[str]:
    """Yield the slots that a module assigns or changes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [each for target in node.targets for each in ast.walk(target) if isinstance(each, ast.expr)]
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            targets = [node.func.value]
        for target in targets:
            slot = target.value if isinstance(target, ast.Subscript) else target
            if isinstance(slot, ast.Attribute) and is_exchange(slot.value, path):
                yield slot.attr


def is_exchange(node: ast.expr, path: Path) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") in {"exchange", "outer", "current_exchange"} or (name == "self" and path == SOURCE)


def test_each_slot_has_one_writer() -> None:
    """No module writes a slot that exchange.py gives to another one."""
    writers = documented()
    found = {
        (path.relative_to(PACKAGE).as_posix(), "_principal" if slot == "principal" else slot)
        for path in sorted(PACKAGE.rglob("*.py"))
        for slot in written_by(path)
    }
    strange = [
        (module, slot)
        for module, slot in sorted(found)
        if slot not in ANY_GUARD and not module.startswith(writers.get(slot, "?")) and (module, slot) != SETTER
    ]
    assert strange == []
    # The opener gives the first block to the constructor; every other slot has a writer that exists.
    assigned = {slot for _, slot in found}
    assert [slot for slot, writer in writers.items() if writer != "transport/proxy.py" and slot not in assigned] == []


SETTER = ("exchange.py", "_principal")


def test_every_slot_is_documented() -> None:
    """Each is in a block that names its writer."""
    assert documented().keys() == {field.name for field in fields(Exchange)}


@pytest.mark.parametrize(
    "line",
    [
        "exchange.code = 1",
        "self._exchange.code = 1",
        "exchange.code, other = 1, 2",
        "exchange.code += 1",
        "del exchange.code",
        "exchange.code['x'] = 1",
        "exchange.code.update(x=1)",
        "current_exchange.code = 1",
    ],
)
def test_every_kind_of_write_is_found(tmp_path: Path, line: str) -> None:
    """The test above would see it."""
    module = tmp_path / "module.py"
    module.write_text(line)
    assert set(written_by(module)) == {"code"}


# --- what several parts report ----------------------------------------------------------------------------------------


def test_a_rejection_keeps_its_reason(exchange: Exchange) -> None:
    """An error of Flask has none, so it changes the code alone."""
    error = RateLimited("over 2 per minute")
    exchange.reject(error)
    assert (exchange.rejection, exchange.code) == (error, "rate_limited")
    exchange.reject(NotFound())
    assert (exchange.rejection, exchange.code) == (error, "not_found")


def test_a_problem_is_recorded(exchange: Exchange) -> None:
    """The document has the id of the request, and the exchange the code."""
    response = exchange.problem(NotFound())
    assert response.get_json()["request_id"] == "id"
    assert exchange.code == "not_found"


def test_the_first_fault_counts(exchange: Exchange) -> None:
    """An error while handling an error does not hide the first."""
    first = LookupError()
    exchange.fail(first)
    exchange.fail(ValueError())
    assert exchange.fault is first


@pytest.mark.parametrize("rows", [-1, 1.0, True, "7", None])
def test_used_rows(exchange: Exchange, rows: Any) -> None:
    """A whole number."""
    exchange.charge(7)
    with pytest.raises(ValueError, match="whole number"):
        exchange.charge(rows)
    assert exchange.used_rows == 7


def test_a_request_within_another(exchange: Exchange) -> None:
    """It keeps the connection and the caller, but no decisions."""
    exchange.principal = Principal("test", "ada")
    exchange.caller, exchange.plan = "test:ada", Plan()
    exchange.reject(RateLimited("over"))
    inner = exchange.within(time=1.0, started=2.0, method="POST", path="/predict")
    assert (inner.request_id, inner.principal, inner.client) == ("id", exchange.principal, "127.0.0.1")
    assert (inner.caller, inner.plan) == ("test:ada", exchange.plan)
    assert (inner.time, inner.method, inner.path, inner.code, inner.rejection) == (1.0, "POST", "/predict", None, None)
