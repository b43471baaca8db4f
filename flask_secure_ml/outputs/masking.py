"""A response with :class:`~flask_secure_ml.policy.options.ScoreOptions` applied to every score in it.

A score is a float: in an array or nested lists of numbers, or alone. Integers, texts and booleans are labels, which no
term touches. ``top_k`` ranks along the last dimension of an array that is longer than 1. Scores in other places, such
as a list of objects or beside texts, could be one for each row or one for each class, and are ranked with nothing; so
an answer with more than k of them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from typing import Any

import numpy as np

from ..policy.options import ScoreOptions
from .scores import Array, NumberText, ShapingError, array_of, rounded, top_k

# float has np.float64 among its subclasses, and int has bool.
_SCORES = (float, np.floating, Decimal)
_LABELS = (str, int, np.integer, np.bool_, type(None))
_PLAIN = frozenset({str, int, bool, type(None)})
_TENSOR = frozenset({"datatype", "shape", "data"})
_PACKED = frozenset({"b64", "dtype"})
_OIP_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_NO_SCORES = frozenset("biuSU")
_REMOVED = object()


class NotPlainError(TypeError):
    """There is a value in the answer whose form as JSON only the writer knows."""


def shape_scores(value: Any, terms: ScoreOptions) -> Any:
    """Return a value of dicts, lists, arrays and scalars with the terms applied; lists of scores become arrays.

    A dict with ``datatype``, ``shape`` and ``data`` is a tensor of the Open Inference Protocol, v2: its data are flat,
    and their last dimension is that of ``shape``.

    :raises ShapingError: the terms cannot be met, or leave nothing.
    :raises NotPlainError: there is something else in it, such as a date.
    """
    if terms.top_k is not None and unranked(value) > terms.top_k:
        raise ShapingError("top_k is for arrays, and the answer has more scores than that elsewhere")
    found = _Shaper(terms).value(value)
    if found is _REMOVED:
        raise ShapingError("label_only leaves nothing of the answer")
    return found


@dataclass(frozen=True)
class _Shaper:
    terms: ScoreOptions

    def value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._tensor(value) if value.keys() >= _TENSOR else self._members(value)
        if isinstance(value, (list, tuple)):
            return self._items(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, _SCORES):
            return self._score(value)
        if isinstance(value, NumberText):
            return self._text(value)
        if isinstance(value, _LABELS):
            return value
        raise NotPlainError(f"the answer holds a {type(value).__name__}")

    def _members(self, value: Mapping[Any, Any]) -> Any:
        if not set(map(type, value)) <= {str}:
            raise NotPlainError("the answer has keys that are no strings")
        if value.keys() >= _PACKED and _may_be_scores(value["dtype"]):
            raise ShapingError("scores in base64 cannot be shaped")
        shaped = {name: self.value(each) for name, each in value.items()}
        return {name: each for name, each in shaped.items() if each is not _REMOVED}

    def _items(self, value: Sequence[Any]) -> Any:
        if set(map(type, value)) <= _PLAIN:
            return value
        array = array_of(value)
        if array is not None:
            return self._array(array)
        return [each for each in map(self.value, value) if each is not _REMOVED]

    def _array(self, array: Array) -> Any:
        if _holds_objects(array):
            return self.value(array.tolist())
        if array.dtype.kind == "c":
            raise ShapingError("complex numbers are no scores")
        if array.dtype.kind != "f":
            return array
        if self.terms.label_only:
            return _REMOVED
        if self.terms.top_k is not None:
            # A last dimension of 1 ranks nothing: the scores are along the one before.
            array = top_k(array.reshape(_without_ones(array.shape)), self.terms.top_k).reshape(array.shape)
        return array if self.terms.round is None else rounded(array, self.terms.round)

    def _score(self, score: Any) -> Any:
        if self.terms.label_only:
            return _REMOVED
        if self.terms.round is None:
            return float(score) if isinstance(score, Decimal) else score
        # Not round(): for a double near its limits it fails, and it is not what arrays get.
        return float(rounded(np.array(score, np.float64), self.terms.round))

    def _text(self, score: NumberText) -> Any:
        if self.terms.label_only:
            return _REMOVED
        return score if self.terms.round is None else score.rounded(self.terms.round)

    def _tensor(self, tensor: Mapping[str, Any]) -> Any:
        data = _data_of(tensor)
        if data is None:
            return self._members(tensor)
        shape = tensor["shape"]
        if not _is_shape(shape) or prod(shape) != data.size:
            raise ShapingError("the shape of a tensor does not fit its data")
        shaped = self._array(data.reshape(shape))
        if shaped is _REMOVED:
            return _REMOVED
        others = self._members({name: each for name, each in tensor.items() if name != "data"})
        return others | {"data": shaped.reshape(data.shape)}


def _data_of(tensor: Mapping[str, Any]) -> Array | None:
    """Return the data of a tensor of floats; None for a tensor of labels."""
    data = tensor["data"]
    if not isinstance(data, (list, tuple, np.ndarray)):
        return None
    found = data if isinstance(data, np.ndarray) else array_of(data)
    if found is not None and found.dtype.kind == "f":
        return found
    if tensor["datatype"] not in _OIP_FLOATS:
        return None
    # Whole numbers may be written without a point.
    whole = np.asarray(data)
    if whole.dtype.kind not in "iu" and whole.size:
        raise ShapingError("the data of a tensor are not of its datatype")
    return whole.astype(np.float64)


def _is_shape(shape: Any) -> bool:
    lengths = shape if isinstance(shape, (list, tuple)) else [None]
    return all(isinstance(length, (int, np.integer)) and length >= 0 for length in lengths)


def _holds_objects(array: Array) -> bool:
    """Say whether it is read as lists, as the JSON writer does: masks, records and objects."""
    return type(array) is not np.ndarray or array.dtype.kind in "OV"


def _may_be_scores(dtype: Any) -> bool:
    try:
        return np.dtype(str(dtype)).kind not in _NO_SCORES
    except (TypeError, ValueError, SyntaxError):
        return True


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def unranked(value: Any) -> int:
    """Return how many scores of a value stand in no array in which they could be ranked."""
    if isinstance(value, Mapping):
        data = _data_of(value) if value.keys() >= _TENSOR else None
        if data is None:
            return sum(map(unranked, value.values()))
        return int(data.size == 1) + sum(unranked(each) for name, each in value.items() if name != "data")
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) <= _PLAIN:
            return 0
        array = array_of(value)
        return sum(map(unranked, value)) if array is None else int(array.size == 1)
    if isinstance(value, np.ndarray):
        return unranked(value.tolist()) if _holds_objects(value) else int(value.dtype.kind == "f" and value.size == 1)
    return int(isinstance(value, (*_SCORES, NumberText)))
