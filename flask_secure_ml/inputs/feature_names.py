"""Feature names, by which columns of a table are matched in any order."""

from __future__ import annotations

from collections.abc import Sequence

from marshmallow import ValidationError

from .problems import MAX_ERRORS


def checked_features(features: Sequence[str], shape: Sequence[int | None]) -> tuple[str, ...]:
    """Return the feature names of a tensor.

    :raises TypeError: ``features`` is a string, or an item is not a string.
    :raises ValueError: there is not one name for each position of the last dimension, or two names are equal.
    """
    if isinstance(features, str) or not all(isinstance(name, str) for name in features):
        raise TypeError("features must be a list of names")
    names = tuple(map(str, features))
    if names and len(names) != shape[-1]:
        raise ValueError("features must have one name for each position of the last dimension of shape, or none")
    if len(set(names)) < len(names):
        raise ValueError("feature names must be unique; features=() ignores those of a model or a profile")
    return names


def order_of(columns: Sequence[str], features: Sequence[str]) -> list[int]:
    """Return the position of the column of each feature.

    Matching is case-sensitive and ignores surrounding white space, unless two features differ only in that.

    :raises ValidationError: unknown and repeated columns, and features without a column; at most 20 errors, by name.
    """
    wanted, given = _comparable(columns, features)
    known = frozenset(wanted)
    positions: dict[str, int] = {}
    errors: dict[str, list[str]] = {}
    for position, name in enumerate(given):
        if name not in known:
            errors[name] = ["Unknown column."]
        elif positions.setdefault(name, position) != position:
            errors[name] = ["Repeated column."]
        if len(errors) == MAX_ERRORS:
            raise ValidationError(errors)
    errors |= {name: ["Missing column."] for name in wanted if name not in positions}
    if errors:
        raise ValidationError(errors)
    return [positions[name] for name in wanted]


def _comparable(columns: Sequence[str], features: Sequence[str]) -> tuple[list[str], list[str]]:
    wanted = [name.strip() for name in features]
    if len(set(wanted)) < len(wanted):
        return list(features), list(columns)
    return wanted, [name.strip() for name in columns]
