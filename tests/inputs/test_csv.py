"""Tables of numbers as CSV: rows to an array at once; the corpus has what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

from bodies import a_guard, loaded
from flask_secure_ml.errors import MalformedRequest, PayloadTooLarge, SecureMLError, ValidationFailed
from flask_secure_ml.inputs import Tensor

CSV = "text/csv"
GUARD = a_guard(["csv"])


def load(text: str, shape: tuple[int | None, ...] = (None, None), dtype: str = "float64", media_type: str = CSV) -> Any:
    schema = Schema.from_dict({"instances": Tensor(shape, dtype)})
    return loaded(GUARD, schema, text.encode(), media_type).payload["instances"]


def test_rows_are_lines() -> None:
    """A line is a row, a field a column."""
    assert load("1,2,3\n4,5,6\n").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("1,2\n3,4", "int64"),
        ("1,2.0\n3,4", "float64"),
        ("1,2e0\n3,4", "float64"),
        ("1,2E0\n3,4", "float64"),
        ("18446744073709551615,1", "uint64"),
        ("-1,9223372036854775807", "int64"),
    ],
)
def test_a_table_is_of_integers_or_of_floats(text: str, sent: str) -> None:
    """One fraction or exponent makes a table one of floats, which a tensor of integers refuses."""
    assert load(text).dtype == np.float64
    wanted = "uint64" if sent == "uint64" else "int64"
    if sent == "float64":
        with pytest.raises(ValidationFailed):
            load(text, dtype=wanted)
    else:
        rows = [row.split(",") for row in text.split("\n")]
        assert load(text, dtype=wanted).tolist() == [list(map(int, row)) for row in rows]


@pytest.mark.parametrize("text", ["18446744073709551616,1", "-1,18446744073709551615", "-9223372036854775809,1"])
def test_integers_that_no_type_holds_are_floats(text: str) -> None:
    """A tensor of floats gets the nearest ones, as from JSON; one of integers refuses them."""
    assert load(text).tolist() == [[float(field) for field in text.split(",")]]
    with pytest.raises(ValidationFailed):
        load(text, dtype="int64")


def test_a_column_fills_a_tensor_of_one_dimension() -> None:
    """A single column is a list; a row of several is not."""
    assert load("1\n2\n3\n", (None,)).tolist() == [1, 2, 3]
    with pytest.raises(ValidationFailed):
        load("1,2,3\n", (None,))


@pytest.mark.parametrize("header", ["a,b", '"a","b"', '"a, c","b"', '"a ""x""",b', "\u00e9,b", "1,2"])
def test_a_header_is_only_read_when_it_is_announced(header: str) -> None:
    """Names are CSV with quotation marks; they do not decide about columns."""
    assert load(f"{header}\r\n3,4\r\n", media_type="text/csv; header=present").tolist() == [[3, 4]]
    assert load(f"{header}\n3,4\n", media_type="text/csv; charset=utf-8; header=PRESENT").tolist() == [[3, 4]]


def test_ragged_rows_are_pointed_to() -> None:
    """The errors have the rows that are not as the first one, twenty at most."""
    with pytest.raises(ValidationFailed) as caught:
        load("1,2\n3\n4,5\n6,7,8\n")
    assert [error["pointer"] for error in caught.value.members["errors"]] == ["/instances/1", "/instances/3"]
    with pytest.raises(ValidationFailed) as caught:
        load("1,2\n" + "3\n" * 100)
    assert len(caught.value.members["errors"]) == 20


def test_a_table_over_the_cap_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and line breaks are counted first; so is what the numbers will take."""
    for guard in (a_guard(["csv"], max_elements=5), a_guard(["csv"], max_decoded=40)):
        schema = Schema.from_dict({"instances": Tensor((None, None))})
        assert loaded(guard, schema, b"1,2,3,4,5", CSV).payload
        with monkeypatch.context() as patch:
            patch.setattr("orjson.loads", lambda _: pytest.fail("it was parsed"))
            with pytest.raises(PayloadTooLarge):
                loaded(guard, schema, b"1,2\n3,4\n5,6", CSV)


_FIELDS = st.integers(-(10**20), 10**20).map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)


_ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(_FIELDS, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(rows=_ROWS, end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
def test_fuzz_tables_come_through(rows: list[list[str]], end: str, last: bool) -> None:
    """What Python reads field by field is what is read at once."""
    text = end.join(map(",".join, rows)) + (end if last else "")
    assert load(text).tolist() == [[float(field) for field in row] for row in rows]


@given(text=st.text('0123456789.,-+eE\n\r "aNnif_x', max_size=40))
def test_fuzz_what_passes_is_a_table(text: str) -> None:
    """What is accepted is what a strict and slow reader accepts, with the same numbers."""
    try:
        found = load(text)
    except (MalformedRequest, ValidationFailed):
        return
    rows = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    assert found.tolist() == [[float(field) for field in row.split(",")] for row in rows]


def test_the_reason_names_no_value() -> None:
    """Neither a header nor a field comes back in the reason."""
    for text, media_type in (("secret,1\n", CSV), ("secret,secret\n1,2\n", "text/csv; header=present")):
        with pytest.raises(SecureMLError) as caught:
            load(text, media_type=media_type)
        assert "secret" not in caught.value.reason
