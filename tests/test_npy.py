"""The npy reader: files written by numpy are read as numpy reads them, and nothing is evaluated."""

from __future__ import annotations

import ast
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bodies import as_npy, mutated
from flask_secure_ml.npy import MAX_PREFIX, NpyError, read_array, read_header

ROWS = np.array([[1, 2, 3], [4, 5, 6]])
RECORDS: list[Any] = [
    pytest.param([("a", "<i4"), ("b", "<f8")], False, id="numbers"),
    pytest.param([("a", "<f4", (2, 3)), ("name", "<U5")], False, id="arrays and strings"),
    pytest.param([("a", [("b", "<i4")])], False, id="nested"),
    pytest.param([("it's \"quoted\"], 'shape': (9,)", "<i4")], False, id="a name that looks like an entry"),
    pytest.param([("a", "<i4"), ("b", "O")], True, id="objects"),
    pytest.param([("a", [("b", "O")])], True, id="nested objects"),
    pytest.param([("a", "O", (2,))], True, id="arrays of objects"),
]


def saved(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def with_header(text: str, version: bytes = b"\x01\x00") -> bytes:
    raw = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(raw).to_bytes(2 if version[0] == 1 else 4, "little") + raw


FILES = [
    as_npy(array)[0]
    for array in (ROWS, ROWS.astype(">f4"), np.asfortranarray(ROWS), np.zeros(()), np.zeros((0,)), np.array(["a"]))
]


@given(raw=mutated(FILES))
def test_fuzz_headers_are_read_as_numpy_reads_them(raw: bytes) -> None:
    """An accepted header means the same to numpy; all others raise the one error."""
    try:
        header = read_header(raw)
    except NpyError:
        return
    file = BytesIO(raw)
    version = np.lib.format.read_magic(file)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read(file)
    except ValueError:
        # A dtype that numpy does not know either.
        assert header.dtype is None
        return
    assert (header.shape, header.is_fortran, header.start) == (shape, is_fortran, file.tell())
    assert header.dtype in (None, dtype)


@given(shape=st.lists(st.integers(0, 10**19 - 1), max_size=32).map(tuple), is_fortran=st.booleans())
def test_fuzz_every_header_of_numpy_is_read(shape: tuple[int, ...], is_fortran: bool) -> None:
    """Whatever shape numpy writes, with lengths of up to 19 digits, is the shape that is read."""
    for write in (np.lib.format.write_array_header_1_0, np.lib.format.write_array_header_2_0):
        file = BytesIO()
        write(file, {"descr": "<f4", "fortran_order": is_fortran, "shape": shape})
        header = read_header(file.getvalue())
        assert (header.dtype, header.shape, header.is_fortran) == (np.dtype("<f4"), shape, is_fortran)
        assert header.start == file.tell()


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)))
def test_fuzz_every_array_of_scalars_is_read(array: Any) -> None:
    """Every dtype and shape, byte for byte."""
    raw = saved(array)
    header = read_header(raw)
    assert header.dtype == array.dtype
    assert not header.has_objects
    found = read_array(raw, header, array.dtype)
    assert (found.shape, found.tobytes()) == (array.shape, array.tobytes())


@pytest.mark.parametrize(("descr", "has_objects"), RECORDS)
@pytest.mark.parametrize("rows", [0, 3])
def test_records(descr: Any, has_objects: bool, rows: int) -> None:
    """They have no dtype here, and it is known whether numpy would unpickle them."""
    header = read_header(saved(np.zeros(rows, descr)))
    assert (header.dtype, header.shape, header.has_objects) == (None, (rows,), has_objects)


def test_wide_records_are_read_from_the_beginning_of_a_file() -> None:
    """A header of many columns needs no more than its prefix."""
    raw = saved(np.zeros(1_000, [(f"column {number}", "<f8") for number in range(300)]))
    assert len(raw) > MAX_PREFIX
    assert read_header(raw[:MAX_PREFIX]) == read_header(raw)
    assert not read_header(raw).has_objects


def test_objects() -> None:
    """An array of objects is a pickle inside."""
    header = read_header(saved(np.array([1, "a"], object)))
    assert (header.dtype, header.has_objects) == (None, True)


@pytest.mark.parametrize("descr", ["|X1", "<f3", "O", "f8,O", "(2,)f4", "<U99999999999", "", "__import__"], ids=repr)
def test_a_dtype_that_is_not_understood_could_hold_objects(descr: str) -> None:
    """A dtype that numpy may interpret differently is not treated as numbers."""
    header = read_header(with_header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}"))
    assert (header.dtype, header.has_objects) == (None, True)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", id="no end"),
        pytest.param("{'descr': '<f4', 'fortran_order': False}", id="no shape"),
        pytest.param("{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}", id="an entry twice"),
        pytest.param("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", id="another order"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (1)}", id="no tuple"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", id="negative"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (01,)}", id="octal"),
        pytest.param(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 33})}}", id="33 dimensions"),
        pytest.param("{'descr': [" + "(" * 4_000 + "], 'fortran_order': False, 'shape': (1,)}", id="records, deep"),
        pytest.param(" " * 10_001, id="too long"),
        pytest.param("", id="empty"),
    ],
)
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_other_headers(header: str, version: bytes) -> None:
    """Headers that numpy does not write are an error, or count as objects."""
    with suppress(NpyError):
        assert read_header(with_header(header, version)).has_objects


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x04\x00",
        FILES[0][:60],
        b"PK\x03\x04" + FILES[0],
        with_header("\xff", b"\x03\x00"),
    ],
    ids=repr,
)
def test_what_is_not_a_file(raw: bytes) -> None:
    """Another format, an unknown version, a header that is cut off or not text."""
    with pytest.raises(NpyError):
        read_header(raw)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\0"], ids=["short", "long"])
def test_the_bytes_of_an_array_are_exact(change: Any) -> None:
    """A truncated file, or one with extra bytes, is an error."""
    raw = change(FILES[0])
    header = read_header(raw)
    with pytest.raises(NpyError):
        read_array(raw, header, np.dtype("<i8"))


def test_a_header_is_never_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the header of a request does not even parse it as Python."""
    monkeypatch.setattr(ast, "literal_eval", lambda _text: pytest.fail("parsed as Python"))
    for raw in (*FILES, saved(np.zeros(1, [("a", "<i4")]))):
        read_header(raw)
