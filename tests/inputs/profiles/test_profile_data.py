"""Data files that a profile is fitted to."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_secure_ml.inputs import ProfileError
from flask_secure_ml.inputs.profiles.fit import read_columns


def columns(path: Path, *left_out: str) -> list[tuple[str | None, str, list[Any], int]]:
    return [
        (column.name, column.values.dtype.name, column.values.tolist(), column.missing)
        for column in read_columns(path, left_out)
    ]


def text(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode())
    return path


def array(tmp_path: Path, value: Any) -> Path:
    np.save(tmp_path / "data.npy", value)
    return tmp_path / "data.npy"


def test_npy(tmp_path: Path) -> None:
    """The columns of an array have no names."""
    path = array(tmp_path, np.array([[1, 2, 3], [4, 5, 6]], np.int8))
    assert columns(path) == [(None, "int8", [1, 4], 0), (None, "int8", [2, 5], 0), (None, "int8", [3, 6], 0)]


@pytest.mark.parametrize("number", ["2", "-1"])
def test_npy_target(tmp_path: Path, number: str) -> None:
    """A column is left out by its number, from the front or from the back."""
    path = array(tmp_path, np.array([[1, 2, 3]]))
    assert [values for _, _, values, _ in columns(path, number)] == [[1], [2]]


@pytest.mark.parametrize("number", ["3", "-4", "price"])
def test_npy_without_the_target(tmp_path: Path, number: str) -> None:
    """A column that is not there is rejected: left in, a target would become a feature."""
    with pytest.raises(ProfileError, match="from 0 to 2"):
        columns(array(tmp_path, np.zeros((1, 3))), number)


def test_npy_never_unpickles(tmp_path: Path) -> None:
    """An array of objects is rejected before anything in it is made."""
    path = tmp_path / "data.npy"
    np.save(path, np.array([[print]]), allow_pickle=True)
    with pytest.raises(ProfileError, match=r"not a \.npy file"):
        columns(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x04\x00abcd", pickle.dumps([1]), b"PK\x03\x04"], ids=range(5)
)
def test_damaged_npy(tmp_path: Path, content: bytes) -> None:
    """A file that is not an array is rejected with a clear message."""
    (tmp_path / "data.npy").write_bytes(content)
    with pytest.raises(ProfileError, match=r"not a \.npy file"):
        columns(tmp_path / "data.npy")


def test_csv(tmp_path: Path) -> None:
    """Integers, floats, booleans and gaps are distinguished, column by column."""
    path = text(
        tmp_path,
        '\ufeffage,"size, in m",member,id\r\n31,1.5,True,9223372036854775808\r\n,2e0,false,1\r\n\r\n44,NaN,,2\r\n',
    )
    assert columns(path) == [
        ("age", "int64", [31, 44], 1),
        ("size, in m", "float64", [1.5, 2.0], 1),
        ("member", "bool", [True, False], 1),
        ("id", "uint64", [2**63, 1, 2], 0),
    ]


def test_csv_integers_that_no_dtype_has(tmp_path: Path) -> None:
    """Integers beyond 64 bits become floats."""
    assert columns(text(tmp_path, "a\n-1\n18446744073709551616\n")) == [("a", "float64", [-1.0, 2.0**64], 0)]


def test_csv_target(tmp_path: Path) -> None:
    """An omitted column may contain anything."""
    assert columns(text(tmp_path, "a,label\n1,spam\n2,ham\n"), "label") == [("a", "int64", [1, 2], 0)]


def test_csv_without_rows(tmp_path: Path) -> None:
    """Names alone are columns without values."""
    assert columns(text(tmp_path, "a,b\n")) == [("a", "int64", [], 0), ("b", "int64", [], 0)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("a,b\n1,2\n3\n", "as many fields", id="ragged"),
        pytest.param("1,2\n3,4\n", "first line has numbers", id="no-header"),
        pytest.param("a,a\n1,2\n", "differ", id="name-twice"),
        pytest.param("a,\n1,2\n", "must have a name", id="no-name"),
        pytest.param("a\nspam\n", "'a' contains a value that is not a number; --target", id="text"),
        pytest.param("a\n1_000\n", "not a number", id="underscore"),
        pytest.param("a\n0x10\n", "not a number", id="hexadecimal"),
        pytest.param("a\n\u0663\n", "not a number", id="other-digits"),
        pytest.param("a\n1-2\n", "not a number", id="range"),
        pytest.param("a\ninf\n", "not a number", id="infinite"),
        pytest.param("a\n" + "1" * 5000 + "\n", "not a number", id="long-number"),
        pytest.param("a\ntrue\n1\n", "not a number", id="boolean-and-number"),
        pytest.param('a\n"1\n', r"not a \.csv file", id="open-quotes"),
        pytest.param("a\n" + "1" * 200_000 + "\n", r"not a \.csv file", id="field-above-the-limit"),
    ],
)
def test_wrong_csv(tmp_path: Path, content: str, reason: str) -> None:
    """A file that is not a table of numbers is rejected with a message that quotes no value."""
    with pytest.raises(ProfileError, match=reason) as caught:
        columns(text(tmp_path, content))
    assert "spam" not in str(caught.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    """Only UTF-8 is read."""
    path = tmp_path / "data.csv"
    path.write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(ProfileError, match=r"not a \.csv file"):
        columns(path)


def test_parquet(tmp_path: Path) -> None:
    """Numbers and booleans keep their types; a null is missing, in integers too."""
    pa, parquet = (
        pytest.importorskip("pyarrow", exc_type=ImportError),
        pytest.importorskip("pyarrow.parquet", exc_type=ImportError),
    )
    path = tmp_path / "data.parquet"
    table = {"age": pa.array([31, None], pa.int16()), "size": pa.array([0.5, 1.5], pa.float32()), "on": [True, None]}
    parquet.write_table(pa.table(table | {"label": ["a", "b"]}), path)
    assert columns(path, "label") == [
        ("age", "int16", [31], 1),
        ("size", "float32", [0.5, 1.5], 0),
        ("on", "bool", [True], 1),
    ]
    with pytest.raises(ProfileError, match="'label' is of type string"):
        columns(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"], ids=range(3))
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    """A file that is not Parquet is rejected with a clear message."""
    pytest.importorskip("pyarrow", exc_type=ImportError)
    (tmp_path / "data.parquet").write_bytes(content)
    with pytest.raises(ProfileError, match=r"data\.parquet"):
        columns(tmp_path / "data.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is missing is named."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "data.parquet").touch()
    with pytest.raises(ProfileError, match=r"flask-secure-ml\[profile\]"):
        columns(tmp_path / "data.parquet")


def test_another_suffix(tmp_path: Path) -> None:
    """The format follows from the suffix, and a pickle is none of them."""
    with pytest.raises(ProfileError, match=r"\.npy, \.csv, \.parquet"):
        columns(tmp_path / "data.pkl")


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is rejected in a sentence."""
    with pytest.raises(ProfileError, match="cannot be read"):
        columns(tmp_path / "data.csv")
