"""Answers of the Open Inference Protocol, version 2, as KServe, Triton and MLServer write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .scores import Array, ShapingError

_SAFE = re.compile(r"[A-Za-z0-9._:@/-]{1,128}", re.ASCII)
_DATATYPES = {
    "bool": "BOOL",
    **{f"{prefix}int{bits}": f"{prefix.upper()}INT{bits}" for prefix in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
_NAMES = ("model_name", "model_version")


def oip_document(value: Any, options: Mapping[str, Any], model_name: str) -> Any:
    """Return the inference response for a view's value: an object of arrays by name, or one array.

    The shape of an output is that of its array, and its data are flat, in C order. ``model_name`` and
    ``model_version`` of the view are not outputs. What has ``outputs`` already stays as the view made it, and so does
    what has a member that is no array, number, text or list of these, or ``error`` alone.

    :param options: what the request asks: its ``id``, which is echoed when it is a short text without anything that
        a log or a page could read as more, and the names of ``outputs`` if not all are wanted.
    :param model_name: the name that is told where the view tells none.
    """
    members = dict(value) if isinstance(value, Mapping) else {"output-0": value}
    if "outputs" in members or members.keys() == {"error"}:
        return value
    document: dict[str, Any] = {"model_name": model_name}
    document |= {name: members.pop(name) for name in _NAMES if isinstance(members.get(name), str)}
    if safe(options.get("id")):
        document["id"] = options["id"]
    wanted = options.get("outputs") or members
    try:
        document["outputs"] = [_output(str(name), each) for name, each in members.items() if name in wanted]
    except ShapingError:
        return value
    return document


def safe(text: Any) -> bool:
    """Say whether a text of the client may be repeated to it."""
    return isinstance(text, str) and _SAFE.fullmatch(text) is not None


def _output(name: str, value: Any) -> dict[str, Any]:
    array = _array(value)
    datatype = "BYTES" if array.dtype.kind in "UO" else _DATATYPES[array.dtype.name]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel()}


def _array(value: Any) -> Array:
    if not isinstance(value, (np.ndarray, np.generic, list, tuple, str, int, float)):
        raise ShapingError("an output of the Open Inference Protocol must be an array")
    try:
        array = np.atleast_1d(np.asarray(value))
    except ValueError:
        raise ShapingError("an output of the Open Inference Protocol must not be ragged") from None
    if array.dtype.kind == "U" and not (isinstance(value, np.ndarray) or _are_texts(value)):
        raise ShapingError("an output of the Open Inference Protocol mixes texts and numbers")
    if array.dtype.kind == "O" and not all(isinstance(each, str) for each in array.flat):
        raise ShapingError("an output of the Open Inference Protocol holds objects")
    if array.dtype.kind not in "UO" and array.dtype.name not in _DATATYPES:
        raise ShapingError("an output of the Open Inference Protocol has a type that it does not know")
    return array


def _are_texts(value: Any) -> bool:
    level = [value]
    while any(isinstance(each, (list, tuple)) for each in level):
        level = [item for each in level for item in (each if isinstance(each, (list, tuple)) else [each])]
    return all(isinstance(each, str) for each in level)
