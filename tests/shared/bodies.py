"""Shared code of the input tests: guards, requests with a body, exchanges, and arrays in every format."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from flask import Request
from hypothesis import strategies as st
from marshmallow import Schema
from werkzeug.test import EnvironBuilder

from flask_secure_ml import Exchange, Policy
from flask_secure_ml.errors import SecureMLError
from flask_secure_ml.inputs.body_stream import Caps
from flask_secure_ml.inputs.encodings import Encodings
from flask_secure_ml.inputs.formats import build_formats
from flask_secure_ml.inputs.guard import InputGuard
from flask_secure_ml.inputs.number_arrays import number_arrays

JSON = "application/json"
TERMINATED: dict[str, str | bool] = {"wsgi.input_terminated": True}
CHUNKED: dict[str, str | bool] = {"HTTP_TRANSFER_ENCODING": "chunked", **TERMINATED}
CAPS = Caps(
    max_bytes=100_000, max_depth=32, max_members=100, max_string=1_000, max_elements=10_000, max_decoded=80_000
)  # fmt: skip
FORMATS = ("json", "oip", "npy", "msgpack", "csv")


def a_guard(
    formats: Collection[str] = ("json",), encodings: Collection[str] = ("identity",), **caps: int
) -> InputGuard:  # fmt: skip
    """Return a guard; keyword arguments change the limits."""
    found = replace(CAPS, **caps)
    return InputGuard(found, partial(build_formats, formats), Encodings(encodings), number_arrays())


def an_exchange(**options: Any) -> Exchange:
    return Exchange("id", 0.0, 0.0, "127.0.0.1", "127.0.0.1", True, policy=Policy.build(**options))


def a_request(
    body: bytes | None = None, media_type: str | None = JSON, stream: Any = None, **environ: str | bool
) -> Request:
    """Return a request as a server passes it when the client declares the length."""
    given: dict[str, Any] = {"REQUEST_METHOD": "POST", "wsgi.input": stream or BytesIO(body or b"")}
    given |= {} if body is None else {"CONTENT_LENGTH": str(len(body))}
    given |= {} if media_type is None else {"CONTENT_TYPE": media_type}
    blank = EnvironBuilder().get_environ()
    blank.pop("CONTENT_LENGTH", None)
    return Request(blank | given | environ)


def a_chunked_request(
    body: bytes = b"", media_type: str | None = JSON, stream: Any = None, **environ: str | bool
) -> Request:
    """Return a request as passed by a server that decodes chunked bodies."""
    return a_request(None, media_type, stream or BytesIO(body), **(CHUNKED | environ))


def loaded(
    guard: InputGuard, schema: type[Schema], body: bytes, media_type: str | None = JSON, **environ: str | bool
) -> Exchange:
    """Return the exchange of an accepted request."""
    exchange = an_exchange(body=schema)
    guard.check(a_request(body, media_type, **environ), exchange)
    return exchange


LENGTH = "HTTP_INFERENCE_HEADER_CONTENT_LENGTH"
_PACK: Any = import_module("msgpack").packb
OCTETS = "application/octet-stream"
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")
DATATYPES = {name: name.upper().replace("FLOAT", "FP") for name in DTYPES}
_CLAIMS = (b"\xff" * 4, b"9" * 19, b"[" * 40, b"\xdd\xff\xff\xff\xff")
Encoded = tuple[bytes, str, dict[str, str]]
"""Body, media type, and further members of the WSGI environ."""


def as_json(array: np.ndarray[Any, Any]) -> Encoded:
    return json.dumps({"x": array.tolist()}).encode(), JSON, {}


def as_msgpack(array: np.ndarray[Any, Any]) -> Encoded:
    return bytes(_PACK({"x": array.tolist()})), "application/msgpack", {}


def as_npy(array: np.ndarray[Any, Any]) -> Encoded:
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue(), "application/x-npy", {}


def as_npy_of_another_order(array: np.ndarray[Any, Any]) -> Encoded:
    return as_npy(np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))))


def _tensor(array: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name], **more}


def as_oip(array: np.ndarray[Any, Any]) -> Encoded:
    return json.dumps({"inputs": [_tensor(array, data=array.ravel().tolist())]}).encode(), JSON, {}


def as_nested_oip(array: np.ndarray[Any, Any]) -> Encoded:
    return json.dumps({"inputs": [_tensor(array, data=array.tolist())]}).encode(), JSON, {}


def as_binary_oip(array: np.ndarray[Any, Any]) -> Encoded:
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    header = json.dumps({"inputs": [_tensor(array, parameters={"binary_data_size": len(raw)})]}).encode()
    return header + raw, OCTETS, {LENGTH: str(len(header))}


def as_csv(array: np.ndarray[Any, Any]) -> Encoded:
    """Encode an array of numbers with one or two dimensions."""
    rows = array.reshape(len(array), -1).tolist()
    return "\r\n".join(",".join(map(repr, row)) for row in rows).encode(), "text/csv", {}


ENCODERS: Sequence[Callable[[np.ndarray[Any, Any]], Encoded]] = (
    as_json,
    as_msgpack,
    as_npy,
    as_npy_of_another_order,
    as_oip,
    as_nested_oip,
    as_binary_oip,
    as_csv,
)


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """Draw bytes that are similar to one of the originals, or arbitrary."""
    raw = bytearray(draw(st.sampled_from(originals) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 8)))
        raw[start:end] = draw(st.binary(max_size=8) | st.sampled_from(_CLAIMS))
    return bytes(raw)


def peak_of(call: Callable[[], object]) -> int:
    """Return the peak of allocated memory in bytes during a call; errors of the package are ignored."""
    tracemalloc.start()
    try:
        call()
    except SecureMLError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
