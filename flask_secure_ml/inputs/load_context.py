"""State of one load that the fields of a schema share: budgets, and reports of values out of range.

It is kept in context variables, because no mechanism to pass data to fields exists in all releases of marshmallow.
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
    """Start all budgets at 0 for the duration of the block."""
    token = _spent.set({})
    try:
        yield
    finally:
        _spent.reset(token)


def is_spent(resource: Resource, amount: int, limit: int) -> bool:
    """Add an amount and return True if the load now exceeds the limit.

    Amounts beyond the limit also count, so that the load cannot continue with smaller ones. Outside of :func:`budgets`,
    amounts are not counted.
    """
    spent = _spent.get()
    if spent is None:
        return False
    spent[resource] = spent.get(resource, 0) + amount
    return spent[resource] > limit


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """Accepted values of one field that are out of its range.

    :param pointers: JSON pointers (RFC 6901) to the first of them, relative to the object with the field.
    :param count: the number of values.
    :param clipped: the values were changed to the bound; otherwise they were loaded as sent.
    """

    pointers: tuple[str, ...]
    count: int
    clipped: bool


_reports: ContextVar[list[OutOfRange] | None] = ContextVar("flask_secure_ml_out_of_range", default=None)


@contextmanager
def collect_out_of_range() -> Iterator[list[OutOfRange]]:
    """Yield a list to which fields append during the block: one entry per field, at most 20."""
    found: list[OutOfRange] = []
    token = _reports.set(found)
    try:
        yield found
    finally:
        _reports.reset(token)


def report_out_of_range(wrong: NDArray[np.bool_], field: str | None, *, clipped: bool) -> None:
    """Report the positions that are true, if :func:`collect_out_of_range` is active."""
    found = _reports.get()
    if found is not None and len(found) < MAX_REPORTS:
        flat = np.flatnonzero(wrong)
        found.append(OutOfRange(tuple(_pointers(flat, wrong.shape, field)), len(flat), clipped))


def _pointers(flat: NDArray[np.intp], shape: tuple[int, ...], field: str | None) -> Iterator[str]:
    start = "" if field is None else f"/{pointer_token(field)}"
    for position in islice(flat, MAX_ERRORS):
        yield "/".join([start, *map(str, np.unravel_index(position, shape))])
