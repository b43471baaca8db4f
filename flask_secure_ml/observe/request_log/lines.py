"""Serializes log lines as JSON in ASCII, short enough for an atomic write to a pipe."""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import Any

import orjson

LONGEST_LINE = 4_095
"""Maximum bytes of a line without its line break, so that a write to a pipe is atomic (``PIPE_BUF`` of Linux)."""

IS_LINE = "secure_ml_line"
"""Attribute of a :mod:`logging` record whose message is such a line."""

MEMBERS = "secure_ml_members"
"""Attribute of a :mod:`logging` record with additional members of its line."""

_SHORTER = (200, 32)
_FEW = 3


def line_of(logged: dict[str, Any]) -> str:
    """Return the members as JSON in ASCII without control characters.

    If a line is too long, strings are truncated to 200 characters, or 32, and lists to three items, and ``cut`` is
    true.

    :raises ValueError: it is still too long.
    """
    line = _json(logged)
    if len(line) <= LONGEST_LINE:
        return line
    for longest in _SHORTER:
        line = _json({name: _cut(value, longest) for name, value in logged.items()} | {"cut": True})
        if len(line) <= LONGEST_LINE:
            return line
    raise ValueError(f"a line of {len(line)} bytes is longer than {LONGEST_LINE}")


def line_ending_with(logged: dict[str, Any], name: str, text: str) -> str:
    """Return a line whose last member has as much of the end of a string as fits."""
    room = LONGEST_LINE - len(_json({**logged, name: ""}))
    if room <= 0:
        return line_of(logged)
    kept = text[-room:]
    # A character takes up to twelve bytes. The quotation marks are not part of the string.
    start = bisect_left(range(len(kept)), True, key=lambda first: len(_json(kept[first:])) - 2 <= room)
    return _json({**logged, name: kept[start:]})


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, list):
        return [_cut(each, longest) for each in value[:_FEW]]
    return value[:longest] if isinstance(value, str) else value


def _json(logged: Any) -> str:
    try:
        line = orjson.dumps(logged)
        if line.isascii():
            text = line.decode()
            # The only control character that JSON allows in a string.
            return text.replace("\x7f", "\\u007f") if "\x7f" in text else text
    except TypeError:
        # A lone surrogate, which orjson rejects.
        pass
    return json.dumps(logged, separators=(",", ":")).replace("\x7f", "\\u007f")
