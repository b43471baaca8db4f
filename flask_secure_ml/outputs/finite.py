"""NaN and Infinity in what is to be written. JSON has no such numbers (RFC 8259 section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np

# As deep as the writer goes.
_DEEPEST = 1_024
_TEXTS = (str, int, type(None))


def names_null(body: bytes) -> bool:
    """Say whether null could stand in JSON. One letter is found at many times the speed of a word."""
    return b"u" in body and b"null" in body


def has_non_finite(value: Any, default: Callable[[Any], Any]) -> bool:
    """Say whether a value that was written holds NaN or Infinity. Numbers in lists are looked at without a loop.

    :param default: what the writer makes of values that it does not know.
    """
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        if not all(map(isfinite, (each for each in level if type(each) is float))):
            return True
        level = list(chain.from_iterable(_inside(each, default) for each in level if type(each) is not float))
        if not level:
            return False
    return True


def _inside(value: Any, default: Callable[[Any], Any]) -> Iterator[Any]:
    if isinstance(value, Enum):
        yield value.value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, (float, np.floating)):
        yield float(value)
    elif isinstance(value, np.ndarray):
        yield from _inside_array(value)
    elif not isinstance(value, (_TEXTS, np.generic)):
        yield default(value)


def _inside_array(array: Any) -> Iterator[Any]:
    if type(array) is not np.ndarray or array.dtype.kind in "OV":
        yield array.tolist()
    elif array.dtype.kind in "fc" and not np.isfinite(array).all():
        yield float("nan")
