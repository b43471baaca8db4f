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
_HEAD = 1_000


def at(places: Iterable[int], shape: Shape, message: Message) -> ValidationError:
    """Return an error with a message at each of the first flat places of an array of this shape."""
    if not shape:
        return ValidationError(message(()))
    found: dict[int, Any] = {}
    flat = np.fromiter(islice(places, MAX_ERRORS), np.intp)
    for place in zip(*(each.tolist() for each in np.unravel_index(flat, shape)), strict=True):
        inner = found
        for index in place[:-1]:
            inner = inner.setdefault(index, {})
        inner[place[-1]] = [message(place)]
    return ValidationError(found)


def at_each(wrong: NDArray[np.bool_], message: Message) -> ValidationError:
    """Return an error with a message at each of the first places that are true."""
    flat = wrong.reshape(-1)
    # Without a look at all of them: there may be a million.
    head = np.flatnonzero(flat[:_HEAD])
    return at(head if len(head) >= MAX_ERRORS else np.flatnonzero(flat), wrong.shape, message)


def shown(bound: float) -> str:
    """Return a bound as people write it: 16, not 16.0."""
    return str(bound) if type(bound) is int else str(float(bound)).removesuffix(".0")
