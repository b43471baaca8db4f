"""Masking the scores of a response as :class:`~flask_secure_ml.policy.options.ScoreOptions` require.

A score is a float: in an array or nested lists of numbers, or alone. Integers, strings and booleans are labels, which
no option changes. ``top_k`` ranks along the last dimension of an array that is longer than 1. Scores elsewhere, such as
in a list of objects or next to strings, may be one per row or one per class, so they cannot be ranked; a response with
more than k of them is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from typing import Any

import numpy as np

from ..policy.options import ScoreOptions
from .scores import Array, MaskingError, NumberString, array_of, rounded, top_k

# np.float64 is a subclass of float, and bool of int.
_SCORES = (float, np.floating, Decimal)
_LABELS = (str, int, np.integer, np.bool_, type(None))
_PLAIN = frozenset({str, int, bool, type(None)})
_TENSOR = frozenset({"datatype", "shape", "data"})
_PACKED = frozenset({"b64", "dtype"})
_OIP_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_NO_SCORES = frozenset("biuSU")
_REMOVED = object()


class NotPlainError(TypeError):
    """The response has a value that only the JSON writer can convert, such as a date."""


def mask_scores(value: Any, options: ScoreOptions) -> Any:
    """Return a value with its scores masked; lists of scores become arrays.

    The value consists of dicts, lists, arrays and scalars. A dict with ``datatype``, ``shape`` and ``data`` is a tensor
    of the Open Inference Protocol, version 2: its data are flat, and their last dimension is the last of ``shape``.

    :raises MaskingError: the options cannot be applied, or would remove the whole response.
    :raises NotPlainError: it contains another type, such as a date.
    """
    if options.top_k is not None and unranked(value) > options.top_k:
        raise MaskingError("top_k applies to arrays, but the response has more scores outside of arrays")
    found = _Masker(options).value(value)
    if found is _REMOVED:
        raise MaskingError("label_only removes the whole response")
    return found


@dataclass(frozen=True)
class _Masker:
    options: ScoreOptions

    def value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._tensor(value) if value.keys() >= _TENSOR else self._members(value)
        if isinstance(value, (list, tuple)):
            return self._items(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, _SCORES):
            return self._score(value)
        if isinstance(value, NumberString):
            return self._number_string(value)
        if isinstance(value, _LABELS):
            return value
        raise NotPlainError(f"the response holds a {type(value).__name__}")

    def _members(self, value: Mapping[Any, Any]) -> Any:
        if not set(map(type, value)) <= {str}:
            raise NotPlainError("the response has keys that are not strings")
        if value.keys() >= _PACKED and _may_be_scores(value["dtype"]):
            raise MaskingError("scores in base64 cannot be masked")
        masked = {name: self.value(each) for name, each in value.items()}
        return {name: each for name, each in masked.items() if each is not _REMOVED}

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
            raise MaskingError("complex numbers cannot be masked")
        if array.dtype.kind != "f":
            return array
        if self.options.label_only:
            return _REMOVED
        if self.options.top_k is not None:
            # Trailing dimensions of length 1 cannot be ranked; the scores are along the last dimension before them.
            array = top_k(array.reshape(_without_ones(array.shape)), self.options.top_k).reshape(array.shape)
        return array if self.options.round is None else rounded(array, self.options.round)

    def _score(self, score: Any) -> Any:
        if self.options.label_only:
            return _REMOVED
        if self.options.round is None:
            return float(score) if isinstance(score, Decimal) else score
        # Not round(): it fails for doubles near the limits, and rounds differently from numpy.
        return float(rounded(np.array(score, np.float64), self.options.round))

    def _number_string(self, score: NumberString) -> Any:
        if self.options.label_only:
            return _REMOVED
        return score if self.options.round is None else score.rounded(self.options.round)

    def _tensor(self, tensor: Mapping[str, Any]) -> Any:
        data = _data_of(tensor)
        if data is None:
            return self._members(tensor)
        shape = tensor["shape"]
        if not _is_shape(shape) or prod(shape) != data.size:
            raise MaskingError("the shape of a tensor does not match its data")
        masked = self._array(data.reshape(shape))
        if masked is _REMOVED:
            return _REMOVED
        others = self._members({name: each for name, each in tensor.items() if name != "data"})
        return others | {"data": masked.reshape(data.shape)}


def _data_of(tensor: Mapping[str, Any]) -> Array | None:
    """Return the data of a tensor with a float datatype; None for any other datatype."""
    data = tensor["data"]
    if not isinstance(data, (list, tuple, np.ndarray)):
        return None
    found = data if isinstance(data, np.ndarray) else array_of(data)
    if found is not None and found.dtype.kind == "f":
        return found
    if tensor["datatype"] not in _OIP_FLOATS:
        return None
    # Floats may be written as integers, without a fraction.
    whole = np.asarray(data)
    if whole.dtype.kind not in "iu" and whole.size:
        raise MaskingError("the data of a tensor does not have its datatype")
    return whole.astype(np.float64)


def _is_shape(shape: Any) -> bool:
    lengths = shape if isinstance(shape, (list, tuple)) else [None]
    return all(isinstance(length, (int, np.integer)) and length >= 0 for length in lengths)


def _holds_objects(array: Array) -> bool:
    """Return True for masked arrays and for structured and object dtypes, which the JSON writer writes as lists."""
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
    """Return the number of scores that are not in an array and so cannot be ranked."""
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
    return int(isinstance(value, (*_SCORES, NumberString)))
