"""The inputs of an ONNX graph (ONNX IR specification, ``GraphProto.input`` and ``TypeProto.Tensor``)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from . import ModelInput, ModelInputsError

# TensorProto.DataType
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
# The types of an onnxruntime session.
_TYPES = {
    f"tensor({name})": dtype
    for name, dtype in {"float": "float32", "double": "float64"}.items()
    | {(name, name) for name in _DTYPES.values() if name not in ("float32", "float64")}
}


def of_file(path: Path) -> list[ModelInput]:
    """Return the inputs of a file. Weights in external files are not read.

    :raises ModelInputsError: the package ``onnx`` is not installed, the file is corrupt, or as for :func:`of_graph`.
    """
    try:
        onnx = import_module("onnx")
    except ImportError:
        raise ModelInputsError("ONNX files need the package onnx: pip install 'flask-secure-ml[onnx]'") from None
    damaged = import_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except damaged:
        raise ModelInputsError(f"{path} is not an ONNX model") from None
    return of_graph(model.graph)


def of_graph(graph: Any) -> list[ModelInput]:
    """Return the inputs of a graph, without weights that have an initial value.

    :raises ModelInputsError: an input is not a tensor, has no shape or no dimension, or has a dtype such as string.
    """
    weights = {each.name for each in graph.initializer}
    return [_of_value(each) for each in graph.input if each.name not in weights]


def of_session(session: Any) -> list[ModelInput]:
    """Return the inputs of an ``onnxruntime.InferenceSession``.

    :raises ModelInputsError: as for :func:`of_graph`.
    """
    return [_input(each.name, _TYPES.get(each.type), each.shape) for each in session.get_inputs()]


def _of_value(value: Any) -> ModelInput:
    kind = value.type
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        raise ModelInputsError(f"the input {value.name!r} is not a tensor, or has no shape")
    return _input(value.name, _DTYPES.get(kind.tensor_type.elem_type), list(_lengths(kind.tensor_type.shape)))


def _lengths(shape: Any) -> Iterator[int | str | None]:
    for dimension in shape.dim:
        field = dimension.WhichOneof("value")
        yield None if field is None else getattr(dimension, field)


def _input(name: str, dtype: str | None, shape: list[int | str | None]) -> ModelInput:
    if dtype is None:
        raise ModelInputsError(f"the input {name!r} is not of booleans, integers or floats of up to 64 bits")
    if not shape:
        raise ModelInputsError(f"the input {name!r} is a single number without dimensions")
    return ModelInput(name, tuple(map(_dimension, shape)), dtype)


def _dimension(length: int | str | None) -> int | str | None:
    """Return a length from 1, a name that a schema can have, or None; some exporters write 0 or -1 for any length."""
    if isinstance(length, str):
        return length if length.isidentifier() else None
    return length if length is not None and length >= 1 else None
