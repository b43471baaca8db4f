"""Input profiles: statistics of the features of a data set, computed once and stored as a small JSON file.

A profile has numbers about the training data and none of its rows. Its least and greatest values are values of single
rows, though: use quantiles, and keep the file as private as the data, where it must not reveal a row.
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

    :param name: None where the data have no names; then no feature has one.
    :param dtype: the name of a boolean, integer or float dtype of up to 64 bits.
    :param minimum: the least value, an integer for integers. For floats of less than 64 bits it is the lesser of the
        value and of its shortest decimal form, so that 0.7 from JSON and the float32 nearest to it are both within.
    :param maximum: the greatest value, likewise.
    :param quantiles: an observed value for each of the profile's probabilities.
    :param missing: the share of rows without a value, from 0 to less than 1.
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

    :param rows: how many rows the data had.
    :param quantiles: the probabilities, rising, of each feature's quantiles.
    :param features: in the order of the columns, at least one.
    """

    rows: int
    quantiles: tuple[float, ...]
    features: tuple[Feature, ...]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a profile.

        :raises ProfileError: it cannot be read, or anything in it is not as :meth:`save` writes it: a member too many
            or too few, a value of another type, a number that is not finite or does not fit the others.
        """
        members = read_members(path)
        features = [Feature(**each | {"quantiles": tuple(each["quantiles"])}) for each in members["features"]]
        return cls(members["rows"], tuple(members["quantiles"]), tuple(features))

    def save(self, path: str | Path) -> None:
        """Write it as JSON (RFC 8259), in UTF-8.

        :raises ProfileError: the file cannot be written.
        """
        try:
            Path(path).write_bytes(self.to_json())
        except OSError as error:
            raise ProfileError(f"{path} cannot be written: {error.strerror}") from None

    def to_json(self) -> bytes:
        """Return what :meth:`save` writes."""
        members = {"version": VERSION} | asdict(self)
        return orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features; empty where they have none."""
        return tuple(feature.name for feature in self.features if feature.name is not None)

    def arranged(self, names: Sequence[str]) -> Self:
        """Return the profile with its features in the order of these names; unchanged where either has no names.

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

        :param bounds: ``range`` for the least and greatest values, ``quantiles`` for the first and last quantile.
        :param margin: how far values may go beyond each bound, as a share of the span between the two.
        :raises ValueError: another value of ``bounds``, too few quantiles, or a negative margin.

        A constant feature has no span, so a margin does not widen it. Booleans have no bounds.
        """
        dtype = np.result_type(*(np.dtype(feature.dtype) for feature in self.features))
        options: dict[str, Any] = {"shape": (None, len(self.features)), "dtype": dtype.name, "features": self.names}
        if dtype.kind == "b":
            return options
        pick = self._picker(bounds)
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError("margin must be a number from 0")
        spans = [_widened(*pick(feature), margin) for feature in self.features]
        lows, highs = zip(*spans, strict=True)
        return options | {"minimum": lows, "maximum": highs}

    def _picker(self, bounds: str) -> Callable[[Feature], tuple[float, float]]:
        if bounds == "range":
            return lambda feature: (feature.minimum, feature.maximum)
        if bounds != "quantiles":
            raise ValueError("bounds must be 'range' or 'quantiles'")
        if len(self.quantiles) < _NEEDED:
            raise ValueError("the profile has less than two quantiles; fit it again with two")
        return lambda feature: (feature.quantiles[0], feature.quantiles[-1])


def learned_options(
    profile: Profile | str | Path | None, bounds: Bounds, margin: float, names: Sequence[str]
) -> dict[str, Any]:
    """Return the options of a tensor for a profile, for the path of one, or none; see :meth:`Profile.tensor_options`.

    :param names: the order of the features; empty for that of the profile.
    :raises ProfileError: there is no such profile, or it is damaged.
    :raises ValueError: ``bounds`` or ``margin`` is wrong, or given without a profile, or names do not match.
    """
    if profile is None:
        if (bounds, margin) != ("range", 0.0):
            raise ValueError("bounds and margin are about a profile")
        return {}
    found = profile if isinstance(profile, Profile) else Profile.load(profile)
    return found.arranged(names).tensor_options(bounds, margin)


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    if not margin:
        return low, high
    if isinstance(low, int) and isinstance(high, int):
        # Exact, because beyond 2**53 a float could be on the wrong side of the integer.
        more = math.ceil(Fraction(margin) * (high - low))
        return low - more, high + more
    return low - margin * (high - low), high + margin * (high - low)
