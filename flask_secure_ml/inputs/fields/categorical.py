"""The :class:`Categorical` field: one of a few strings or integers, or an array of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, compress, count
from operator import not_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..problems import at
from .arrays import ArrayField

_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {"choice": "Must be one of: {choices}."}
_MOST_LISTED = 10
_WIDEST = np.iinfo(np.int64)


class Categorical(ArrayField):
    """One of a few strings or integers, or nested lists of them.

    Values must match exactly: in case, in Unicode form and in type (``true`` and ``1.0`` do not match 1).

    :param choices: strings, or integers of up to 64 bits; not both.
    :param shape: as for :class:`Tensor`; without it, the value is one choice.
    :param codes: load each choice as its position in ``choices``, and dump the position as the choice.
    :param max_items: the maximum length of the first dimension.
    :param max_elements: the maximum number of elements in total.
    :raises TypeError, ValueError: the definition is invalid.

    A single value is loaded as the choice. With a shape, integers and codes are loaded as an int64 array, and strings
    as an object array of Python strings. An array as input is treated like the equivalent lists.
    """

    default_error_messages = _MESSAGES
    # For this class, not for subclasses: the result depends only on the value, unless dimensions are named.
    loads_by_value_alone = True

    def __init__(
        self,
        choices: Collection[str] | Collection[int],
        shape: Sequence[int | str | None] = (),
        *,
        codes: bool = False,
        max_items: int | None = None,
        max_elements: int = 1_000_000,
        **options: Any,
    ) -> None:
        self.choices: tuple[Any, ...] = _checked(choices)
        self.codes = codes
        self._types = frozenset(map(type, self.choices))
        self._codes = {choice: code for code, choice in enumerate(self.choices)}
        super().__init__(shape, max_items=max_items, max_elements=max_elements, **options)
        self.error_messages["choice"] = str(self.error_messages["choice"]).format(choices=self._listed())

    def _listed(self) -> str:
        more = ["\N{HORIZONTAL ELLIPSIS}"] if len(self.choices) > _MOST_LISTED else []
        # Braces are doubled, because the message is formatted again for each error.
        return ", ".join([*map(str, self.choices[:_MOST_LISTED]), *more]).replace("{", "{{").replace("}", "}}")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> Any:
        if not self.shape:
            return self._single(value)
        shape, leaves = self._leaves(value)
        if self.is_named:
            self._check_dimensions(shape, data)
        self._check_leaves(leaves, shape, "choice", self._types)
        known = self._codes.__contains__
        if not all(map(known, leaves)):
            raise at(compress(count(), map(not_, map(known, leaves))), shape, self._message("choice"))
        return self._array(leaves).reshape(shape)

    def _single(self, value: Any) -> Any:
        if type(value) not in self._types or value not in self._codes:
            raise self.make_error("choice")
        return self._codes[value] if self.codes else value

    def _leaves(self, value: Any) -> tuple[tuple[int, ...], list[Any]]:
        if type(value) is np.ndarray:
            self._check_shape(value.shape)
            return tuple(value.shape), value.ravel().tolist()
        shape, rows = self._rows(value)
        return shape, list(chain.from_iterable(rows))

    def _array(self, leaves: list[Any]) -> NDArray[Any]:
        if self.codes:
            return np.fromiter(map(self._codes.__getitem__, leaves), np.int64, len(leaves))
        return np.array(leaves, dtype=object if str in self._types else np.int64)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        if value is None:
            return None
        found = np.array(self.choices, dtype=object)[np.asarray(value)] if self.codes else value
        return np.asarray(found).tolist()


def _checked(choices: Collection[Any]) -> tuple[Any, ...]:
    found = () if isinstance(choices, str) else tuple(choices)
    if not found or set(map(type, found)) not in ({str}, {int}):
        raise TypeError("choices must be strings or integers, at least one, and not both")
    if len(set(found)) != len(found):
        raise ValueError("choices must be different from one another")
    if int in set(map(type, found)) and not all(_WIDEST.min <= choice <= _WIDEST.max for choice in found):
        raise ValueError("choices must be integers of up to 64 bits")
    return found
