"""Audit records as canonical JSON, and the lines that hold them.

A record is an object of strings, integers, booleans, nulls, arrays and objects. Its canonical form has its members
sorted by name, no white space, and the shortest escapes. Names are ASCII, integers stay below 2**53 and there are no
floats, so this is the form of RFC 8785. A line is an object with the code and the record, both in canonical form:
``{"mac":"<64 hexadecimal digits>","record":{...}}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson

Members = dict[str, Any]

LARGEST = 2**53 - 1
"""The largest integer of RFC 8785, which JavaScript can hold."""

MAX_LINE = 65_536
"""No line is longer; what is longer was not written by this package."""

MAX_TEXT = 1024
MAX_DEPTH = 4
MAX_MEMBERS = 64
ZERO = "0" * 64
"""The ``prev`` of the first record of a stream."""

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_HEAD, _MIDDLE, _TAIL = b'{"mac":"', b'","record":', b"}\n"
_RECORD = len(_HEAD) + 64 + len(_MIDDLE)


class BrokenLineError(ValueError):
    """A line does not have the form of a record."""


def canonical(members: Mapping[str, Any]) -> bytes:
    """Return the canonical form of an object."""
    return orjson.dumps(members, option=_OPTIONS)


def line_of(mac: str, record: bytes) -> bytes:
    """Return the line of a record in canonical form."""
    return b'{"mac":"%b","record":%b}\n' % (mac.encode(), record)


def split_line(line: bytes) -> tuple[str, bytes]:
    """Return the code and the record of a line.

    :raises BrokenLineError: it has another form.
    """
    mac = line[len(_HEAD) : len(_HEAD) + 64]
    if not line.startswith(_HEAD) or line[len(_HEAD) + 64 : _RECORD] != _MIDDLE or not line.endswith(_TAIL):
        raise BrokenLineError("the line is no record")
    return mac.decode("ascii", "replace"), line[_RECORD : -len(_TAIL)]


def parse(record: bytes) -> Members:
    """Return the members of a record.

    :raises BrokenLineError: it is not an object in canonical form.
    """
    try:
        members = orjson.loads(record)
    except ValueError:
        raise BrokenLineError("the record is not JSON") from None
    if not isinstance(members, dict) or canonical(members) != record:
        raise BrokenLineError("the record is not in canonical form")
    return members


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield each line with its end; a torn last one has none, and one that is too long is cut."""
    while line := file.readline(MAX_LINE):
        yield line


def text(value: str) -> str:
    """Return a string with all that does not print escaped, so that neither a line nor a terminal breaks (CWE-117)."""
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in value)


def checked(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a value of a member as it is recorded.

    :raises ValueError: it has another type than strings, integers, booleans, None, lists and dicts, or is too large.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= LARGEST:
        return int(value)
    if isinstance(value, str):
        return text(value[:MAX_TEXT])
    if depth and isinstance(value, (list, tuple)) and len(value) <= MAX_MEMBERS:
        return [checked(each, depth - 1) for each in value]
    if depth and isinstance(value, Mapping) and len(value) <= MAX_MEMBERS:
        return {_name(name): checked(each, depth - 1) for name, each in value.items()}
    raise ValueError(
        f"a member of an audit record is a string, an integer below 2**53, a boolean, None, or a small list or dict of "
        f"these, not a {type(value).__name__}"
    )


def _name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("the names of an audit record have 1 to 64 letters, digits and ._:-")
    return name


def timestamp(seconds: float) -> str:
    """Return an instant in UTC, always of the same length, so that strings compare as instants do."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(value: Any) -> float:
    """Return a timestamp in seconds since the epoch.

    :raises BrokenLineError: it is not one.
    """
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise BrokenLineError("the time of a record is not a time") from None
