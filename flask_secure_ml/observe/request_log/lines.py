"""A line: its members as JSON in ASCII, short enough for one write to a pipe."""

from __future__ import annotations

import json
from typing import Any

import orjson

LONGEST_LINE = 4_095
"""Bytes of a line without its line break. With it, a write to a pipe is never divided (``PIPE_BUF`` of Linux)."""

IS_LINE = "secure_ml_line"
"""The attribute of a record of :mod:`logging` whose message is such a line."""

_SHORTER = (200, 32)
_FEW = 3


def line_of(logged: dict[str, Any]) -> str:
    """Return the members as JSON in ASCII without control characters.

    Of a line that is too long, every string is cut to 200 characters, or 32, and every list to three; ``cut`` is then
    true.

    :raises ValueError: it is too long even so.
    """
    line = _json(logged)
    if len(line) <= LONGEST_LINE:
        return line
    for longest in _SHORTER:
        line = _json({name: _cut(value, longest) for name, value in logged.items()} | {"cut": True})
        if len(line) <= LONGEST_LINE:
            return line
    raise ValueError(f"a line of {len(line)} bytes is longer than {LONGEST_LINE}")


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, list):
        return [_cut(each, longest) for each in value[:_FEW]]
    return value[:longest] if isinstance(value, str) else value


def _json(logged: dict[str, Any]) -> str:
    try:
        line = orjson.dumps(logged)
        if line.isascii():
            text = line.decode()
            # The one control character that JSON allows in a string.
            return text.replace("\x7f", "\\u007f") if "\x7f" in text else text
    except TypeError:
        # A surrogate that stands for no character, which orjson does not write.
        pass
    return json.dumps(logged, separators=(",", ":")).replace("\x7f", "\\u007f")
