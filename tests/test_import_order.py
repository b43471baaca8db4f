"""Imports point one way, from the packages at the top down to the errors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flask_secure_ml

PACKAGE = Path(flask_secure_ml.__file__).parent
# From the bottom to the top: what stands in one line may import what stands in the lines above it, and its own kind.
LAYERS = (
    ("errors", "describing", "strictjson", "npy", "refresh", "principal", "secrets", "fetch"),
    ("principal",),
    ("exchange", "policy"),
    ("pipeline",),
    ("config",),
    ("stores",),
)
STAGES = {
    "transport",
    "authentication",
    "authorization",
    "limits",
    "inputs",
    "outputs",
    "observe",
    "model_files",
}
TOP = {"signals", "state", "openapi", "extension", "wiring", "checks", "cli", "deploy", "testing", "__init__"}
PROXIES = {"request", "current_app", "g", "session"}
MAY_USE_PROXIES = {"wiring", "exchange", "state", "policy", "cli"}
pytestmark = pytest.mark.slow
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """Return the package or module of the root that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_units(path: Path) -> Iterator[str]:
    """Yield the parts of the package that a file imports when it runs (not for types only)."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def runtime_nodes(tree: ast.AST, *, functions: bool = True) -> Iterator[ast.AST]:
    """Walk all nodes but the bodies of ``if TYPE_CHECKING`` and, if so wanted, of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from runtime_nodes(node, functions=functions)


def layer(name: str) -> int:
    if name in STAGES | TOP:
        return len(LAYERS) + (name in TOP)
    return next(number for number, names in enumerate(LAYERS) if name in names)


def is_allowed(own: str, other: str) -> bool:
    return own == other or (layer(other) <= layer(own) and not {own, other} <= STAGES)


def test_imports_point_one_way() -> None:
    """A lower layer never imports a higher one, and no package of a stage imports another."""
    found = [(path.relative_to(PACKAGE), other) for path in MODULES for other in imported_units(path)]
    assert [(str(path), other) for path, other in found if not is_allowed(unit(PACKAGE / path), other)] == []


def test_no_circle_of_modules() -> None:
    """No module needs itself, however far around."""
    uses = {name_of(path): set(imported_modules(path)) for path in MODULES}
    circles = [name for name in uses if name in reachable(uses, name)]
    assert circles == []


def reachable(uses: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    queue = list(uses[start])
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += uses.get(name, ())
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports when it is imported itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8")), functions=False):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = [*parts[: len(parts) - node.level], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                whole = PACKAGE.joinpath(*folder, alias.name)
                is_module = whole.with_suffix(".py").exists() or (whole / "__init__.py").exists()
                target = ".".join([*folder, alias.name] if is_module else folder)
                if target != name_of(path):
                    yield target


def test_the_root_stays_small() -> None:
    """Fifteen modules at the most; the rest are in folders named after their concepts."""
    assert len(list(PACKAGE.glob("*.py"))) <= 15


def test_flask_proxies_stay_in_five_places() -> None:
    """A guard gets the request as an argument, so it can be tested without an app."""
    using = [path for path in MODULES if proxies_in(path) and unit(path) not in MAY_USE_PROXIES]
    assert using == []


def proxies_in(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "flask" for alias in node.names} & PROXIES


def test_modules_stay_small() -> None:
    """A module above 350 lines contains more than one idea."""
    assert [path for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []


def test_optional_packages_are_imported_only_when_used() -> None:
    """Importing the package loads no Redis client, Sentry or other extra."""
    optional = {"redis", "sentry_sdk", "gunicorn", "sklearn", "PIL", "hvac", "model_signing", "msgpack", "backports"}
    optional |= {"apispec", "pyarrow", "onnx", "yaml"}
    code = f"import sys, flask_secure_ml; print({optional} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
