"""The inputs of an MLflow model, from the signature in its ``MLmodel`` file, which is JSON inside YAML.

The YAML is parsed into nodes only, so it cannot construct objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...strictjson import StrictJSONError, loads
from . import ModelInput, ModelInputsError

MAX_BYTES = 4 << 20
_MAX_DEPTH = 4  # the list, an input, its tensor-spec, its shape
# The types of columns; the others (string, binary, datetime, Array, Object) are not numbers.
_TYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


def of_file(path: Path) -> list[ModelInput]:
    """Return the inputs: one table for a signature of columns, or each tensor of a signature of tensors.

    :raises ModelInputsError: the package ``yaml`` is not installed, there is no signature, the signature is not in the
        form that MLflow writes, or columns have strings, binary data or times.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ModelInputsError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        return _of_specs(loads(_encoded(_signature(raw)), max_depth=_MAX_DEPTH))
    except (ModelInputsError, StrictJSONError) as error:
        raise ModelInputsError(f"the signature in {path} cannot be used: {error}") from None


def _signature(raw: bytes) -> str:
    try:
        yaml = import_module("yaml")
    except ImportError:
        raise ModelInputsError("MLflow models need the package PyYAML: pip install 'flask-secure-ml[mlflow]'") from None
    try:
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ModelInputsError("the file is not YAML") from None
    found = _member(_member(node, "signature"), "inputs")
    if found.id != "scalar" or not found.tag.endswith(":str"):
        raise ModelInputsError("its inputs are not a string")
    return str(found.value)


def _encoded(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        # YAML escapes can contain lone surrogates.
        raise ModelInputsError("its inputs contain a lone surrogate") from None


def _member(node: Any, name: str) -> Any:
    pairs = node.value if node is not None and node.id == "mapping" else []
    values = [value for key, value in pairs if key.value == name]
    if len(values) != 1:
        raise ModelInputsError(f"there must be exactly one {name}")
    return values[0]


def _of_specs(specs: Any) -> list[ModelInput]:
    if type(specs) is not list or not specs or not all(type(each) is dict for each in specs):
        raise ModelInputsError("its inputs are not a list of objects")
    kinds = {each.get("type") == "tensor" for each in specs}
    if kinds == {True}:
        return [_tensor(each) for each in specs]
    if kinds == {False}:
        return [_table(specs)]
    raise ModelInputsError("it has both columns and tensors")


def _name(spec: dict[str, Any]) -> str | None:
    name = spec.get("name")
    if name is not None and (type(name) is not str or not name):
        raise ModelInputsError("a name is not a string")
    return name


def _tensor(spec: dict[str, Any]) -> ModelInput:
    inner = spec.get("tensor-spec")
    if type(inner) is not dict or inner.keys() != {"dtype", "shape"}:
        raise ModelInputsError("a tensor has no dtype and shape")
    dtype, shape = inner["dtype"], inner["shape"]
    if type(dtype) is not str or dtype not in _DTYPES:
        raise ModelInputsError("a tensor is not of booleans, integers or floats of up to 64 bits")
    if (
        type(shape) is not list
        or not shape
        or not all(type(each) is int and (each == -1 or each > 0) for each in shape)
    ):
        raise ModelInputsError("the shape of a tensor is not a list of lengths from 1, or -1 for any")
    return ModelInput(_name(spec), tuple(None if each == -1 else each for each in shape), dtype)


def _table(specs: list[dict[str, Any]]) -> ModelInput:
    names = list(map(_name, specs))
    if names != [None] * len(names) and (None in names or len(set(names)) < len(names)):
        raise ModelInputsError("either all columns must have names, which differ, or none")
    dtypes = list(map(np.dtype, _column_dtypes(specs)))
    kinds = {dtype.kind for dtype in dtypes}
    if "b" in kinds and len(kinds) > 1:
        raise ModelInputsError("it has columns of booleans and of numbers, which a tensor cannot combine")
    whole = [position for position, dtype in enumerate(dtypes) if dtype.kind == "i"]
    return ModelInput(
        name=None,
        shape=(None, len(specs)),
        dtype=np.result_type(*dtypes).name,
        features=tuple(name for name in names if name is not None),
        note=f"The model wants integers in the columns {', '.join(map(str, whole))}." if len(kinds) > 1 else "",
    )


def _column_dtypes(specs: list[dict[str, Any]]) -> Iterator[str]:
    for position, spec in enumerate(specs):
        kind = spec.get("type")
        if type(kind) is not str or kind not in _TYPES:
            raise ModelInputsError(f"column {position} is not of booleans, integers or floats")
        yield _TYPES[kind]
