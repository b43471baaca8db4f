"""Reading the file of an input profile and validating every member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...strictjson import StrictJSONError, loads


class ProfileError(ValueError):
    """Data that cannot be profiled, or a file that is not a profile. The message is for the operator."""


VERSION = 1
MAX_BYTES = 16 << 20
MAX_QUANTILES = 101
_MAX_DEPTH = 4  # the object, its features, one of them, its quantiles
DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)
_NUMBERS = (int, float)


def read_members(path: str | Path) -> dict[str, Any]:
    """Return the validated members of a profile file.

    :raises ProfileError: see :meth:`~flask_secure_ml.inputs.profiles.Profile.load`.
    """
    try:
        members: dict[str, Any] = loads(_read(Path(path)), max_depth=_MAX_DEPTH)
        _check_members(members, _PROFILE, "the profile")
        _check_probabilities(members["quantiles"])
        _check_features(members)
    except (ProfileError, StrictJSONError) as error:
        raise ProfileError(f"{path} is not an input profile: {error}") from None
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from None
    return members


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ProfileError(f"it has more than {MAX_BYTES} bytes")
    return raw


def _check_members(value: Any, checks: Mapping[str, tuple[Callable[[Any], bool], str]], where: str) -> None:
    if type(value) is not dict or value.keys() != checks.keys():
        raise ProfileError(f"{where} must have exactly the members {', '.join(checks)}")
    for name, (is_right, wanted) in checks.items():
        if not is_right(value[name]):
            raise ProfileError(f"the member {name} of {where} must be {wanted}")


def _check_probabilities(quantiles: Sequence[Any]) -> None:
    if not are_probabilities(quantiles):
        raise ProfileError(f"the probabilities must be at most {MAX_QUANTILES}, rising, from 0 to 1")


def are_probabilities(values: Sequence[Any]) -> bool:
    """Return True if the values are probabilities in strictly ascending order, and not too many."""
    return (
        len(values) <= MAX_QUANTILES
        and all(type(each) in _NUMBERS and 0 <= each <= 1 for each in values)
        and all(low < high for low, high in pairwise(values))
    )


def _check_features(members: dict[str, Any]) -> None:
    features = members["features"]
    for position, feature in enumerate(features):
        where = f"feature {position}"
        _check_members(feature, _FEATURE, where)
        _check_values(feature, where)
        if len(feature["quantiles"]) != len(members["quantiles"]):
            raise ProfileError(f"{where} must have a quantile for each probability")
    names = [feature["name"] for feature in features]
    if names != [None] * len(names) and (None in names or len(set(names)) < len(names)):
        raise ProfileError("either all features must have names, which differ, or none")


def _check_values(feature: dict[str, Any], where: str) -> None:
    values = [feature["minimum"], *feature["quantiles"], feature["maximum"]]
    dtype = np.dtype(feature["dtype"])
    low, high, types = _limits(dtype)
    if not all(type(value) in types and low <= value <= high for value in values):
        raise ProfileError(f"{where} must have only numbers that its dtype can represent")
    if any(before > after for before, after in pairwise(values)):
        raise ProfileError(f"the minimum, quantiles and maximum of {where} must be in non-decreasing order")
    if feature["minimum"] == feature["maximum"] and not feature["constant"]:
        raise ProfileError(f"{where} is not constant, so its minimum must be less than its maximum")


def _limits(dtype: np.dtype[Any]) -> tuple[float, float, tuple[type, ...]]:
    if dtype.kind == "b":
        return 0, 1, (int,)
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), (int,)
    # In double precision: the decimal form of the largest float32 is slightly larger than the float32 itself.
    return -float(np.finfo(np.float64).max), float(np.finfo(np.float64).max), _NUMBERS


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_list(value: Any) -> bool:
    return type(value) is list


_PROFILE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "version": (lambda value: type(value) is int and value == VERSION, str(VERSION)),
    "rows": (_is_count, "a whole number from 1"),
    "quantiles": (_is_list, "a list"),
    "features": (lambda value: _is_list(value) and bool(value), "a non-empty list"),
}
_FEATURE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: value is None or (type(value) is str and bool(value)), "null or a non-empty string"),
    "dtype": (lambda value: type(value) is str and value in DTYPES, "one of " + ", ".join(DTYPES)),
    "minimum": (lambda value: type(value) in _NUMBERS, "a number"),
    "maximum": (lambda value: type(value) in _NUMBERS, "a number"),
    "quantiles": (_is_list, "a list"),
    "missing": (lambda value: type(value) in _NUMBERS and 0 <= value < 1, "a number from 0 to less than 1"),
    "constant": (lambda value: type(value) is bool, "a boolean"),
}
