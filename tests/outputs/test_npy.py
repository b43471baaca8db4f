"""Arrays as npy files."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flask_secure_ml.outputs.formats import read_npy, single_array, write_npy
from flask_secure_ml.outputs.scores import MaskingError

GRID = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(GRID, True, id="array"),
        pytest.param({"y": GRID}, True, id="object of one"),
        pytest.param({"y": GRID, "z": GRID}, False, id="object of two"),
        pytest.param({"y": GRID, "n": 1}, False, id="object with more"),
        pytest.param({}, False, id="empty object"),
        pytest.param({"y": [1.0]}, False, id="list"),
        pytest.param([GRID], False, id="list of one"),
        pytest.param(np.array([object()]), False, id="objects"),
        pytest.param(np.zeros(1, [("a", object)]), False, id="records with objects"),
        pytest.param(np.ma.masked_array([1.0], [True]), False, id="masked"),
        pytest.param(None, False, id="null"),
    ],
)
def test_single_arrays(value: Any, found: bool) -> None:
    """A response that is one array, or an object with one, can be a file, unless it would be pickled."""
    assert single_array(value) is (GRID if found else None)


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)))
def test_fuzz_round_trip(array: Any) -> None:
    """Every dtype and shape is read back by numpy and by us, byte for byte."""
    raw = write_npy(array)
    for found in (np.load(io.BytesIO(raw), allow_pickle=False), read_npy(raw)):
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_objects_are_never_written() -> None:
    """They would be pickled."""
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npy(np.array([object()]))


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([1, "a"], object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[1.5]", id="json"),
        pytest.param(pickle.dumps(GRID), id="pickle"),
        pytest.param(pickled(), id="pickled objects"),
        pytest.param(write_npy(GRID)[:-1], id="cut"),
        pytest.param(write_npy(GRID) + b"x", id="more"),
        pytest.param(write_npy(GRID) + write_npy(GRID), id="two arrays"),
        pytest.param(write_npy(np.zeros(1, "i4,f8")), id="records"),
    ],
)
def test_what_is_no_file_of_one_array(raw: bytes) -> None:
    """It is rejected."""
    with pytest.raises(MaskingError):
        read_npy(raw)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_fuzz_reading(noise: bytes, place: int) -> None:
    """Any body of a view is an array or rejected."""
    raw = write_npy(GRID)
    with suppress(MaskingError):
        assert isinstance(read_npy(raw[:place] + noise), np.ndarray)
