"""Telling which Keras files hold Python functions.

A Keras 3 file is a zip archive whose ``config.json`` names classes (``class_name``, ``module``); a ``Lambda`` layer or
a ``__lambda__`` holds marshalled bytecode, a module outside of Keras is imported and called (CVE-2025-1550), and some
layers load another file that runs code. So only modules whose classes calculate are let through, without those layers.
A file of Keras 2 is an HDF5 file with the same text in it, where names are looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

HDF5 = b"\x89HDF\r\n\x1a\n"
MAX_CONFIG = 1 << 26

_RUNNING = frozenset({"Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"})
# Each is a module of that name, or below it.
_CALCULATING = (
    *("keras.activations", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers"),
    *("keras.losses", "keras.metrics", "keras.models", "keras.optimizers", "keras.random", "keras.regularizers"),
    *("keras.src.layers", "keras.src.models", "keras.src.ops"),
)
_TOP = "keras"
# Keras names literals so, and gives them no module.
_LITERAL = re.compile(r"__(?!lambda)[a-z_]+__")
# JSON has no need to escape a letter of ASCII, so one that does hides it.
_HIDDEN = re.compile(rb"\\u00[2-7]")
_IN_HDF5 = tuple(f'"{name}"'.encode() for name in sorted(_RUNNING))
_KEPT = 32
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
    """Return whether an HDF5 file has the text of a layer in it that runs code, or text that hides a name."""
    kept = b""
    while chunk := stream.read(_CHUNK):
        window = kept + chunk
        if any(name in window for name in _IN_HDF5) or _HIDDEN.search(window):
            return True
        kept = window[-_KEPT:]
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
    if "class_name" not in entry:
        return False
    name, module = entry["class_name"], entry.get("module")
    if not isinstance(name, str) or name in _RUNNING:
        return True
    if module is None:
        return not _LITERAL.fullmatch(name)
    return not isinstance(module, str) or not _calculates(module)


def _calculates(module: str) -> bool:
    return module == _TOP or any(module == each or module.startswith(f"{each}.") for each in _CALCULATING)
