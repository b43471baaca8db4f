"""Which media type a client accepts (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from flask import Request

from .scores import Array, ShapingError

_ANYTHING = frozenset({None, "", "*/*", "application/json", "application/json, */*"})


def accepted(request: Request, possible: Sequence[str]) -> str | None:
    """Return the best of the possible media types, the first of equals; None when none is accepted.

    Parameters of a media range other than ``q`` are not looked at: ``application/json;charset=utf-8`` means JSON.
    """
    header = request.environ.get("HTTP_ACCEPT")
    if header in _ANYTHING and possible[0] == "application/json":
        return possible[0]
    ranges = [(name.partition(";")[0].strip().lower(), quality) for name, quality in request.accept_mimetypes]
    if not ranges:
        return possible[0]
    best = max(possible, key=lambda name: _quality(name, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that the media type is in."""
    for wanted in (name, name.partition("/")[0] + "/*", "*/*"):
        found = [quality for accepted_name, quality in ranges if accepted_name == wanted]
        if found:
            return max(found)
    return 0.0


NPY = "application/x-npy"


def single_array(value: Any) -> Array | None:
    """Return the one array that an answer is, or is an object of; None when there is no such one."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return value
    return None


def write_npy(array: Array) -> bytes:
    """Return the file of an array.

    :raises ValueError: it holds objects.
    """
    file = BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def read_npy(raw: bytes) -> Array:
    """Return the array of a file.

    :raises ShapingError: it is no such file, or holds objects, records, or more than one array.
    """
    file = BytesIO(raw)
    try:
        found: Array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - its header is parsed as Python
        raise ShapingError(f"the answer is no npy file: {type(error).__name__}") from None
    if found.dtype.kind == "V" or file.read(1):
        raise ShapingError("the npy file holds records, or something after its array")
    return found


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
