"""Errors at places of an array: the first few, as the nested dicts that marshmallow keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

Shape = tuple[int, ...]
Message = Callable[[Shape], str]

MAX_ERRORS = 20


def at(places: Iterable[int], shape: Shape, message: Message) -> ValidationError:
    """Return an error with a message at each of the first flat places of an array of this shape."""
    if not shape:
        return ValidationError(message(()))
    found: dict[int, Any] = {}
    for flat in islice(places, MAX_ERRORS):
        place = tuple(map(int, np.unravel_index(flat, shape)))
        inner = found
        for index in place[:-1]:
            inner = inner.setdefault(index, {})
        inner[place[-1]] = [message(place)]
    return ValidationError(found)


def at_each(wrong: NDArray[np.bool_], message: Message) -> ValidationError:
    """Return an error with a message at each of the first places that are true."""
    return at(np.flatnonzero(wrong), wrong.shape, message)


def shown(bound: float) -> str:
    """Return a bound as people write it: 16, not 16.0."""
    return str(float(bound)).removesuffix(".0")
