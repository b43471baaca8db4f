"""Tables of numbers as CSV, loaded as an array at once; the corpus has rejected bodies."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

from bodies import a_guard, loaded
from flask_secure_ml.errors import MalformedRequest, PayloadTooLarge, SecureMLError, ValidationFailed
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.profiles.fit import columns_of, fit

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
    """One fraction or exponent makes a table one of floats, which a tensor of integers rejects."""
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
    """A tensor of floats gets the nearest ones, as from JSON; one of integers rejects them."""
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
    """Names are CSV with quotation marks; where the tensor has no names, they do not decide about columns."""
    assert load(f"{header}\r\n3,4\r\n", media_type="text/csv; header=present").tolist() == [[3, 4]]
    assert load(f"{header}\n3,4\n", media_type="text/csv; charset=utf-8; header=PRESENT").tolist() == [[3, 4]]


HEADER = f"{CSV}; header=present"
FEATURES = ("age", "income", "rooms")


def load_named(text: str, features: Sequence[str] = FEATURES, media_type: str = HEADER) -> Any:
    schema = Schema.from_dict({"instances": Tensor((None, len(features)), "float64", features=features)})
    return loaded(GUARD, schema, text.encode(), media_type).payload["instances"].tolist()


@pytest.mark.parametrize(
    "header",
    [
        "age,income,rooms",
        '"age","income","rooms"',
        " age ,\tincome, rooms ",
        '" age","income ",rooms',
        "\u00a0age,income,rooms",
    ],
)
def test_names_in_the_order_of_the_features(header: str) -> None:
    """Names may be quoted, and white space around them does not count."""
    assert load_named(f"{header}\r\n31,50000,2\r\n44,70000,3\r\n") == [[31, 50000, 2], [44, 70000, 3]]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_columns_are_matched_by_name(order: Sequence[int]) -> None:
    """Each feature gets its own column in any order of columns, for tensors of every dtype."""
    rows = [[31, 50000, 2], [44, 70000, 3], [18, 0, 1]]
    lines = [",".join(str(row[place]) for place in order) for row in rows]
    text = "\n".join([",".join(FEATURES[place] for place in order), *lines])
    assert load_named(text) == rows
    assert load_named(text.replace("\n18,", "\n18.0,")) == rows


def test_ranges_are_those_of_the_named_features() -> None:
    """The range of a profile belongs to its feature, and errors point to the position that the feature has there."""
    profile = fit(columns_of(np.array([[18.0, 0.0], [90.0, 1e6]]), ["age", "income"]))
    schema = Schema.from_dict({"instances": Tensor(profile=profile)})
    assert loaded(GUARD, schema, b"income,age\n50000,31\n", HEADER).payload["instances"].tolist() == [[31, 50000]]
    with pytest.raises(ValidationFailed) as caught:
        loaded(GUARD, schema, b"income,age\n50000,120\n", HEADER)
    assert caught.value.members["errors"] == [{"pointer": "/instances/0/0", "message": "Must be at most 90."}]


@pytest.mark.parametrize(
    ("header", "errors"),
    [
        pytest.param("age,income,room", {"room": "Unknown", "rooms": "Missing"}, id="of no feature"),
        pytest.param("a,b,c", dict.fromkeys("abc", "Unknown") | dict.fromkeys(FEATURES, "Missing"), id="none"),
        pytest.param("31,50000,2", {"31": "Unknown", "50000": "Unknown", "2": "Unknown"}, id="a row of numbers"),
        pytest.param("Age,income,rooms", {"Age": "Unknown", "age": "Missing"}, id="capital letter"),
        pytest.param("age,age,rooms", {"age": "Repeated", "income": "Missing"}, id="repeated"),
        pytest.param("age, age,rooms", {"age": "Repeated", "income": "Missing"}, id="repeated with a space"),
        pytest.param("a\u0301ge,income,rooms", {"a\u0301ge": "Unknown", "age": "Missing"}, id="accent"),
        pytest.param("\u0430ge,income,rooms", {"\u0430ge": "Unknown", "age": "Missing"}, id="Cyrillic"),
        pytest.param(",income,rooms", {"": "Unknown", "age": "Missing"}, id="empty"),
        pytest.param('age, "income",rooms', {'"income"': "Unknown", "income": "Missing"}, id="quotes after a space"),
        pytest.param("_schema,a/b,rooms", {"a~1b": "Unknown"}, id="special in pointers"),
    ],
)
def test_names_that_are_not_those_of_the_features(header: str, errors: dict[str, str]) -> None:
    """Unknown, missing and repeated names are a 422 that points to each."""
    with pytest.raises(ValidationFailed) as caught:
        load_named(f"{header}\n31,50000,2\n")
    found = {error["pointer"]: error["message"] for error in caught.value.members["errors"]}
    expected = {f"/instances/{name}": f"{problem} column." for name, problem in errors.items()}
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        pytest.param("age,income\n31,50000\n", {"/instances/rooms": "Missing column."}, id="one too few"),
        pytest.param("age,income,rooms,x\n31,5,2,1\n", {"/instances/x": "Unknown column."}, id="one too many"),
        pytest.param(",age,income,rooms\n0,31,5,2\n", {"/instances/": "Unknown column."}, id="index of pandas"),
    ],
)
def test_another_number_of_columns_than_features(text: str, errors: dict[str, str]) -> None:
    """The error names the column, not only the shape."""
    with pytest.raises(ValidationFailed) as caught:
        load_named(text)
    assert {error["pointer"]: error["message"] for error in caught.value.members["errors"]} == errors


def test_many_unknown_names_cost_little() -> None:
    """After twenty unknown names no further ones are kept."""
    with pytest.raises(ValidationFailed) as caught:
        load_named(",".join(map(str, range(200))) + "\n" + ",".join(["1"] * 200))
    assert len(caught.value.members["errors"]) == 20


def test_without_a_header_columns_have_their_positions() -> None:
    """Columns without names keep their order, and an undeclared line of names is not a row."""
    assert load_named("31,50000,2\n", media_type=CSV) == [[31, 50000, 2]]
    with pytest.raises(MalformedRequest):
        load_named("age,income,rooms\n31,50000,2\n", media_type=CSV)


def test_white_space_counts_where_features_differ_in_nothing_else() -> None:
    """Two columns of a sloppy data set stay two."""
    assert load_named("a ,a\n1,2\n", ("a", "a ")) == [[2, 1]]
    with pytest.raises(ValidationFailed):
        load_named("a,a\n1,2\n", ("a", "a "))


_NAME = st.text(st.sampled_from('a ,"') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)


@given(names=st.lists(_NAME, min_size=1, max_size=6, unique=True), data=st.data())
def test_fuzz_any_names_are_matched(names: list[str], data: st.DataObject) -> None:
    """A table with any names in any order, written by the csv module, is matched by name."""
    order = data.draw(st.permutations(range(len(names))))
    file = StringIO()
    csv.writer(file).writerows([[names[place] for place in order], order])
    assert load_named(file.getvalue(), names) == [list(range(len(names)))]


def test_ragged_rows_are_pointed_to() -> None:
    """The errors have the rows that are not as the first one, twenty at most."""
    with pytest.raises(ValidationFailed) as caught:
        load("1,2\n3\n4,5\n6,7,8\n")
    assert [error["pointer"] for error in caught.value.members["errors"]] == ["/instances/1", "/instances/3"]
    with pytest.raises(ValidationFailed) as caught:
        load("1,2\n" + "3\n" * 100)
    assert len(caught.value.members["errors"]) == 20


def test_a_table_over_the_cap_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and line breaks, and the size of the numbers, are checked before parsing."""
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
    """A table is read to the same numbers as field by field in Python."""
    text = end.join(map(",".join, rows)) + (end if last else "")
    assert load(text).tolist() == [[float(field) for field in row] for row in rows]


@given(text=st.text('0123456789.,-+eE\n\r "aNnif_x', max_size=40))
def test_fuzz_what_passes_is_a_table(text: str) -> None:
    """A strict and slow reader accepts the same tables, with the same numbers."""
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
