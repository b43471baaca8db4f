"""The :class:`Tensor` field: nested lists of numbers, or an array, loaded as an array.

Large lists of numbers are converted through :mod:`marshal`, in a third of the time that converting single numbers
takes. ``marshal`` writes a list as ``[``, its length in four bytes and its items; a float as ``g`` and eight bytes; an
integer of up to 32 bits as ``i`` and four bytes. The rows are known to be lists of equal length, so if every position
at which a number must begin has the type code of one type, all items are such numbers, and their bytes are read from
there. Otherwise slower code runs, which also reports errors. Data in this format is written but never loaded. If the
format changes, the type codes are not found and the slower code runs.
"""

from __future__ import annotations

import marshal
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..feature_names import checked_features
from ..load_context import report_out_of_range
from ..problems import Message, Shape, at_each, number_text
from .arrays import ArrayField, has_odd_booleans, is_taken, of_array, of_leaves, own
from .tensor_options import (
    OUTSIDE,
    Bound,
    beyond,
    checked_allowed,
    checked_dimensions,
    checked_dtype,
    checked_span,
    crossed,
    norms,
    off_total,
    values_of,
)

if TYPE_CHECKING:
    from ..profiles import Bounds, Profile

# The last version that writes every item in full; later versions write references to earlier items.
_VERSION = 2
_HEADER = 5
_NUMBERS: Mapping[type, tuple[int, np.dtype[Any]]] = {
    float: (ord("g"), np.dtype("<f8")),
    int: (ord("i"), np.dtype("<i4")),
}
# For fewer numbers, the other code is faster.
_WORTH_IT = 100


def packed(rows: list[list[Any]], types: frozenset[type]) -> tuple[NDArray[Any] | None, int]:
    """Return the numbers of nonempty lists of equal length as a new one-dimensional array.

    :param types: the allowed types of the numbers.
    :returns: a float64 or int32 array in native byte order, or None if there are few numbers, or if they are not all
        floats or all integers of up to 32 bits; and the number of items, from the first, that are known to be of an
        allowed type.
    """
    if len(rows) * len(rows[0]) < _WORTH_IT:
        return None, 0
    kinds = set(map(type, rows[0]))
    layout = _NUMBERS.get(kinds.pop())
    if layout is None or kinds or not types.issuperset(map(type, rows[0])):
        return None, 0
    try:
        written = marshal.dumps(rows, _VERSION)
    except ValueError:
        return None, 0
    return _numbers(written, (len(rows), len(rows[0])), *layout)


def _numbers(
    written: bytes, shape: tuple[int, int], mark: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any] | None, int]:
    size = 1 + dtype.itemsize
    row = _HEADER + shape[1] * size
    # After an item of another size, all positions are shifted; the items before it have their type codes.
    whole = min(shape[0], (len(written) - _HEADER) // row)
    start, steps = _HEADER + _HEADER, (row, size)
    others = np.ndarray((whole, shape[1]), np.uint8, written, start, steps) != mark
    if others.any():
        return None, int(others.argmax())
    if len(written) != _HEADER + shape[0] * row:
        return None, others.size
    numbers = np.ndarray(shape, dtype, written, start + 1, steps).astype(dtype.newbyteorder("="))
    return numbers.reshape(-1), others.size


Array = NDArray[Any]
# The Python types that each kind of dtype accepts, and the message for others. A bool does not count as an int here.
_LEAVES: Mapping[str, tuple[str, frozenset[type]]] = {
    "f": ("number", frozenset({float, int})),
    "i": ("integer", frozenset({int})),
    "u": ("integer", frozenset({int})),
    "b": ("boolean", frozenset({bool})),
}
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "number": "Not a number.",
    "integer": "Not an integer.",
    "boolean": "Not a boolean.",
    "finite": "Not a finite number, or too large for {dtype}.",
    "dtype": "Must be from {low} to {high}.",
    "minimum": "Must be at least {bound}.",
    "maximum": "Must be at most {bound}.",
    "allowed": "Not an allowed value.",
    "total": "Must have a sum from {low} to {high}.",
    "norm": "Must have a norm from {low} to {high}.",
}


class Tensor(ArrayField):
    """Nested lists of numbers, or a :class:`numpy.ndarray`, loaded as a C-contiguous array.

    Lists must have the declared lengths and must not be empty. Strings, null, booleans for numbers, floats for integers
    (``1.0`` is a float) and numbers that are infinite, also after the cast to ``dtype``, are rejected. Errors have the
    positions of the first 20 invalid values, and never quote a value.

    An array, as provided by binary formats, is checked against the same rules. Its byte order is converted. It is
    copied unless it is already C-contiguous, writeable and of the declared dtype.

    :param shape: the length of each dimension; None means any length from 1. A name also means any length, but the
        same length wherever the name is used in the fields of one object. Required unless there is a profile.
    :param dtype: the dtype of the array: booleans, integers, or floats of up to 64 bits. The default is ``float32``.
    :param features: the names of the positions in the last dimension, by which named columns are matched. The default
        is the names of the profile or the model; ``()`` means none.
    :param profile: a profile, or the path of one written by ``flask secure-ml profile fit``. It provides the shape
        (rows, features), the dtype, and the name and range of each feature; other arguments take precedence. If both
        the profile and ``features`` have names, ranges are matched by name.
    :param bounds: the bounds of the profile: ``range`` for the minimum and maximum of the data, ``quantiles`` for the
        outer quantiles.
    :param margin: how far values may exceed the profile's bounds, as a fraction of the distance between them.
    :param minimum: the minimum value, or one for each position of the last dimension.
    :param maximum: the maximum value, in the same forms as ``minimum``.
    :param outside: the treatment of values beyond these bounds: ``reject``; ``clip`` changes them to the bound;
        ``report`` accepts them. The last two are reported, see :func:`flask_secure_ml.inputs.collect_out_of_range`.
    :param allowed: the only values that a number may have.
    :param total: the minimum and maximum sum over the last dimension; sums of integers are exact.
    :param norm: the minimum and maximum Euclidean norm over the last dimension.
    :param max_items: the maximum length of the first dimension.
    :param max_elements: the maximum number of elements in total.
    :raises ProfileError: the profile does not exist or is invalid.
    :raises TypeError, ValueError: the definition is invalid.

    All other arguments of a marshmallow field are accepted. Unlike marshmallow's fields, it is required unless
    ``required=False`` or ``load_default`` is given: a view that reads ``payload["instances"]`` must not fail on ``{}``.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self,
        shape: Sequence[int | str | None] | None = None,
        dtype: DTypeLike | None = None,
        *,
        features: Sequence[str] | None = None,
        profile: Profile | str | Path | None = None,
        bounds: Bounds = "range",
        margin: float = 0.0,
        minimum: float | Sequence[float] | NDArray[Any] | None = None,
        maximum: float | Sequence[float] | NDArray[Any] | None = None,
        outside: Literal["reject", "clip", "report"] = "reject",
        allowed: Collection[float] | None = None,
        total: tuple[float, float] | None = None,
        norm: tuple[float, float] | None = None,
        max_items: int | None = None,
        max_elements: int = 1_000_000,
        **options: Any,
    ) -> None:
        given = {"shape": shape, "dtype": dtype, "features": features, "minimum": minimum, "maximum": maximum}
        arguments = _learned(profile, bounds, margin, features or ()) | {
            name: value for name, value in given.items() if value is not None
        }
        if "shape" not in arguments:
            raise TypeError("a tensor needs a shape or a profile")
        self.dtype: np.dtype[Any] = checked_dtype(arguments.get("dtype", "float32"))
        super().__init__(
            checked_dimensions(arguments["shape"]), max_items=max_items, max_elements=max_elements, **options
        )
        self.features: tuple[str, ...] = checked_features(arguments.get("features", ()), self.shape)
        limits = {name: arguments.get(name) for name in ("minimum", "maximum")}
        self._check_meaning(**limits, allowed=allowed, total=total, norm=norm)
        self._set_range(**limits, outside=outside)
        self.allowed: tuple[float, ...] | None = None if allowed is None else checked_allowed(allowed, self.dtype)
        self._allowed = None if self.allowed is None else values_of(self.allowed, self.dtype)
        self.total: tuple[float, float] | None = None if total is None else checked_span("total", total)
        self.norm: tuple[float, float] | None = None if norm is None else checked_span("norm", norm)

    @classmethod
    def for_model(cls, model: Any, **options: Any) -> Self:
        """Return a field for the input of a model.

        :param model: a model of a type in :mod:`flask_secure_ml.inputs.model_inputs`, such as a fitted scikit-learn
            estimator.
        :param options: other arguments of the field, which take precedence over the model's.
        :raises ModelInputsError: the model does not describe its input, has several inputs, or takes strings.
        :raises ValueError: the definition is invalid.
        """
        from ..model_inputs import only_input_of

        return cls(**only_input_of(model).tensor_options() | options)

    def _check_meaning(self, **rules: Any) -> None:
        given = [name for name, rule in rules.items() if rule is not None]
        if self.dtype.kind == "b" and given:
            raise ValueError(f"{given[0]} does not apply to booleans")

    def _set_range(self, minimum: Any, maximum: Any, outside: str) -> None:
        given = {"minimum": minimum, "maximum": maximum}
        bounds = [Bound(name, bound, self.dtype, self.shape) for name, bound in given.items() if bound is not None]
        if crossed(bounds):
            raise ValueError("minimum must not be greater than maximum, and dtype must have a value between them")
        if outside not in OUTSIDE or (outside != "reject" and not bounds):
            raise ValueError("outside must be 'reject', or with minimum or maximum 'clip' or 'report'")
        self._bounds = bounds
        self.outside = outside
        self.minimum, self.maximum = (
            next((bound.declared for bound in bounds if bound.name == name), None) for name in given
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> Array:
        exact = self._of_array(value) if type(value) is np.ndarray else self._of_lists(value)
        if self.is_named:
            self._check_dimensions(exact.shape, data)
        cast = self._cast(exact)
        # The cast may have changed a float, so the rules are checked on the numbers as sent.
        sent = exact if self.dtype.kind == "f" else cast
        kept = self._within_range(sent, cast, attr)
        self._check_rules(sent if kept is cast else kept)
        return own(kept, self.dtype)

    def _of_array(self, value: Array) -> Array:
        if not is_taken(value.dtype, self.dtype) or has_odd_booleans(value):
            raise self.make_error(_LEAVES[self.dtype.kind][0])
        self._check_shape(value.shape)
        return of_array(value, self.dtype)

    def _of_lists(self, value: Any) -> Array:
        key, types = _LEAVES[self.dtype.kind]
        shape, rows = self._rows(value)
        found, known = packed(rows, types)
        if found is None:
            leaves = list(chain.from_iterable(rows))
            self._check_leaves(leaves, shape, key, types, known)
            found = of_leaves(leaves, self.dtype)
        elif self.dtype.kind == "f":
            found = found.astype(np.float64, copy=False)
        return found.reshape(shape)

    def _cast(self, exact: Array) -> Array:
        if self.dtype.kind == "f":
            return self._cast_floats(exact)
        if self.dtype.kind == "b" or np.can_cast(exact.dtype, self.dtype):
            return exact.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        low, high = int(limits.min), int(limits.max)
        wrong = (exact < low) | (exact > high)
        if wrong.any():
            raise at_each(wrong, self._message("dtype", low=low, high=high))
        return exact.astype(self.dtype)

    def _cast_floats(self, exact: Array) -> Array:
        with np.errstate(over="ignore"):
            cast = exact.astype(self.dtype, copy=False)
        finite = np.isfinite(cast)
        if not finite.all():
            raise at_each(~finite, self._message("finite", dtype=self.dtype.name))
        return cast

    def _within_range(self, sent: Array, cast: Array, attr: str | None) -> Array:
        # Counting is faster than any() for a single row.
        broken = [(bound, wrong) for bound in self._bounds if np.count_nonzero(wrong := bound.broken(sent))]
        if not broken:
            return cast
        if self.outside == "reject":
            bound, wrong = broken[0]
            raise at_each(wrong, self._bound_message(bound, sent.shape))
        report_out_of_range(np.logical_or.reduce([wrong for _, wrong in broken]), attr, clipped=self.outside == "clip")
        if self.outside == "clip":
            for bound, _ in broken:
                cast = bound.clipped(cast)
        return cast

    def _check_rules(self, sent: Array) -> None:
        if self._allowed is not None and (wrong := np.isin(sent, self._allowed, invert=True)).any():
            raise at_each(wrong, self._message("allowed"))
        if self.total is not None and (wrong := off_total(sent, self.total)).any():
            raise at_each(wrong, self._span_message("total", self.total))
        if self.norm is not None and (wrong := beyond(norms(sent), self.norm)).any():
            raise at_each(wrong, self._span_message("norm", self.norm))

    def _bound_message(self, bound: Bound, shape: Shape) -> Message:
        if not bound.declared.shape:
            return self._message(bound.name, bound=number_text(bound.declared.item()))
        bounds = np.broadcast_to(bound.declared, shape)
        return lambda position: str(self.error_messages[bound.name]).format(bound=number_text(bounds[position]))

    def _span_message(self, key: str, span: tuple[float, float]) -> Message:
        low, high = map(number_text, span)
        return self._message(key, low=low, high=high)


def _learned(profile: Any, bounds: Bounds, margin: float, names: Sequence[str]) -> dict[str, Any]:
    """Return the arguments from a profile; the profiles module is imported only if there is one."""
    if profile is None and (bounds, margin) == ("range", 0.0):
        return {}
    from ..profiles import learned_options

    return learned_options(profile, bounds, margin, names)
