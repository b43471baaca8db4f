"""What one load counts across all fields of a schema: budgets that fields share, and values out of range.

Both are kept in context variables, because marshmallow passes nothing of the caller's to a field in all its releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .problems import MAX_ERRORS, pointer_token

Resource = Literal["pixels", "lookups"]

MAX_REPORTS = 20

_spent: ContextVar[dict[Resource, int] | None] = ContextVar("flask_secure_ml_spent", default=None)


@contextmanager
def budgets() -> Iterator[None]:
    """Count what fields use from 0 while the block runs."""
    token = _spent.set({})
    try:
        yield
    finally:
        _spent.reset(token)


def is_spent(resource: Resource, amount: int, limit: int) -> bool:
    """Add an amount and return True if the load is over the limit now; outside of :func:`budgets` nothing is counted.

    What is over the limit counts too, so that a load cannot go on with smaller amounts.
    """
    spent = _spent.get()
    if spent is None:
        return False
    spent[resource] = spent.get(resource, 0) + amount
    return spent[resource] > limit


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """Values of one field that are out of its range and were accepted.

    :param pointers: JSON pointers (RFC 6901) to the first of them, from the object that has the field.
    :param count: how many there are.
    :param clipped: they were changed to the bound; otherwise they were loaded as they were sent.
    """

    pointers: tuple[str, ...]
    count: int
    clipped: bool


_reports: ContextVar[list[OutOfRange] | None] = ContextVar("flask_secure_ml_out_of_range", default=None)


@contextmanager
def collect_out_of_range() -> Iterator[list[OutOfRange]]:
    """Yield the list that fields fill while the block runs: one entry for a field, 20 at most."""
    found: list[OutOfRange] = []
    token = _reports.set(found)
    try:
        yield found
    finally:
        _reports.reset(token)


def report_out_of_range(wrong: NDArray[np.bool_], field: str | None, *, clipped: bool) -> None:
    """Report the positions that are true, if a list is open."""
    found = _reports.get()
    if found is not None and len(found) < MAX_REPORTS:
        flat = np.flatnonzero(wrong)
        found.append(OutOfRange(tuple(_pointers(flat, wrong.shape, field)), len(flat), clipped))


def _pointers(flat: NDArray[np.intp], shape: tuple[int, ...], field: str | None) -> Iterator[str]:
    start = "" if field is None else f"/{pointer_token(field)}"
    for position in islice(flat, MAX_ERRORS):
        yield "/".join([start, *map(str, np.unravel_index(position, shape))])
