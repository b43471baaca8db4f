"""Bodies for the apps: one array in every format, and bodies of one size that are refused for one reason each."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack
import numpy as np
from numpy.typing import NDArray

JSON = "application/json"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sent:
    """One body, and how it is sent."""

    name: str
    data: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def numbers(rows: int, columns: int) -> Array:
    """Return random doubles, which take about 20 bytes each in JSON."""
    return np.random.default_rng(7).normal(size=(rows, columns))


def as_json(values: Array) -> bytes:
    """Return the body that every client sends."""
    return json.dumps({"instances": values.tolist()}).encode()


def in_every_format(values: Array) -> list[Sent]:
    """Return the same array in every format, plain JSON first; the binary ones with 32 bits a number."""
    narrow = values.astype("<f4")
    described = {"name": "instances", "shape": list(values.shape), "datatype": "FP32"}
    plain = json.dumps({"inputs": [described | {"data": values.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": narrow.nbytes}}]}).encode()
    file, table = io.BytesIO(), io.StringIO()
    np.save(file, narrow)
    csv.writer(table, lineterminator="\n").writerows(values.tolist())
    return [
        Sent("JSON", as_json(values)),
        Sent("JSON, gzip", gzip.compress(as_json(values), 6), JSON, {"Content-Encoding": "gzip"}),
        Sent("Open Inference, JSON", plain),
        Sent(
            "Open Inference, binary",
            head + narrow.tobytes(),
            "application/octet-stream",
            {"Inference-Header-Content-Length": str(len(head))},
        ),
        Sent("npy", file.getvalue(), "application/x-npy"),
        Sent("MessagePack", msgpack.packb({"instances": values.tolist()}), "application/msgpack"),
        Sent("CSV", table.getvalue().encode(), "text/csv"),
    ]


def refused(values: Array, cap: int) -> list[Sent]:
    """Return bodies about as long as that of these values, each refused for another reason."""
    text = as_json(values)
    size = len(text)

    def filled(unit: bytes, prefix: bytes = b'{"instances": [[', suffix: bytes = b"0]]}") -> bytes:
        return prefix + unit * ((size - len(prefix) - len(suffix)) // len(unit)) + suffix

    names = b",".join(b'"%07d":1' % number for number in range(size // 11))
    return [
        Sent("the last number out of range", text[:-4] + b"9e9]]}"),
        Sent(
            "every number out of range",
            text.replace(b", ", b", 9e9").replace(b".", b"")[:size].rpartition(b"]")[0] + b"]]}",
        ),
        Sent("the last number is NaN", text[:-4] + b",NaN]]}"),
        Sent("no number, but null", filled(b"null,")),
        Sent("nothing but brackets", b"[" * size),
        Sent("nested objects", b'{"a":' * (size // 5)),
        Sent("too many members", b"{" + names + b"}"),
        Sent("one member, over and over", b"{" + b'"a":1,' * (size // 6) + b'"a":1}'),
        Sent("too many values", filled(b"1,")),
        Sent("one long text", filled(b"a", b'{"instances": "', b'"}')),
        Sent("escapes only", filled(b'\\"', b'{"instances": "', b'"}')),
        Sent("no UTF-8 at the end", text[:-1] + b"\xff"),
        Sent("something follows", text + b"1"),
        Sent("gzip of blanks, over the cap", gzip.compress(b" " * (cap + 1), 9), JSON, {"Content-Encoding": "gzip"}),
        Sent("longer than the cap", b"1" * (cap + 1)),
    ]
