"""Invalid bodies, each rejected for one reason, in groups with a valid body.

Each is compared with a valid body of the same format and size and about the same number of values: a megabyte of
``1.5`` has five times as many numbers as a megabyte of full doubles. For compressed bodies, the expanded size counts.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence

import msgpack
import numpy as np

from .bodies import JSON, Array, Sent, as_json

NPY, MSGPACK, CSV = "application/x-npy", "application/msgpack", "text/csv"
Group = Sequence[Sent]


def groups(values: Array, cap: int) -> list[Group]:
    """Return groups of bodies; the first body of each group is valid.

    :param values: the values of the valid bodies, which determine the size of the others.
    :param cap: the maximum size of a body.
    """
    text = as_json(values)
    size, columns = len(text), values.shape[1]
    return [
        _long_numbers(values, text, cap),
        _short_values(size, columns),
        _gzip(text, cap),
        _npy(values.astype("<f4")),
        _msgpack(values.tolist()),
        _csv(values),
    ]


def _json(name: str, data: bytes, status: int, size: int) -> Sent:
    """Return a body padded with spaces."""
    return Sent(name, data.ljust(size), status=status)


def _long_numbers(values: Array, text: bytes, cap: int) -> Group:
    size, before_last = len(text), text[: text.rindex(b",")]
    return [
        Sent("JSON, full doubles", text),
        _json("the last number out of range", before_last + b", 9e9]]}", 422, size),
        _json("every number out of range", as_json(values * 1e9), 422, size),
        _json("null for the last number", before_last + b", null]]}", 422, size),
        _json("null for every number", _each(values, b"null"), 422, size),
        _json("a string for every number", _each(values, b'"1.23456789012345"'), 422, size),
        _json("one number less in the last row", before_last + b"]]}", 422, size),
        _json("NaN for the last number", before_last + b", NaN]]}", 400, size),
        Sent("an extra comma at the end", text[:-3] + b",]}", status=400),
        Sent("invalid UTF-8 at the end", text[:-1] + b"\xff", status=400),
        Sent("something follows", text + b"1", status=400),
        Sent("cut in half", text[: size // 2], status=400),
        Sent("over the limit", b"1" * (cap + 1), status=413),
    ]


def _each(values: Array, leaf: bytes) -> bytes:
    """Return a body with ``leaf`` in place of every number."""
    rows, columns = values.shape
    row = b"[" + b", ".join([leaf.ljust(18)] * columns) + b"]"
    return b'{"instances": [' + b", ".join([row] * rows) + b"]}"


def _short_values(size: int, columns: int) -> Group:
    """Return bodies with as many values, lists, objects or strings as fit."""
    row = b"[" + b",".join([b"1.5"] * columns) + b"],"
    names = b",".join(b'"%07d":1' % number for number in range(size // 11 - 1))

    def filled(
        name: str, unit: bytes, status: int = 422, start: bytes = b'{"instances":[', end: bytes = b"0]}"
    ) -> Sent:
        return _json(name, start + unit * ((size - len(start) - len(end)) // len(unit)) + end, status, size)

    return [
        filled("JSON, short numbers", row, 200, end=row[:-1] + b"]}"),
        filled("one row of numbers", b"1.5,", start=b'{"instances":[[', end=b"0]]}"),
        filled("too many numbers", b"1,", 413, b'{"instances":[[', b"0]]}"),
        filled("lists of one number", b"[1],", 413),
        filled("empty lists", b"[],", 413),
        filled("lists in lists", b"[[[[[]]]]],", 413),
        filled("only brackets", b"[", 413, b"", b""),
        filled("empty objects", b"{},", 413),
        filled("objects of one member", b'{"a":1},', 413),
        filled("objects with duplicates", b'{"a":1,"a":1},', 413),
        filled("objects in objects", b'{"a":', 413, b"", b""),
        _json("too many members", b"{" + names + b"}", 413, size),
        filled("one repeated member", b'"a":1,', 413, b"{", b'"a":1}'),
        filled("empty strings", b'"",'),
        filled("short strings", b'"ab",'),
        filled("commas in strings", b'",,,,,,,",'),
        filled("escapes in strings", b'"\\u0041",'),
        filled("one long string", b"a", 413, b'{"instances":"', b'"}'),
        filled("one long string of escapes", b'\\"', 413, b'{"instances":"', b'"}'),
    ]


def _gzip(text: bytes, cap: int) -> Group:
    def packed(name: str, data: bytes, status: int) -> Sent:
        return Sent(name, data, JSON, {"Content-Encoding": "gzip"}, status)

    whole = gzip.compress(text.ljust(cap), 6)
    return [
        packed("gzip of JSON and spaces, at the limit", whole, 200),
        packed("gzip of spaces, over the limit", gzip.compress(b" " * (cap + 1), 9), 413),
        packed("gzip of spaces, far over the limit", gzip.compress(b" " * (cap * 10), 9), 413),
        packed("gzip, truncated", whole[:-1], 400),
        packed("gzip with a wrong checksum", whole[:-8] + bytes(8), 400),
        packed("gzip with a second member", whole + gzip.compress(b""), 400),
    ]


def _npy(narrow: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Group:
    whole = _saved(narrow)
    last = narrow.copy()
    last[-1, -1] = 1e9

    def npy(name: str, data: bytes, status: int = 200) -> Sent:
        return Sent(name, data, NPY, status=status)

    claimed = f"({narrow.shape[0]}, ".encode()
    return [
        npy("npy", whole),
        npy("the last number out of range", _saved(last), 422),
        npy("every number out of range", _saved(narrow * 0 + 1e9), 422),
        npy("NaN for every number", _saved(narrow * np.nan), 422),
        npy("complex numbers", _saved(narrow.reshape(-1, 2).view("<c8")), 422),
        npy("texts", _saved(narrow.view("S4")), 422),
        npy("another shape", _saved(narrow.T), 422),
        npy("a shape larger than the data", whole.replace(claimed, b"(9" + claimed[2:]), 400),
        npy("cut off", whole[:-1], 400),
        npy("something follows", whole + b"1", 400),
    ]


def _saved(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _msgpack(rows: list[list[float]]) -> Group:
    whole = msgpack.packb({"instances": rows})

    def packed(name: str, data: bytes, status: int = 200) -> Sent:
        return Sent(name, data, MSGPACK, status=status)

    return [
        packed("MessagePack", whole),
        packed("nil for the last number", whole[:-9] + b"\xc0", 422),
        packed("something follows", whole + b"\xc0", 400),
        packed("cut off", whole[:-1], 400),
    ]


def _csv(values: Array) -> Group:
    rows = [",".join(map(repr, row)) for row in values.tolist()]
    whole = ("\n".join(rows) + "\n").encode()

    def table(name: str, data: bytes, status: int = 200) -> Sent:
        return Sent(name, data, CSV, status=status)

    return [
        table("CSV", whole),
        table("a word for the last number", whole[: whole.rindex(b",")] + b",a\n", 400),
        table("one number less in the last row", whole[: whole.rindex(b",")] + b"\n", 422),
        table("quotation marks only", b'"' * len(whole), 413),
        table("commas only", b"," * len(whole), 413),
    ]
