"""The input of a fitted scikit-learn estimator, from its attributes; scikit-learn is not imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import ModelInput, ModelInputsError


def of_estimator(estimator: Any) -> ModelInput:
    """Return the input of an estimator: rows of ``n_features_in_`` features.

    Trees cast to float32 and fail for larger values, so their dtype is float32; all others compute in float64. A
    categorical model gets integers up to the highest category of its training data, because it fails for others.

    :raises ModelInputsError: the estimator is not fitted, or takes strings.
    """
    first = _first(estimator)
    features = _length(estimator, first)
    if _takes_strings(first):
        raise ModelInputsError(
            "the model takes columns of strings, which a tensor cannot contain; use Categorical fields for these"
        )
    names = getattr(estimator, "feature_names_in_", getattr(first, "feature_names_in_", ()))
    counts = getattr(first, "n_categories_", None)
    is_categorical = counts is not None and len(np.shape(counts)) == 1
    return ModelInput(
        name=None,
        shape=(None, features),
        dtype="int64" if is_categorical else "float32" if _is_tree(first) else "float64",
        features=tuple(map(str, names)),
        minimum=0 if is_categorical or _is_positive(first) else None,
        maximum=tuple(int(count) - 1 for count in np.asarray(counts)) if is_categorical else None,
    )


def _length(estimator: Any, first: Any) -> int:
    found = getattr(estimator, "n_features_in_", getattr(first, "n_features_in_", None))
    if not isinstance(found, (int, np.integer)) or found < 1:
        raise ModelInputsError(
            f"{type(estimator).__name__} has no n_features_in_: it is not a scikit-learn estimator, is not fitted, or "
            "does not take a table of numbers"
        )
    return int(found)


def _first(estimator: Any) -> Any:
    """Return the estimator that gets the input first: the first step of a pipeline, the best estimator of a search."""
    if (best := getattr(estimator, "best_estimator_", None)) is not None:
        return _first(best)
    for step in getattr(estimator, "steps", ()):
        if step[1] is not None and not isinstance(step[1], str):
            return _first(step[1])
    return estimator


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield the estimators to which an ensemble, a union or a column transformer passes its input."""
    parts = getattr(estimator, "estimators_", ())
    yield from parts.ravel().tolist() if isinstance(parts, np.ndarray) else parts
    for name in ("transformers_", "transformer_list"):
        yield from (each[1] for each in getattr(estimator, name, ()))


def _takes_strings(estimator: Any) -> bool:
    categories = getattr(estimator, "categories_", None)
    if isinstance(categories, list) and any(np.asarray(each).dtype.kind in "OUS" for each in categories):
        return True
    return any(_takes_strings(_first(part)) for part in _parts(estimator))


def _is_tree(estimator: Any) -> bool:
    return hasattr(estimator, "tree_") or any(_is_tree(_first(part)) for part in _parts(estimator))


def _is_positive(estimator: Any) -> bool:
    # Since scikit-learn 1.6; with older releases, the field has no minimum.
    tags = getattr(estimator, "__sklearn_tags__", None)
    return tags is not None and bool(tags().input_tags.positive_only)
