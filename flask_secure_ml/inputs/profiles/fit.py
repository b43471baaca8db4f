"""Computing a profile from data in ``.npy``, ``.csv`` and ``.parquet`` files, which are read without executing code."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Feature, Profile
from .file import DTYPES, MAX_QUANTILES, ProfileError, are_probabilities

Array = NDArray[Any]
QUANTILES = (0.001, 0.999)
_DIMENSIONS = 2


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one feature.

    :param values: booleans, integers or floats, of shape (present,); NaN counts as missing.
    :param missing: the number of other rows without a value, in addition to NaN.
    """

    name: str | None
    values: Array
    missing: int = 0

    @property
    def label(self) -> str:
        """The name of the column in messages."""
        return "a column" if self.name is None else f"the column {self.name!r}"


def columns_of(table: Array, names: Sequence[str] | None = None) -> list[Column]:
    """Return the columns of an array of shape (rows, features) or (rows,).

    :raises ProfileError: the array has another number of dimensions, or ``names`` does not match its columns.
    """
    if table.ndim not in (1, _DIMENSIONS):
        raise ProfileError(f"the data must have 1 or 2 dimensions, not {table.ndim}")
    columns = [table] if table.ndim == 1 else list(table.T)
    if names is not None and len(names) != len(columns):
        raise ProfileError("there must be one name for each column")
    labels: Sequence[str | None] = names or [None] * len(columns)
    return [Column(name, values) for name, values in zip(labels, columns, strict=True)]


def fit(columns: Iterable[Column], quantiles: Sequence[float] = QUANTILES) -> Profile:
    """Return the profile of columns of equal length.

    A quantile is the smallest observed value that at least this fraction of the values does not exceed (type 1 of
    Hyndman and Fan, 1996), so it is exact for integers.

    :param quantiles: probabilities from 0 to 1, in ascending order.
    :raises ProfileError: there are no columns, a column has no value, values are infinite or not numbers, or
        ``quantiles`` is invalid.
    """
    probabilities = tuple(map(float, quantiles))
    if not are_probabilities(probabilities):
        raise ProfileError(f"quantiles must be at most {MAX_QUANTILES} numbers from 0 to 1, rising")
    given = list(columns)
    if not given:
        raise ProfileError("the data has no feature")
    features = tuple(_feature(column, probabilities) for column in given)
    return Profile(len(given[0].values) + given[0].missing, probabilities, features)


def _feature(column: Column, probabilities: tuple[float, ...]) -> Feature:
    dtype = column.values.dtype.newbyteorder("=")
    if dtype.name not in DTYPES:
        raise ProfileError(f"{column.label} holds something other than booleans, integers or floats of up to 64 bits")
    rows = len(column.values) + column.missing
    ordered = _ordered(column, dtype)
    count = len(ordered)
    positions = [max(0, math.ceil(share * count) - 1) for share in probabilities]
    return Feature(
        name=column.name,
        dtype=dtype.name,
        minimum=min(_forms(ordered[0])),
        maximum=max(_forms(ordered[-1])),
        quantiles=tuple(
            _quantile(ordered[position], share) for position, share in zip(positions, probabilities, strict=True)
        ),
        missing=(rows - count) / rows,
        constant=bool(ordered[0] == ordered[-1]),
    )


def _ordered(column: Column, dtype: np.dtype[Any]) -> Array:
    values = np.asarray(column.values, dtype=dtype)
    if dtype.kind == "f":
        values = values[~np.isnan(values)]
    if not len(values):
        raise ProfileError(f"{column.label} has no value")
    ordered: Array = np.sort(values)
    if dtype.kind == "f" and not np.isfinite(ordered[[0, -1]]).all():
        raise ProfileError(f"{column.label} has infinite values")
    return ordered


def _forms(value: Any) -> tuple[float, ...]:
    """Return a value exactly, and in its shortest decimal form: 0.7 for the float32 0.699999988."""
    if isinstance(value, np.floating):
        return float(value), float(str(value))
    return (int(value),)


def _quantile(value: Any, share: float) -> float:
    # The outer of the two forms, so that both are within the range.
    return (min if share < 0.5 else max)(_forms(value))  # noqa: PLR2004  the median


_MISSING = frozenset({"", "na", "nan", "null", "none"})
_BOOLEANS = frozenset({"true", "false"})
_OF_INTEGERS = frozenset("0123456789+-")
_OF_NUMBERS = _OF_INTEGERS | frozenset(".e")
# More characters than any double needs (17 digits), and few enough to convert quickly.
_LONGEST = 64


def read_columns(path: Path, left_out: Sequence[str] = ()) -> list[Column]:
    """Return the columns of a file.

    :param left_out: columns to omit, by name, or by number from 0 (from -1 backwards) if the data have no names.
    :raises ProfileError: the file cannot be read, its format does not match its suffix, or a column does not exist.
    """
    readers = {".npy": _of_npy, ".csv": _of_csv, ".parquet": _of_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProfileError(f"{path} must be a file of type {', '.join(readers)}")
    try:
        return reader(path, left_out)
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror or 'it is damaged'}") from None
    except (ValueError, EOFError, NotImplementedError, csv.Error) as error:
        problem = str(error) if isinstance(error, ProfileError) else f"it is not a {path.suffix.lower()} file"
        raise ProfileError(f"{path}: {problem}") from None


def _kept(names: Sequence[str], left_out: Sequence[str]) -> list[int]:
    if unknown := set(left_out) - set(names):
        raise ProfileError(f"there is no column {min(unknown)!r}")
    if len(set(names)) < len(names) or "" in names:
        raise ProfileError("every column must have a name, and names must differ")
    return [position for position, name in enumerate(names) if name not in left_out]


def _of_npy(path: Path, left_out: Sequence[str]) -> list[Column]:
    # This maps the file into memory, and fails for object dtypes, which would have to be unpickled.
    columns = columns_of(np.lib.format.open_memmap(path, mode="r"))
    try:
        dropped = {range(len(columns))[int(number)] for number in left_out}
    except (ValueError, IndexError):
        raise ProfileError(f"columns are numbered from 0 to {len(columns) - 1}, or from -1 backwards") from None
    return [column for position, column in enumerate(columns) if position not in dropped]


def _of_csv(path: Path, left_out: Sequence[str]) -> list[Column]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = list(filter(None, csv.reader(file, strict=True))) or [[]]
    names = [name.strip() for name in names]
    if names and all(_is_number(name) for name in names):
        raise ProfileError("the first line has numbers; it must have the names of the columns")
    if not set(map(len, rows)) <= {len(names)}:
        raise ProfileError("every line must have as many fields as the first")
    kept = _kept(names, left_out)
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return [_column(names[position], columns[position]) for position in kept]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(name: str, cells: Sequence[str]) -> Column:
    lowered = list(map(str.lower, map(str.strip, cells)))
    present = [cell for cell in lowered if cell not in _MISSING]
    try:
        return Column(name, _values(present), len(cells) - len(present))
    except ValueError:
        reason = f"the column {name!r} contains a value that is not a number; --target leaves it out"
        raise ProfileError(reason) from None


def _values(cells: Sequence[str]) -> Array:
    if cells and _BOOLEANS.issuperset(cells):
        return np.array(list(map("true".__eq__, cells)))
    characters = set("".join(cells))
    if not characters <= _OF_NUMBERS or max(map(len, cells), default=0) > _LONGEST:
        raise ValueError
    if characters <= _OF_INTEGERS:
        # Python integers are exact; those that do not fit into a numpy integer become floats.
        whole = list(map(int, cells))
        for code in "qQ":
            try:
                return np.asarray(array(code, whole))
            except OverflowError:
                continue
    return np.asarray(array("d", map(float, cells)))


def _of_parquet(path: Path, left_out: Sequence[str]) -> list[Column]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        # pyarrow may be installed: its import also fails if numpy is too old, and the error says so.
        raise ProfileError(f"Parquet needs pyarrow: pip install 'flask-secure-ml[profile]' ({error})") from None
    with path.open("rb") as file:
        table = parquet.read_table(file)
    names = table.column_names
    return [_of_arrow(names[position], table.column(position)) for position in _kept(names, left_out)]


def _of_arrow(name: str, column: Any) -> Column:
    types = import_module("pyarrow.types")
    if not any(is_a(column.type) for is_a in (types.is_boolean, types.is_integer, types.is_floating)):
        raise ProfileError(
            f"the column {name!r} is of type {column.type}, which is not a number; --target leaves it out"
        )
    values = column.drop_null().to_numpy()
    return Column(name, values, column.null_count)
