"""What the fields of this room have in common: a base that marshmallow 3 and 4 both take, and being required."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from marshmallow import fields
from numpy.typing import NDArray

from ..problems import MAX_ERRORS

if TYPE_CHECKING:
    AnyField = fields.Field[Any]
else:
    # Field takes type parameters from marshmallow 4 on.
    AnyField = fields.Field


def required_by_default(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a field that is required unless they say otherwise.

    A view that reads ``payload["instances"]`` must not fail on ``{}``.
    """
    return {"required": "load_default" not in options} | dict(options)


MAX_REPORTS = 20


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """Values of one field that are out of its range.

    :param pointers: JSON pointers (RFC 6901) to the first of them, from the object that has the field.
    :param count: how many there are.
    :param clipped: they were changed to the bound; otherwise they were let through.
    """

    pointers: tuple[str, ...]
    count: int
    clipped: bool


_collected: ContextVar[list[OutOfRange] | None] = ContextVar("flask_secure_ml_out_of_range", default=None)


@contextmanager
def collect() -> Iterator[list[OutOfRange]]:
    """Yield the list that fields fill while the block runs: one entry for a field, 20 at most."""
    found: list[OutOfRange] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def note_each(wrong: NDArray[np.bool_], field: str | None, *, clipped: bool) -> None:
    """Add the places that are true to the list that is open, if there is one."""
    found = _collected.get()
    if found is not None and len(found) < MAX_REPORTS:
        flat = np.flatnonzero(wrong)
        found.append(OutOfRange(tuple(_pointers(flat, wrong.shape, field)), len(flat), clipped))


def _pointers(flat: NDArray[np.intp], shape: tuple[int, ...], field: str | None) -> Iterator[str]:
    start = "" if field is None else "/" + field.replace("~", "~0").replace("/", "~1")
    for place in islice(flat, MAX_ERRORS):
        yield "/".join([start, *map(str, np.unravel_index(place, shape))])
