"""Valid bodies: one array in every format."""

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
    """A request body with its headers and the expected status."""

    name: str
    data: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


# The digits of typical data sets, and of computed numbers.
SHORT, LONG = 6, 17


def numbers(rows: int, columns: int, digits: int = LONG) -> Array:
    """Return random numbers with 6 decimals (about 10 bytes each in JSON) or with 17 digits (about 20 bytes)."""
    found = np.random.default_rng(7).normal(size=(rows, columns))
    return found.round(SHORT) if digits == SHORT else found


def as_json(values: Array) -> bytes:
    """Return the JSON body with an array of instances."""
    return json.dumps({"instances": values.tolist()}).encode()


def in_every_format(values: Array) -> list[Sent]:
    """Return the array in every format, plain JSON first; binary formats have 32 bits per number."""
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
