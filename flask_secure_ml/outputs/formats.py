"""Response formats (JSON, npy files, the Open Inference Protocol) and content negotiation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, TypeGuard

import numpy as np
from flask import Request

from ..npy import NpyError, read_array, read_header
from .scores import Array, MaskingError

JSON = "application/json"

_ANYTHING = frozenset({None, "", "*/*", JSON, f"{JSON}, */*"})


def accepted(request: Request, possible: Sequence[str]) -> str | None:
    """Return the media type that the client prefers (RFC 9110 section 12.5.1); None if it accepts none.

    Of equals, the first is returned. Parameters of a media range other than ``q`` are ignored:
    ``application/json;charset=utf-8`` means JSON.
    """
    header = request.environ.get("HTTP_ACCEPT")
    if header in _ANYTHING and possible[0] == JSON:
        return possible[0]
    ranges = [(name.partition(";")[0].strip().lower(), quality) for name, quality in request.accept_mimetypes]
    if not ranges:
        return possible[0]
    best = max(possible, key=lambda name: _quality(name, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific media range that matches a media type."""
    for wanted in (name, name.partition("/")[0] + "/*", "*/*"):
        found = [quality for accepted_name, quality in ranges if accepted_name == wanted]
        if found:
            return max(found)
    return 0.0


def single_array(value: Any) -> Array | None:
    """Return the array of a response that is one array or an object with one array; otherwise None."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return value
    return None


def write_npy(array: Array) -> bytes:
    """Return an array as an npy file.

    :raises ValueError: the array has an object dtype.
    """
    file = BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def read_npy(raw: bytes) -> Array:
    """Return the array of an npy file.

    :raises MaskingError: it is not an npy file, has data after its array, or has an object or structured dtype.
    """
    try:
        header = read_header(raw)
        if header.dtype is None or header.dtype.kind == "V":
            raise MaskingError("the npy file of the response holds objects or records")
        return read_array(raw, header, header.dtype)
    except NpyError as error:
        raise MaskingError(f"the response is not an npy file: {error}") from None


_SAFE = re.compile(r"[A-Za-z0-9._:@/-]{1,128}", re.ASCII)
_DATATYPES = {
    "bool": "BOOL",
    **{f"{prefix}int{bits}": f"{prefix.upper()}INT{bits}" for prefix in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
_NAMES = ("model_name", "model_version")


def oip_document(value: Any, options: Mapping[str, Any], model_name: str) -> Any:
    """Return the inference response for a view's value: an object of arrays by name, or one array.

    An output has the shape of its array, and flat data in C order. ``model_name`` and ``model_version`` of the view
    are not outputs. A value is returned unchanged if it already has ``outputs``, if it has only ``error``, or if a
    member is not an array, a number, a string or a list of these.

    :param options: the options of the request: its ``id``, which is echoed if it is a short string without characters
        that are special in logs or HTML, and the names of ``outputs`` if the client does not request all.
    :param model_name: the name of the model if the view returns none.
    """
    members = dict(value) if isinstance(value, Mapping) else {"output-0": value}
    if "outputs" in members or members.keys() == {"error"}:
        return value
    document: dict[str, Any] = {"model_name": model_name}
    document |= {name: members.pop(name) for name in _NAMES if isinstance(members.get(name), str)}
    if is_safe(options.get("id")):
        document["id"] = options["id"]
    wanted = options.get("outputs") or members
    try:
        document["outputs"] = [_output(str(name), each) for name, each in members.items() if name in wanted]
    except MaskingError:
        return value
    return document


def is_safe(value: Any) -> TypeGuard[str]:
    """Return True if a value from the client is a string that may be echoed."""
    return isinstance(value, str) and _SAFE.fullmatch(value) is not None


def _output(name: str, value: Any) -> dict[str, Any]:
    array = _array(value)
    datatype = "BYTES" if array.dtype.kind in "UO" else _DATATYPES[array.dtype.name]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel()}


def _array(value: Any) -> Array:
    if not isinstance(value, (np.ndarray, np.generic, list, tuple, str, int, float)):
        raise MaskingError("an output of the Open Inference Protocol must be an array")
    try:
        array = np.atleast_1d(np.asarray(value))
    except ValueError:
        raise MaskingError("an output of the Open Inference Protocol must not be ragged") from None
    if array.dtype.kind == "U" and not (isinstance(value, np.ndarray) or _are_strings(value)):
        raise MaskingError("an output of the Open Inference Protocol mixes strings and numbers")
    if array.dtype.kind == "O" and not all(isinstance(each, str) for each in array.flat):
        raise MaskingError("an output of the Open Inference Protocol holds objects")
    if array.dtype.kind not in "UO" and array.dtype.name not in _DATATYPES:
        raise MaskingError("an output of the Open Inference Protocol has a dtype that it does not define")
    return array


def _are_strings(value: Any) -> bool:
    level = [value]
    while any(isinstance(each, (list, tuple)) for each in level):
        level = [item for each in level for item in (each if isinstance(each, (list, tuple)) else [each])]
    return all(isinstance(each, str) for each in level)
