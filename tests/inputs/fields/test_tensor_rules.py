from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields

from field_loading import errors, load
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.fields.tensor_options import off_total
from flask_secure_ml.inputs.load_context import MAX_REPORTS, OutOfRange, collect_out_of_range

NOT_ALLOWED = ["Not an allowed value."]


@pytest.mark.parametrize(
    ("dtype", "allowed", "good", "bad"),
    [
        ("float32", {0, 0.1, 2.5}, [0.1, 2.5, 0, -0.0], 0.1000001),
        ("float64", [0.1], [0.1], float(np.float32(0.1))),
        ("int8", [-1, 1], [1, -1], 0),
        ("uint64", [2**64 - 1], [2**64 - 1], 2**64 - 2),
        ("int64", [2**53 + 1], [2**53 + 1], 2**53),
    ],
)
def test_allowed_values(dtype: str, allowed: Any, good: list[float], bad: float) -> None:
    """Only the listed values pass, as they are written or as the dtype has them."""
    field = Tensor((None,), dtype, allowed=allowed)
    assert load(field, good).tolist() == np.array(good, dtype).tolist()
    assert load(field, np.array(good, dtype)).tolist() == np.array(good, dtype).tolist()
    assert load(field, np.array(good, dtype).tolist()).tolist() == np.array(good, dtype).tolist()
    assert errors(field, [good[0], bad]) == {1: NOT_ALLOWED}
    assert field.allowed == tuple(sorted(allowed))


@pytest.mark.parametrize(
    ("options", "good", "bad", "text"),
    [
        ({"total": (0.99, 1.01)}, [0.5, 0.5], [0.5, 0.6], "Must have a sum from 0.99 to 1.01."),
        ({"total": (1, 2)}, [0, 1], [1, -1], "Must have a sum from 1 to 2."),
        ({"total": (1, 2)}, [1, 1], [2, 0.5], "Must have a sum from 1 to 2."),
        ({"norm": (0, 5)}, [3, 4], [3, 4.1], "Must have a norm from 0 to 5."),
        ({"norm": (5, float("inf"))}, [-3, 4], [0, 4.9], "Must have a norm from 5 to inf."),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_and_norms(options: dict[str, Any], good: list[float], bad: list[float], text: str, dtype: str) -> None:
    """The last dimension has a sum or a norm within a span, both ends allowed; the error is at the row."""
    field = Tensor((None, 2), dtype, **options)
    assert load(field, [good, good]).shape == (2, 2)
    assert errors(field, [good, bad]) == {1: [text]}
    assert errors(field, np.array([bad, good])) == {0: [text]}
    assert errors(Tensor((2,), dtype, **options), bad) == [text]
    assert errors(Tensor((1, None, 2), dtype, **options), [[good, bad]]) == {0: {1: [text]}}


def test_sums_of_integers_do_not_wrap() -> None:
    """The sum of integers is that of numbers, not that of the dtype."""
    assert load(Tensor((3,), "uint8", total=(600, 600)), [200] * 3).tolist() == [200] * 3
    wraps_to_zero = [2**63 - 1, 2**63 - 1, 2]
    assert errors(Tensor((3,), "int64", total=(-10, 10)), wraps_to_zero) == ["Must have a sum from -10 to 10."]
    assert errors(Tensor((2,), "int8", norm=(0, 1)), [100, 100]) == ["Must have a norm from 0 to 1."]


TOP = 2**63 - 1


@pytest.mark.parametrize(
    ("dtype", "row", "span", "text"),
    [
        ("int64", [2**53, 1], (0, 2**53), "0 to 9007199254740992"),
        ("int64", [2**53, 2], (0, 2**53 + 1), "0 to 9007199254740993"),
        ("int64", [-(2**53), -1], (-(2**53), 0), "-9007199254740992 to 0"),
        ("int64", [TOP] * 9, (0, 9 * TOP - 1), f"0 to {9 * TOP - 1}"),
        ("int64", [-TOP - 1] * 9, (-9 * TOP - 8, 0), f"{-9 * TOP - 8} to 0"),
        ("uint64", [2**64 - 1] * 3, (0, 3 * 2**64 - 4), f"0 to {3 * 2**64 - 4}"),
        ("uint64", [2**64 - 1, 1], (0, 5), "0 to 5"),
        (">i8", [2**53, 1], (0, 2**53), "0 to 9007199254740992"),
        ("int8", [1, 1], (2.5, float("inf")), "2.5 to inf"),
        ("int64", [2, 1], (float("-inf"), 2.5), "-inf to 2.5"),
        ("uint8", [255, 1], (0, 255), "0 to 255"),
    ],
)
def test_sums_of_integers_are_exact(dtype: str, row: list[int], span: Any, text: str) -> None:
    """No integer is rounded on the way to its sum, nor a bound that is an integer."""
    field = Tensor((None, None), dtype, total=span)
    assert errors(field, [row, row]) == {place: [f"Must have a sum from {text}."] for place in (0, 1)}
    exact = sum(row)
    spans: list[Any] = [(exact, exact), (np.int64(0), float("inf")) if exact > 0 else (float("-inf"), 0)]
    for good in spans:
        assert load(Tensor((None, None), dtype, total=good), [row]).tolist() == [row]


@given(st.lists(st.integers(-TOP - 1, TOP), min_size=1, max_size=9), st.integers(-2, 2), st.integers(-2, 2))
def test_fuzz_sums_of_integers(row: list[int], low: int, high: int) -> None:
    """A sum is within its span when Python's is."""
    span = (sum(row) + low, sum(row) + max(low, high))
    assert bool(off_total(np.array(row), span)) == (not span[0] <= sum(row) <= span[1])


def test_norms_are_taken_in_64_bits() -> None:
    """The square of a float32 may exceed the range of float32."""
    assert load(Tensor((2,), norm=(4.9e19, 5.1e19)), np.array([3e19, 4e19], "f4")).dtype == "float32"


@pytest.mark.parametrize("row", [[1e308] * 2 + [-1e308] * 2 + [0.0] * 4, [1e308] * 3], ids=["both ways", "one way"])
def test_sums_that_overflow_are_rejected(row: list[float]) -> None:
    """An infinite sum is within no finite span, and raises no warning."""
    expected = ["Must have a sum from -1.5e+308 to 1.5e+308."]
    assert errors(Tensor((None,), "float64", total=(-1.5e308, 1.5e308)), row) == expected
    assert errors(Tensor((None,), "float64", norm=(0, 1.5e308)), row) == ["Must have a norm from 0 to 1.5e+308."]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (Tensor((None,), minimum=0, maximum=1, outside="clip"), [-5, 0.5, 7], [0, 0.5, 1]),
        (Tensor((None, 2), minimum=[0, 5], outside="clip"), [[-1, 9], [3, 4]], [[0, 9], [3, 5]]),
        (Tensor((None,), "int8", maximum=10.5, outside="clip"), [127, 10], [10, 10]),
        (Tensor((None,), ">f4", maximum=1, outside="clip"), [7], [1]),
        (Tensor((None,), maximum=0.1, outside="clip"), [7], [float(np.float32(0.1))]),
    ],
)
def test_values_outside_are_clipped(field: Tensor, value: list[Any], expected: list[Any]) -> None:
    """With ``clip``, values beyond a bound become the bound; the sent array is not modified."""
    assert load(field, value).tolist() == expected
    array = np.array(value, field.dtype)
    found = load(field, array)
    assert (found.tolist(), found.dtype, found.flags.writeable) == (expected, field.dtype, True)
    assert array.tolist() == np.array(value, field.dtype).tolist()


def test_rules_hold_for_what_was_clipped() -> None:
    """The rules are checked on the values that the view gets."""
    assert load(Tensor((2,), maximum=1, outside="clip", total=(0, 2)), [9, 1]).tolist() == [1, 1]
    assert errors(Tensor((2,), maximum=1, outside="clip", allowed=[9]), [9, 9]) == {0: NOT_ALLOWED, 1: NOT_ALLOWED}


@pytest.mark.parametrize("outside", ["clip", "report"])
def test_what_the_dtype_has_not_is_rejected_all_the_same(outside: Any) -> None:
    """Infinite values are rejected also with clipping or reporting."""
    assert list(errors(Tensor((2,), maximum=1, outside=outside), [0, 1e39])) == [1]
    assert list(errors(Tensor((2,), "int8", maximum=1, outside=outside), [0, 128])) == [1]


class Both(Schema):
    low = Tensor((None, 2), minimum=0, maximum=1, outside="report")
    high = Tensor((None,), maximum=1, outside="clip", data_key="a/b~c")
    fine = Tensor((1,), minimum=0, outside="report")


def test_what_is_let_through_is_reported() -> None:
    """A loader that asks gets the positions of each field, and whether they were changed."""
    value = {"low": [[-1, 0], [0.5, 2]], "a/b~c": [3, 0], "fine": [1]}
    with collect_out_of_range() as found:
        loaded = Both().load(value)
    assert loaded["low"].tolist() == value["low"]
    assert loaded["high"].tolist() == [1, 0]
    assert found == [
        OutOfRange(("/low/0/0", "/low/1/1"), 2, clipped=False),
        OutOfRange(("/a~1b~0c/0",), 1, clipped=True),
    ]


def test_reports_are_bounded() -> None:
    """Neither many values nor many fields make a long report."""
    field = Tensor((None,), maximum=0, outside="report")
    many = Schema.from_dict({"x": fields.List(field)})()
    with collect_out_of_range() as found:
        many.load({"x": [[1.0] * 500] * 50})
    assert len(found) == MAX_REPORTS
    assert {(len(report.pointers), report.count) for report in found} == {(20, 500)}
    assert found[0].pointers[0] == "/0"


def test_each_loader_has_its_own_reports() -> None:
    """Reports are kept in their loader only, and do not include those of other threads or inner loaders."""
    field = Tensor((1,), maximum=0, outside="report")
    load(field, [1])
    with collect_out_of_range() as outer:
        other = threading.Thread(target=load, args=(field, [1]))
        other.start()
        other.join()
        with collect_out_of_range() as inner:
            load(field, [1])
        assert (len(outer), len(inner)) == (0, 1)
        load(field, [1])
    assert (len(outer), len(inner)) == (1, 1)
