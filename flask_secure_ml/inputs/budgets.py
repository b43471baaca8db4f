"""What the fields of one load may use together: many small things that each are allowed add up.

Like the reports (:mod:`flask_secure_ml.inputs.reports`), a budget belongs to whoever loads the schema, and fields find
that of their own thread or task. Each field says how much it lets the load use. Outside of :func:`opened` nothing is
counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Used = Literal["pixels", "lookups"]

_opened: ContextVar[dict[Used, int] | None] = ContextVar("flask_secure_ml_budget", default=None)


@contextmanager
def opened() -> Iterator[None]:
    """Count from 0 while the block runs."""
    token = _opened.set({})
    try:
        yield
    finally:
        _opened.reset(token)


def is_spent(what: Used, amount: int, limit: int) -> bool:
    """Count some more, also where that is too much, and tell whether the load is over the limit now."""
    used = _opened.get()
    if used is None:
        return False
    used[what] = used.get(what, 0) + amount
    return used[what] > limit
