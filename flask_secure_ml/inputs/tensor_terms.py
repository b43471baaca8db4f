"""Checks of what a field is defined with; the texts are for the author of the schema."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# What numpy can nest, in every release that is supported.
_MAX_DIMENSIONS = 32
_WIDEST_FLOAT = 8
KINDS = "fiub"
OUTSIDE = ("refuse", "clip", "report")


def checked_shape(shape: Sequence[int | str | None]) -> tuple[tuple[int | None, ...], tuple[str | None, ...]]:
    """Return the lengths and the names of the dimensions."""
    if isinstance(shape, (str, int)) or not all(length is None or _is_length(length) for length in shape):
        raise TypeError("shape must be a tuple such as (None, 64): whole numbers from 1, names, or None for any length")
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"shape must have 1 to {_MAX_DIMENSIONS} dimensions")
    lengths = tuple(length if isinstance(length, int) else None for length in shape)
    return lengths, tuple(name if isinstance(name, str) else None for name in shape)


def _is_length(length: Any) -> bool:
    return length.isidentifier() if isinstance(length, str) else is_count(length)


def checked_dimensions(shape: Sequence[int | str | None]) -> Sequence[int | str | None]:
    """Refuse a shape without dimensions."""
    if not isinstance(shape, (str, int)) and not shape:
        raise ValueError(f"shape must have 1 to {_MAX_DIMENSIONS} dimensions")
    return shape


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype if an array of it can be filled from JSON."""
    found = np.dtype(dtype)
    if found.kind not in KINDS or (found.kind == "f" and found.itemsize > _WIDEST_FLOAT):
        raise ValueError(f"dtype must be bool, an integer or a float of up to 64 bits, not {found.name}")
    return found


def checked_count(name: str, value: int) -> int:
    """Return a whole number from 1."""
    if not is_count(value):
        raise ValueError(f"{name} must be a whole number from 1")
    return value


def is_count(value: Any) -> bool:
    """Tell whether it is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def checked_bound(
    name: str, bound: float | Sequence[float] | NDArray[Any], shape: tuple[int | None, ...]
) -> NDArray[np.float64]:
    """Return a bound as an array of no dimension, or of the last one of ``shape``."""
    found = np.asarray(bound, dtype=np.float64)
    if np.isnan(found).any():
        raise ValueError(f"{name} must be a number")
    if found.ndim and found.shape != shape[-1:]:
        raise ValueError(f"{name} must be one number, or one for each place of the last dimension of shape")
    return found


def checked_span(name: str, span: tuple[float, float]) -> tuple[float, float]:
    """Return the least and the greatest value of what is computed from a row; integers stay what they are."""
    if not isinstance(span, Sequence) or len(span) != 2 or not all(map(_is_number, span)):  # noqa: PLR2004  (low, high)
        raise ValueError(f"{name} must be two numbers such as (0.99, 1.01)")
    low, high = map(_plain, span)
    if low > high:
        raise ValueError(f"{name} must not have its first number greater than its second")
    return low, high


def _plain(value: Any) -> float:
    found: float = value.item() if isinstance(value, np.number) else value
    return found


def checked_allowed(allowed: Collection[float], dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Return the allowed values, sorted; each must be a value of the dtype."""
    values = tuple(allowed)
    if not values or not all(map(_is_number, values)):
        raise ValueError("allowed must be numbers, at least one")
    if dtype.kind in "iu" and not all(_is_of(value, np.iinfo(dtype)) for value in values):
        raise ValueError(f"allowed must be whole numbers that {dtype.name} has")
    return tuple(sorted(set(values)))


def _is_of(value: float, limits: np.iinfo[Any]) -> bool:
    return isinstance(value, (int, np.integer)) and limits.min <= value <= limits.max


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and not np.isnan(float(value))
