"""Whole arrays, rounded and cut."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flask_secure_ml.outputs.scores import MaskingError, array_of, as_floats, rounded, top_k

FLOATS = ["float16", "float32", "float64", ">f4"]


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        pytest.param([0.12345, 0.99999], 3, [0.123, 1.0], id="decimals"),
        pytest.param([0.5, 1.5, 2.5], 0, [0.0, 2.0, 2.0], id="half to even"),
        pytest.param([-0.001], 2, [0.0], id="no negative zero"),
        pytest.param([1e300, 1e16 + 2, -1e300], 15, [1e300, 1e16 + 2, -1e300], id="too large for decimals"),
        pytest.param([np.inf, np.nan], 2, [np.inf, np.nan], id="not finite"),
    ],
)
def test_rounding(value: list[float], decimals: int, expected: list[float]) -> None:
    """As by numpy, except for values that overflow in it."""
    assert repr(rounded(np.array(value), decimals).tolist()) == repr(expected)


def test_rounding_narrow_floats() -> None:
    """In a float16 of its own, 3.791 would become 3.793, and 100.56 times a thousand Infinity."""
    assert rounded(np.array([3.791], "f2"), 3) == np.array([3.791], "f2")
    found = rounded(np.array([100.56, 60000.0], "f2"), 1)
    assert (found.dtype, found.tolist()) == (np.dtype("f2"), [100.625, 60000.0])
    assert rounded(np.array([100.56], "f2"), 0).tolist() == [101.0]


_arrays = st.sampled_from(FLOATS).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(max_dims=3, max_side=6),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(_arrays, st.integers(0, 15))
def test_fuzz_rounding(array: Any, decimals: int) -> None:
    """Shape and dtype are kept, finite values stay finite and near, and rounding again has no effect."""
    found = rounded(array, decimals)
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.isfinite(found).all()
    exact, limits = array.astype("f8"), np.finfo(array.dtype)
    # The rounded number has to be one of the dtype: near zero those are as far apart as its smallest one is from zero.
    nearest = np.abs(exact) * float(limits.eps) + float(limits.smallest_subnormal)
    assert (np.abs(found.astype("f8") - exact) <= 0.5 * 10.0**-decimals + nearest).all()
    assert np.array_equal(rounded(found, decimals), found)


@given(hnp.arrays("float64", 5, elements=st.floats(0, 1)), st.integers(0, 15))
def test_fuzz_decimals_as_a_client_reads_them(scores: Any, decimals: int) -> None:
    """No score has more decimals in JSON than it may have."""
    for text in orjson.dumps(rounded(scores, decimals).tolist()).decode().strip("[]").split(","):
        assert Decimal(text) == round(Decimal(text), decimals)


@given(hnp.arrays("float64", (3, 4), elements=st.floats(0, 1)), st.integers(0, 15), st.integers(0, 15))
def test_fuzz_fewer_decimals_tell_less(scores: Any, one: int, other: int) -> None:
    """Scores that cannot be distinguished with more decimals cannot be with fewer."""
    fewer, more = sorted((one, other))
    precise, coarse = rounded(scores, more), rounded(scores, fewer)
    assert np.unique(coarse).size <= np.unique(scores).size
    assert np.unique(coarse).size <= np.unique(precise).size or fewer == more


@pytest.mark.parametrize(
    ("value", "k", "expected"),
    [
        pytest.param([0.1, 0.7, 0.2], 1, [0.0, 0.7, 0.0], id="one"),
        pytest.param([0.1, 0.7, 0.2], 2, [0.0, 0.7, 0.2], id="two"),
        pytest.param([0.1, 0.7, 0.2], 3, [0.1, 0.7, 0.2], id="as many"),
        pytest.param([0.1, 0.7, 0.2], 9, [0.1, 0.7, 0.2], id="more"),
        pytest.param([[0.1, 0.9], [0.8, 0.2]], 1, [[0.0, 0.9], [0.8, 0.0]], id="each row"),
        pytest.param([[[0.1, 0.9]], [[0.8, 0.2]]], 1, [[[0.0, 0.9]], [[0.8, 0.0]]], id="last dimension"),
        pytest.param([-3.0, -0.5, -2.0], 1, [-1.5, -0.5, -1.5], id="negative"),
        pytest.param([-3.0, -0.5, -2.0], 2, [-4.0, -0.5, -2.0], id="two negative"),
        pytest.param([-3.0, 5.0, 0.5], 1, [0.0, 5.0, 0.0], id="positive among negative"),
        pytest.param([0.0, 0.0, 1.0], 2, [0.0, 0.0, 1.0], id="zero is kept"),
        pytest.param([-5.0, 0.0], 1, [-1.0, 0.0], id="zero above negative"),
        pytest.param([-1e308, -1.7e308], 1, [-1e308, np.finfo("f8").min], id="near the end"),
        pytest.param([], 1, [], id="empty"),
        pytest.param(0.5, 1, 0.5, id="no dimension"),
    ],
)
def test_the_largest_are_kept(value: Any, k: int, expected: Any) -> None:
    """The others are 0, or lower than negative kept ones, so that the index of the largest is correct."""
    assert top_k(np.array(value, "f8"), k).tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_has_no_rank(value: float) -> None:
    """NaN would sort above every score."""
    with pytest.raises(MaskingError, match="rank"):
        top_k(np.array([0.5, value]), 1)


@given(_arrays, st.integers(1, 6))
def test_fuzz_top_k(array: Any, k: int) -> None:
    """At most the k largest values of each row are kept, the largest remains, and repeating changes nothing."""
    found = top_k(array, k)
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.isfinite(found).all()
    for row, cut in zip(array.reshape(-1, array.shape[-1]), found.reshape(-1, array.shape[-1]), strict=True):
        largest = np.sort(row)[-k:]
        # The one value beside the k is made from the least of them.
        assert len(set(cut.tolist()) - {0.0}) <= min(k, row.size) + (largest[0] < 0)
        assert set(largest.tolist()) <= set(cut.tolist())
        assert cut.max() == row.max()
        assert row[np.argmax(cut)] == row.max() or row.max() == np.finfo(row.dtype).min
    assert np.array_equal(top_k(found, k), found)


@given(hnp.arrays("float64", (2, 6), elements=st.floats(0, 1)), st.integers(1, 6))
def test_fuzz_never_more_than_k_scores(scores: Any, k: int) -> None:
    """Of probabilities, no row has more than k that are not 0, and fewer for a smaller k."""
    counts = [np.count_nonzero(top_k(scores, each), axis=-1) for each in range(1, k + 1)]
    assert all((count <= each).all() for each, count in enumerate(counts, 1))
    assert all((one <= other).all() for one, other in pairwise(counts))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([0.5, 1], [0.5, 1.0], id="integer among floats"),
        pytest.param([[0.5], [1]], [[0.5], [1.0]], id="nested"),
        pytest.param(([0.5], (1.5,)), [[0.5], [1.5]], id="tuples"),
        pytest.param([np.float32(0.5), np.int8(1)], [0.5, 1.0], id="numpy scalars"),
        pytest.param([Decimal("0.5")], [0.5], id="decimals"),
        pytest.param([float("nan"), 1.0], [float("nan"), 1.0], id="nan"),
        pytest.param([0.5, 2**53], [0.5, 2.0**53], id="largest integer"),
        pytest.param([1e300, 1], [1e300, 1.0], id="large float"),
        pytest.param([1, 2], None, id="integers only"),
        pytest.param([True, 0.5], None, id="boolean"),
        pytest.param(["a", 0.5], None, id="text"),
        pytest.param([None, 0.5], None, id="null"),
        pytest.param([[0.5], [0.5, 1]], None, id="ragged"),
        pytest.param([[0.5], 0.5], None, id="other depth"),
        pytest.param([], None, id="empty"),
        pytest.param([[], []], None, id="empty rows"),
    ],
)
def test_lists_of_scores(value: Any, expected: Any) -> None:
    """Nested lists of numbers with a float are scores; any other lists are not one array."""
    found = array_of(value)
    assert repr(None if found is None else found.tolist()) == repr(expected)


@pytest.mark.parametrize("integer", [2**53 + 1, -(2**53) - 1, 2**70, 10**400])
def test_large_integers_among_scores(integer: int) -> None:
    """They would be changed without a word."""
    with pytest.raises(MaskingError, match="53 bits"):
        as_floats([0.5, integer])
