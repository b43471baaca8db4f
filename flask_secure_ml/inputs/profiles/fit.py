"""Computing a profile from data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

    :param values: of shape (present,), booleans, integers or floats; NaN counts as missing.
    :param missing: how many rows have no value besides those with NaN.
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

    :raises ProfileError: it has another number of dimensions, or not one name for each column.
    """
    if table.ndim not in (1, _DIMENSIONS):
        raise ProfileError(f"the data must have 1 or 2 dimensions, not {table.ndim}")
    columns = [table] if table.ndim == 1 else list(table.T)
    if names is not None and len(names) != len(columns):
        raise ProfileError("there must be one name for each column")
    labels: Sequence[str | None] = names or [None] * len(columns)
    return [Column(name, values) for name, values in zip(labels, columns, strict=True)]


def fit(columns: Iterable[Column], quantiles: Sequence[float] = QUANTILES) -> Profile:
    """Return the profile of columns of one length.

    A quantile is the least observed value that at least this share of the values does not exceed (type 1 of Hyndman
    and Fan, 1996), so it is exact for integers.

    :param quantiles: probabilities from 0 to 1, rising.
    :raises ProfileError: no column, no value in one, values that are not numbers or infinite, or other quantiles.
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
    """Return a value as it is, and as people write it: 0.7 for the float32 that is 0.699999988."""
    if isinstance(value, np.floating):
        return float(value), float(str(value))
    return (int(value),)


def _quantile(value: Any, share: float) -> float:
    # The outer one of the two forms, so that the value itself is within both.
    return (min if share < 0.5 else max)(_forms(value))  # noqa: PLR2004  the median
