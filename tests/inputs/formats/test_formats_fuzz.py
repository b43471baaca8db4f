"""Round trips of arrays through every format, and every decoder against arbitrary bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marshmallow import Schema, fields

from bodies import (
    CAPS,
    DTYPES,
    ENCODERS,
    FORMATS,
    LENGTH,
    Encoded,
    a_guard,
    a_request,
    an_exchange,
    as_csv,
    loaded,
    mutated,
    peak_of,
)
from flask_secure_ml.inputs import Categorical, Tensor, Text

GUARD = a_guard(FORMATS)
# Small bodies must stay small: this is what a rejection and its traceback may take, far below what shapes can claim.
PEAK = 1_000_000


class Everything(Schema):
    x = Tensor((None, 2), "float32")
    text = Text(required=False)
    kind = Categorical(["a", "b"], required=False)
    plain = fields.List(fields.Float())
    number = fields.Integer()


@pytest.mark.parametrize("encode", ENCODERS, ids=lambda encode: encode.__name__)
@given(data=st.data())
def test_fuzz_arrays_come_through(encode: Callable[[Any], Encoded], data: st.DataObject) -> None:
    """An array of any dtype and shape is the same array after its way through any format."""
    dtype = np.dtype(data.draw(st.sampled_from([name for name in DTYPES if encode is not as_csv or name != "bool"])))
    shapes = hnp.array_shapes(min_dims=1, max_dims=2 if encode is as_csv else 4, max_side=6)
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    array = data.draw(hnp.arrays(dtype, shapes, elements=elements))
    schema = Schema.from_dict({"x": Tensor((None,) * array.ndim, dtype)})
    body, media_type, environ = encode(array)
    found = loaded(GUARD, schema, body, media_type, **environ).payload["x"]
    assert found.dtype == dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert found.flags.carray


BODIES = [encode(np.array([[1, 2], [3, 4]], "float32")) for encode in ENCODERS]
MEDIA_TYPES = sorted({media_type for _, media_type, _ in BODIES})


@given(
    body=mutated([body for body, _, _ in BODIES]),
    media_type=st.sampled_from(MEDIA_TYPES),
    length=st.none() | st.integers(0, 300).map(str) | st.text(st.characters(codec="latin-1"), max_size=5),
    header=st.sampled_from(["", "; header=present", "; header=absent", "; charset=utf-8"]),
)
def test_fuzz_decoders_only_reject(body: bytes, media_type: str, length: str | None, header: str) -> None:
    """Any body is loaded or rejected, with memory in proportion to its size."""
    environ = {} if length is None else {LENGTH: length}
    request = a_request(body, media_type + header, **environ)
    assert peak_of(lambda: GUARD.check(request, an_exchange(body=Everything))) < PEAK


@given(shape=st.lists(st.integers(0, 2**66), max_size=34), datatype=st.sampled_from(["FP64", "UINT8", "BYTES", "BOOL"]))
def test_fuzz_shapes_allocate_nothing(shape: list[int], datatype: str) -> None:
    """No memory is allocated for a declared shape before the bytes are present."""
    descr = {"FP64": "<f8", "UINT8": "|u1", "BYTES": "|S1", "BOOL": "|b1"}[datatype]
    header = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode() + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
    oip = repr({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": [1, 2]}]}).replace("'", '"')
    for body, media_type in ((npy, "application/x-npy"), (oip.encode(), "application/json")):
        request = a_request(body, media_type)
        assert peak_of(lambda: GUARD.check(request, an_exchange(body=Everything))) < PEAK  # noqa: B023 - at once


def test_a_whole_body_takes_a_few_times_its_size() -> None:
    """At the limits, no format makes more than a few dozen bytes of each that was sent."""
    floods = {
        "application/json": [
            b"[" + b"[]," * 9_000 + b"0]",
            b"[" + b"{}," * 9_000 + b"0]",
            b"[" + b"0," * 9_999 + b"0]",
        ],
        "application/msgpack": [b"\xdc\x27\x10" + b"\x80" * 10_000, b"\xdc\x27\x10" + b"\xa2ab" * 10_000],
        "text/csv": [b"1," * 9_999 + b"1", b"1\n" * 10_000],
    }
    for media_type, bodies in floods.items():
        for body in bodies:
            assert len(body) <= CAPS.max_bytes
            request = a_request(body, media_type)
            assert peak_of(lambda: GUARD.check(request, an_exchange(body=Everything))) < 150 * CAPS.max_elements  # noqa: B023
