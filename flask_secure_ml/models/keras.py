"""Telling which Keras files hold Python functions.

A Keras 3 file is a zip archive whose ``config.json`` names classes (``class_name``, ``module``); a ``Lambda`` layer or
a ``__lambda__`` holds marshalled bytecode, and a module outside of Keras is imported and called (CVE-2025-1550), as
are functions of Keras that were never meant for it (CVE-2025-8747). So what is not known to be harmless is found.
A model in a directory, or of ``to_json``, is the same text alone. A file of Keras 2 is an HDF5 file with it inside.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from typing import Any

from . import keras_names, keras_text
from .hdf5_bytes import Span

MAX_CONFIG = 1 << 26

_BEFORE_JSON = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
_BESIDE_A_CLASS = frozenset({"config", "module", "registered_name", "items"})


def begins_json(head: bytes) -> bool:
    """Return whether a file that begins so could be JSON of more than one value, in UTF-8, 16 or 32."""
    text = head.lstrip(_BEFORE_JSON)
    return text.startswith((b"{", b"[", b'"')) or (bool(head) and not text)


def config_holds_code(text: bytes) -> bool:
    """Return whether a ``config.json`` names something that is not known to be harmless.

    What cannot be read as JSON counts as code.
    """
    try:
        return _holds_code(text)
    except (ValueError, RecursionError):
        return True


def json_holds_code(text: bytes) -> bool:
    """Return the same of JSON of any name; what cannot be read is searched as text, for it can be something else."""
    try:
        return _holds_code(text)
    except RecursionError:
        return True
    except ValueError:
        return keras_text.holds_code(io.BytesIO(text))


def hdf5_holds_code(data: bytes, configs: Collection[Span]) -> bool:
    """Return whether an HDF5 file names something that is not known to be harmless.

    :param configs: where the strings are that Keras reads as JSON; everything else is searched as text.
    """
    if any(config_holds_code(data[start:end].rstrip(b"\0 ")) for start, end in configs):
        return True
    return keras_text.holds_code(io.BytesIO(data), configs)


def _holds_code(text: bytes) -> bool:
    return any(_is_code(entry) for entry in _objects(json.loads(text)))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str):
            pending.extend(_nested(value))


def _nested(text: str) -> Iterator[Any]:
    # What to_json returns is a text, and some put that into JSON once more.
    if text.lstrip().startswith(("{", "[", '"')) and ("_name" in text or "\\u" in text):
        try:
            yield json.loads(text)
        except ValueError:
            return


def _is_code(entry: dict[str, Any]) -> bool:
    name = entry.get("class_name")
    if isinstance(name, str) and name in keras_names.LAMBDAS:
        return True
    if "class_name" in entry and not _BESIDE_A_CLASS.isdisjoint(entry):
        return not _is_harmless(entry, name)
    return "class_name" not in entry and entry.get("registered_name") is not None


def _is_harmless(entry: dict[str, Any], name: object) -> bool:
    module, config = entry.get("module"), entry.get("config")
    if name == "function":
        known = keras_names.is_function(module, config)
    else:
        known = keras_names.is_class(module, name) and not _reads_file(name, config)
    # A name under which an app registered a class of its own comes before the module.
    return known and entry.get("registered_name") in (None, name, config if name == "function" else None)


def _reads_file(name: object, config: object) -> bool:
    return name in keras_names.LOOKUPS and isinstance(config, dict) and isinstance(config.get("vocabulary"), str)
