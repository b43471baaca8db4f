"""Audit records in canonical JSON, and their lines.

A record is an object of strings, integers, booleans, nulls, arrays and objects. Its canonical form has its members
sorted by name, no white space, and the shortest escapes. Names are ASCII, integers stay below 2**53 and there are no
floats, so this is the form of RFC 8785. A line is an object with the code and the record, both in canonical form:
``{"mac":"<64 hexadecimal digits>","record":{...}}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson

Members = dict[str, Any]

LARGEST = 2**53 - 1
"""The largest integer of RFC 8785, which JavaScript represents exactly."""

MAX_LINE = 65_536
"""Maximum length of a line; this package does not write longer ones."""

PROGRESS_BYTES = 1_000_000
"""Number of bytes between two progress reports."""

MAX_TEXT = 1024
MAX_DEPTH = 4
MAX_MEMBERS = 64
ZERO = "0" * 64
"""The ``prev`` of the first record of a stream."""

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MAC = re.compile(rb"[0-9a-f]{64}")
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_HEAD, _MIDDLE, _TAIL = b'{"mac":"', b'","record":', b"}\n"
_RECORD = len(_HEAD) + 64 + len(_MIDDLE)

TIMESTAMP = "0000-01-01T00:00:00.000000Z"
"""The earliest timestamp; it completes a prefix of another one."""


class BrokenLineError(ValueError):
    """A line does not have the format of a record."""


def canonical(members: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of an object."""
    return orjson.dumps(members, option=_OPTIONS)


def line_of(mac: str, record: bytes) -> bytes:
    """Return the line of a record in canonical form."""
    return b'{"mac":"%b","record":%b}\n' % (mac.encode(), record)


def split_line(line: bytes) -> tuple[str, bytes]:
    """Return the code and the record of a line.

    :raises BrokenLineError: it has another format.
    """
    mac = line[len(_HEAD) : len(_HEAD) + 64]
    if not line.startswith(_HEAD) or line[len(_HEAD) + 64 : _RECORD] != _MIDDLE or not line.endswith(_TAIL):
        raise BrokenLineError("the line is not a record")
    if not _MAC.fullmatch(mac):
        raise BrokenLineError("the code of the record has an invalid format")
    return mac.decode("ascii"), line[_RECORD : -len(_TAIL)]


def parse(record: bytes) -> Members:
    """Return the members of a record.

    :raises BrokenLineError: it is not an object in canonical form.
    """
    try:
        members = orjson.loads(record)
        if isinstance(members, dict) and canonical(members) == record:
            return members
    except (TypeError, ValueError):
        # The parser accepts deeper nesting than the encoder.
        raise BrokenLineError("the record is not JSON") from None
    raise BrokenLineError("the record is not in canonical form")


def lines_of(file: BinaryIO, progress: Callable[[int], object] = lambda _bytes: None) -> Iterator[bytes]:
    """Yield each line with its line break; an incomplete last line has none, and a long line is truncated.

    :param progress: called for each megabyte and at the end, with the number of additional bytes read.
    """
    unreported = 0
    try:
        while line := file.readline(MAX_LINE):
            unreported += len(line)
            if unreported >= PROGRESS_BYTES:
                progress(unreported)
                unreported = 0
            yield line
    finally:
        progress(unreported)


def text(value: str) -> str:
    """Return a string with non-printable characters escaped, for log lines and terminals (CWE-117)."""
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in value)


def checked(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a validated value of a member.

    :raises ValueError: it is not a string, integer, boolean, None, list or dict, or is too large.
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
        f"an audit record member must be a string, an integer below 2**53, a boolean, None, or a small list or dict of "
        f"these, not a {type(value).__name__}"
    )


def _name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("names in an audit record must have 1 to 64 letters, digits and ._:-")
    return name


def timestamp(seconds: float) -> str:
    """Return a UTC timestamp of fixed length, so that strings sort chronologically."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(value: Any) -> float:
    """Return a timestamp in seconds since the epoch.

    :raises BrokenLineError: it is not one.
    """
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise BrokenLineError("the time of a record is not a time") from None


def second_from(option: str) -> int | None:
    """Return a timestamp or a prefix of one, such as ``2026-05-01T12``, in seconds; None if it is empty.

    :raises ValueError: it is not a prefix of a timestamp.
    """
    if not option:
        return None
    try:
        return int(seconds_of(option + TIMESTAMP[len(option) :]))
    except BrokenLineError:
        raise ValueError(f"{option!r} is not a time in UTC such as 2026-05-01 or 2026-05-01T12:00") from None
