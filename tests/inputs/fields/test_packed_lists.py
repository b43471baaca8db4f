from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from field_loading import errors, load
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.fields.tensor import packed

FLOATS = frozenset({float, int})
INTEGERS = frozenset({int})


@pytest.mark.parametrize(
    ("leaf", "types", "dtype"),
    [
        (0.5, FLOATS, np.dtype("f8")),
        (-0.0, FLOATS, np.dtype("f8")),
        (5e-324, FLOATS, np.dtype("f8")),
        (float("inf"), FLOATS, np.dtype("f8")),
        (7, FLOATS, np.dtype("i4")),
        (-(2**31), INTEGERS, np.dtype("i4")),
        (2**31 - 1, INTEGERS, np.dtype("i4")),
    ],
    ids=str,
)
def test_numbers_of_one_type_are_read_in_place(leaf: float, types: frozenset[type], dtype: np.dtype[Any]) -> None:
    """This Python writes lists as the fast way expects; otherwise it would be slow without a word."""
    found, known = packed([[leaf] * 60] * 2, types)
    assert found is not None
    assert known == 120
    assert found.dtype == dtype
    assert found.tobytes() == np.array([leaf] * 120, dtype).tobytes()
    assert found.flags.writeable


def test_a_few_numbers_go_the_long_way() -> None:
    """Below a hundred, the fast way is not."""
    assert packed([[0.5] * 99], FLOATS)[0] is None
    assert packed([[0.5] * 100], FLOATS)[0] is not None


@pytest.mark.parametrize(
    "leaf",
    [True, None, "text", "g", [], [0.5], {}, 2**31, -(2**31) - 1, 2**80, 1, np.float64(1), ..., b"12345678"],
    ids=repr,
)
@pytest.mark.parametrize("place", [0, 1, 99, 150, 199])
def test_anything_else_goes_the_long_way(leaf: Any, place: int) -> None:
    """One item of another type disables the fast path; the items before it are known."""
    items: list[Any] = [0.5] * 200
    items[place] = leaf
    found, known = packed([items[:100], items[100:]], FLOATS)
    assert found is None
    # Of a row with something of another length nothing is known, and of what cannot be written nothing at all.
    assert known in ((0, 100, place) if place >= 100 else (0,))


@pytest.mark.parametrize("leaf", [None, [0.5, 0.5], "text of some length"], ids=repr)
def test_a_row_of_anything_else_goes_the_long_way(leaf: Any) -> None:
    """The marshalled form of a row may be much shorter or longer than for numbers."""
    assert packed([[0.5] * 100, [leaf] * 100], FLOATS) == (None, 100)


@pytest.mark.parametrize("leaf", [0.5, True])
def test_only_the_types_asked_for(leaf: Any) -> None:
    """Floats are not read for integers, and booleans are not read at all."""
    assert packed([[leaf] * 100], INTEGERS) == (None, 0)


def test_errors_in_large_lists_are_found() -> None:
    """Values that the fast path does not read are rejected at their position."""
    rows: list[list[Any]] = [[0.5] * 20 for _ in range(20)]
    rows[19][19] = None
    assert errors(Tensor((None, 20)), rows) == {19: {19: ["Not a number."]}}
    rows[19][19] = 2
    assert load(Tensor((None, 20)), rows)[19].tolist() == [0.5] * 19 + [2]


_ITEMS = st.one_of(
    st.floats(), st.integers(-(2**33), 2**33), st.booleans(), st.none(), st.text(max_size=9), st.lists(st.floats())
)


@given(base=st.lists(_ITEMS, min_size=1, max_size=12), repeat=st.integers(9, 30), columns=st.integers(1, 12))
def test_fuzz_the_fast_way_is_the_long_way(base: list[Any], repeat: int, columns: int) -> None:
    """The fast path returns the same array as numpy for the same items, and only accepts the requested types."""
    items = base * (repeat * columns)
    rows = [items[start : start + columns] for start in range(0, len(items), columns)]
    rows = [row for row in rows if len(row) == columns]
    found, known = packed(rows, FLOATS)
    flat = [item for row in rows for item in row]
    assert FLOATS.issuperset(map(type, flat[:known]))
    if found is None:
        assert len(flat) < 100 or len(set(map(type, flat))) > 1 or not FLOATS.issuperset(map(type, flat)) or wide(flat)
    else:
        assert FLOATS.issuperset(map(type, flat))
        assert found.astype("f8").tobytes() == np.array(flat, "f8").tobytes()


def wide(items: list[Any]) -> bool:
    return any(isinstance(item, int) and not -(2**31) <= item < 2**31 for item in items)
