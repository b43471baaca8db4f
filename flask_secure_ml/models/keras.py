"""Telling which Keras files hold Python functions.

A Keras 3 file is a zip archive whose ``config.json`` names classes (``class_name``, ``module``); a ``Lambda`` layer or
a ``__lambda__`` holds marshalled bytecode, and a module outside of Keras is imported and called (CVE-2025-1550).
A file of Keras 2 is an HDF5 file with the same text in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

HDF5 = b"\x89HDF\r\n\x1a\n"
MAX_CONFIG = 1 << 26

_LAMBDAS = frozenset({"Lambda", "__lambda__"})
_IN_HDF5 = (b'"Lambda"', b'"__lambda__"')
_CHUNK = 1 << 20


def config_holds_code(text: bytes) -> bool:
    """Return whether a ``config.json`` names a function of its own or of a module outside of Keras.

    What cannot be read as JSON counts as code.
    """
    try:
        return any(_is_code(entry) for entry in _objects(json.loads(text)))
    except (ValueError, RecursionError):
        return True


def hdf5_holds_code(stream: BinaryIO) -> bool:
    """Return whether an HDF5 file has the text of a Lambda layer in it."""
    kept = b""
    while chunk := stream.read(_CHUNK):
        window = kept + chunk
        if any(name in window for name in _IN_HDF5):
            return True
        kept = window[-max(map(len, _IN_HDF5)) :]
    return False


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _is_code(entry: dict[str, Any]) -> bool:
    module = entry.get("module")
    foreign = isinstance(module, str) and module.split(".")[0] != "keras"
    return entry.get("class_name") in _LAMBDAS or ("class_name" in entry and foreign)
