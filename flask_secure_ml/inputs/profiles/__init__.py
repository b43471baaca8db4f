"""Input profiles: statistics of the features of a data set, computed once and stored as a small JSON file.

A profile has statistics of the training data, but no rows. However, minimum and maximum are values of single rows: if a
profile must not reveal them, use quantiles, and keep the file as private as the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import orjson
from marshmallow import ValidationError

from ..feature_names import order_of
from .file import VERSION, ProfileError, read_members

Bounds = Literal["range", "quantiles"]
_NEEDED = 2


@dataclass(frozen=True, slots=True)
class Feature:
    """Statistics of one feature, a column of the data.

    :param name: the name of the column; None for every feature if the data have no names.
    :param dtype: the name of a boolean, integer or float dtype of up to 64 bits.
    :param minimum: the minimum, an integer for integers. For floats below 64 bits it is the smaller of the value and
        its shortest decimal form, so that both 0.7 from JSON and the float32 nearest to it are within the range.
    :param maximum: the maximum, in the same form.
    :param quantiles: an observed value for each of the profile's probabilities.
    :param missing: the fraction of rows without a value, from 0 to less than 1.
    :param constant: all values are the same.
    """

    name: str | None
    dtype: str
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    missing: float
    constant: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """Statistics of the features of a data set.

    :param rows: the number of rows of the data.
    :param quantiles: the probabilities of each feature's quantiles, in ascending order.
    :param features: in the order of the columns, at least one.
    """

    rows: int
    quantiles: tuple[float, ...]
    features: tuple[Feature, ...]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the profile in a file.

        :raises ProfileError: the file cannot be read, or differs from the format of :meth:`save`: an unknown or missing
            member, a value of another type, a number that is not finite or inconsistent with others.
        """
        members = read_members(path)
        features = [Feature(**each | {"quantiles": tuple(each["quantiles"])}) for each in members["features"]]
        return cls(members["rows"], tuple(members["quantiles"]), tuple(features))

    def save(self, path: str | Path) -> None:
        """Write the profile to a file as JSON (RFC 8259), in UTF-8.

        :raises ProfileError: the file cannot be written.
        """
        try:
            Path(path).write_bytes(self.to_json())
        except OSError as error:
            raise ProfileError(f"{path} cannot be written: {error.strerror}") from None

    def to_json(self) -> bytes:
        """Return the profile as JSON."""
        members = {"version": VERSION} | asdict(self)
        return orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features; empty if they have none."""
        return tuple(feature.name for feature in self.features if feature.name is not None)

    def arranged(self, names: Sequence[str]) -> Self:
        """Return the profile with its features in the order of these names.

        It is unchanged if ``names`` is empty or the features have no names.

        :raises ValueError: they are not the names of the features.
        """
        if not names or not self.names:
            return self
        try:
            order = order_of(self.names, names)
        except ValidationError as error:
            name, (problem, *_) = next(iter(error.messages_dict.items()))
            raise ValueError(
                f"the features of the profile are not those of the model, or of features: {name!r}: {problem} "
                "features=() ignores the names of both"
            ) from None
        return replace(self, features=tuple(self.features[position] for position in order))

    def tensor_options(self, bounds: Bounds = "range", margin: float = 0.0) -> dict[str, Any]:
        """Return the arguments of a :class:`~flask_secure_ml.inputs.Tensor` for rows of these features.

        :param bounds: ``range`` for minimum and maximum, ``quantiles`` for the first and last quantile.
        :param margin: how far values may exceed each bound, as a fraction of the distance between the two.
        :raises ValueError: ``bounds`` is unknown, there are too few quantiles, or the margin is negative.

        The range of a constant feature is a single value, which a margin does not widen. Booleans have no bounds.
        """
        dtype = np.result_type(*(np.dtype(feature.dtype) for feature in self.features))
        options: dict[str, Any] = {"shape": (None, len(self.features)), "dtype": dtype.name, "features": self.names}
        if dtype.kind == "b":
            return options
        pick = self._picker(bounds)
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError("margin must be a number that is not negative")
        spans = [_widened(*pick(feature), margin) for feature in self.features]
        lows, highs = zip(*spans, strict=True)
        return options | {"minimum": lows, "maximum": highs}

    def _picker(self, bounds: str) -> Callable[[Feature], tuple[float, float]]:
        if bounds == "range":
            return lambda feature: (feature.minimum, feature.maximum)
        if bounds != "quantiles":
            raise ValueError("bounds must be 'range' or 'quantiles'")
        if len(self.quantiles) < _NEEDED:
            raise ValueError("the profile has fewer than two quantiles; fit it again with two or more")
        return lambda feature: (feature.quantiles[0], feature.quantiles[-1])


def learned_options(
    profile: Profile | str | Path | None, bounds: Bounds, margin: float, names: Sequence[str]
) -> dict[str, Any]:
    """Return the tensor options from a profile or its path; see :meth:`Profile.tensor_options`.

    :param profile: a profile, its path, or None.
    :param names: the order of the features; empty for that of the profile.
    :raises ProfileError: the profile does not exist or is invalid.
    :raises ValueError: ``bounds`` or ``margin`` is invalid or given without a profile, or names do not match.
    """
    if profile is None:
        if (bounds, margin) != ("range", 0.0):
            raise ValueError("bounds and margin require a profile")
        return {}
    found = profile if isinstance(profile, Profile) else Profile.load(profile)
    return found.arranged(names).tensor_options(bounds, margin)


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    if not margin:
        return low, high
    if isinstance(low, int) and isinstance(high, int):
        # Exact arithmetic, because beyond 2**53 a float could be on the wrong side of the integer.
        more = math.ceil(Fraction(margin) * (high - low))
        return low - more, high + more
    return low - margin * (high - low), high + margin * (high - low)
