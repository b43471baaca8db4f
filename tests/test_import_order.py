"""Imports point one way: core, then rooms, then the extension and the commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flask_secure_ml

PACKAGE = Path(flask_secure_ml.__file__).parent
CORE = [
    "errors",
    "paths",
    "refresh",
    "strictjson",
    "watched",
    "vault",
    "secrets",
    "exchange",
    "authorization_terms",
    "cap_terms",
    "output_terms",
    "policy",
    "policy_table",
    "checks",
    "issuers",
    "mtls_clients",
    "stores",
    "settings",
    "contradictions",
    "config",
    "pipeline",
]
ROOMS = ["transport", "authentication", "authorization", "limits", "inputs", "outputs", "observe", "models"]
TOP = ["signals", "state", "wellknown", "openapi", "assembly", "gate", "extension", "cli", "testing", "__init__"]
PROXIES = {"request", "current_app", "g", "session"}
MAY_USE_PROXIES = {"extension", "exchange", "state", "policy", "cli"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """Return the room or top-level module that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_units(path: Path) -> Iterator[str]:
    """Yield the parts of the package that a file imports when it runs (not for types only)."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk all nodes but the bodies of ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def layer(name: str) -> int:
    return next(number for number, names in enumerate((CORE, ROOMS, TOP)) if name in names)


def is_allowed(own: str, other: str) -> bool:
    return own == other or (layer(other) <= layer(own) and not layer(own) == layer(other) == 1)


def test_imports_point_one_way() -> None:
    """A lower layer never imports a higher one, and no room imports another room."""
    found = [(path.relative_to(PACKAGE), other) for path in MODULES for other in imported_units(path)]
    assert [(str(path), other) for path, other in found if not is_allowed(unit(PACKAGE / path), other)] == []


def test_flask_proxies_stay_in_five_places() -> None:
    """A guard gets the request as an argument, so it can be tested without an app."""
    using = [path for path in MODULES if proxies_in(path) and unit(path) not in MAY_USE_PROXIES]
    assert using == []


def proxies_in(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "flask" for alias in node.names} & PROXIES


def test_modules_stay_small() -> None:
    """A module above 350 lines holds a second idea."""
    assert [path for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []


def test_optional_packages_are_imported_only_when_used() -> None:
    """Importing the package loads neither a Redis client, nor Sentry, nor any other extra."""
    optional = {"redis", "sentry_sdk", "gunicorn", "sklearn", "PIL", "hvac", "model_signing", "msgpack", "backports"}
    optional |= {"apispec", "pyarrow", "onnx", "yaml"}
    code = f"import sys, flask_secure_ml; print({optional} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
