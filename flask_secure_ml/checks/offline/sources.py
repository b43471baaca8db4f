"""Checks of the app's source code: unverified model files, and secrets in the code."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from ..finding import Check, Found, Severity, Where
from ..setup import Setup

LOADERS = frozenset(
    {
        "pickle.load",
        "pickle.loads",
        "cloudpickle.load",
        "dill.load",
        "joblib.load",
        "torch.load",
        "keras.models.load_model",
        "keras.saving.load_model",
        "tf.keras.models.load_model",
        "tensorflow.keras.models.load_model",
        "mlflow.pyfunc.load_model",
        "mlflow.sklearn.load_model",
        "pandas.read_pickle",
        "pd.read_pickle",
        "onnxruntime.InferenceSession",
        "ort.InferenceSession",
        "xgboost.Booster",
        "lightgbm.Booster",
    }
)
"""Functions that load a model file without verification, under their usual names."""

# Pickles are rejected even if the digest matches, unless they are allowed.
_PICKLES = frozenset(
    {"pickle.load", "cloudpickle.load", "dill.load", "joblib.load", "pandas.read_pickle", "pd.read_pickle"}
)

RANDOM = frozenset({"os.urandom", "secrets.token_bytes", "secrets.token_hex", "secrets.token_urlsafe", "uuid.uuid4"})
"""Functions that return a different value in each process."""

_SECRET_KEY = "SECRET_KEY"  # noqa: S105  its name

SHORTEST_SECRET = 8
"""Minimum length of a string that is compared with secrets; shorter ones match by chance."""


def unverified_loads(setup: Setup) -> Iterator[Found]:
    """Yield the calls that load a model without verifying its digest.

    Code inside a call of ``load_verified`` gets verified bytes and is not reported.
    """
    for path, tree in _sources(setup):
        names = _imported(tree)
        for call in _calls(tree):
            name = _name(call.func, names)
            if name in LOADERS and (call.args or call.keywords):
                allow = ', allow=["pickle"]' if name in _PICKLES else ""
                fix = f'load_verified({_file_of(call)}, sha256="...", loader={name}{allow})'
                yield Found(_at(path, call), f"{name} loads a file without verification", fix)


def _file_of(call: ast.Call) -> str:
    """Return the name of the loaded file as a Python literal, or an example."""
    first = call.args[0] if call.args else None
    name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else "model.bin"
    return json.dumps(name)


def secrets_in_code(setup: Setup) -> Iterator[Found]:
    """Yield the strings in the code that equal a configured secret."""
    secrets = dict(_secrets(setup))
    for path, tree in _sources(setup):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                value = node.value.encode() if isinstance(node.value, str) else node.value
                if len(value) >= SHORTEST_SECRET and value in secrets:
                    yield Found(_at(path, node), f"{path.name} contains the value of {secrets[value]}")


def random_secret_keys(setup: Setup) -> Iterator[Found]:
    """Yield the assignments that give each process a different secret key."""
    for path, tree in _sources(setup):
        names = _imported(tree)
        for value in _secret_keys(tree):
            calls = (each for each in ast.walk(value) if isinstance(each, ast.Call))
            if any(_name(call.func, names) in RANDOM for call in calls):
                yield Found(_at(path, value), f"{path.name} sets SECRET_KEY to a random value")


def _secret_keys(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the expressions that the code assigns to ``SECRET_KEY``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(map(_is_secret_key, node.targets)):
            yield node.value
        elif isinstance(node, ast.Call):
            yield from (each.value for each in node.keywords if each.arg == _SECRET_KEY)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == _SECRET_KEY)


def _is_secret_key(target: ast.expr) -> bool:
    if isinstance(target, ast.Attribute):
        return target.attr == "secret_key"
    if isinstance(target, ast.Subscript):
        return isinstance(target.slice, ast.Constant) and target.slice.value == _SECRET_KEY
    return isinstance(target, ast.Name) and target.id == _SECRET_KEY


def _secrets(setup: Setup) -> Iterator[tuple[bytes, str]]:
    for key in [setup.app.secret_key, *(setup.app.config.get("SECRET_KEY_FALLBACKS") or ())]:
        if key:
            yield (key.encode() if isinstance(key, str) else key), "SECRET_KEY"
    for name, ring in setup.secrets:
        # Another check reports secrets that cannot be read.
        with suppress(ValueError):
            for value in ring.read():
                yield value, name


def _at(path: Path, node: ast.expr) -> Where:
    return Where("file", path.name, str(path), node.lineno)


def _sources(setup: Setup) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the parsed source files of the views and of the objects that their modules refer to."""
    modules = {inspect.getmodule(inspect.unwrap(view)) for view in setup.app.view_functions.values()}
    for module in list(modules):
        if module is not None and not _foreign(str(getattr(module, "__file__", None) or "")):
            modules |= {each for each in map(_home, [*vars(module).values()]) if each is not None}
    files = {str(getattr(module, "__file__", None) or "") for module in modules}
    for file in sorted(each for each in files if each.endswith(".py") and not _foreign(each)):
        with suppress(OSError, SyntaxError, ValueError):
            yield Path(file), ast.parse(Path(file).read_bytes())


def _home(value: object) -> ModuleType | None:
    """Return the module that defines a value, or the value itself if it is a module."""
    if isinstance(value, ModuleType):
        return value
    return inspect.getmodule(value) if isinstance(value, (FunctionType, type)) else None


@cache
def _foreign(file: str) -> bool:
    """Return True if a file belongs to an installed package, the standard library or this package."""
    path = Path(file)
    library, package = Path(ast.__file__).parent, Path(__file__).parents[2]
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return bool(installed) or library in path.parents or package in path.parents


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return the full name of each imported name: ``load`` may be ``joblib.load``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls, except those inside a call of ``load_verified`` or a related function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            if _last(child.func).startswith("load_verified"):
                continue
            yield child
        yield from _calls(child)


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _name(function: ast.expr, names: dict[str, str]) -> str:
    """Return the dotted name of a called function, with imported names resolved."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ""
    return ".".join([names.get(function.id, function.id), *reversed(parts)])


CHECKS = (
    Check(
        "SML701",
        Severity.WARNING,
        "A model is loaded without verification",
        "Anyone who can replace the file can run code in the server, or replace the model unnoticed (CWE-502).",
        'load_verified("model.npz", sha256="...", loader=numpy.load)',
        unverified_loads,
    ),
    Check(
        "SML212",
        Severity.WARNING,
        "The source code contains a secret",
        "Anyone who can read the repository gets it from the history, even after it was removed (CWE-798).",
        'SECRET_KEY from FLASK_SECRET_KEY, SECURE_ML_API_KEY_PEPPER = "env:API_KEY_PEPPER", and new values',
        secrets_in_code,
    ),
    Check(
        "SML213",
        Severity.WARNING,
        "Each process has a different secret key",
        "A session is valid only at the worker that created it, and only until the next restart.",
        "SECRET_KEY from FLASK_SECRET_KEY, the same for all workers and machines",
        random_secret_keys,
    ),
)
