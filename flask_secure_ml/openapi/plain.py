"""A description as strict JSON, whatever its authors wrote into fields: defaults, examples, bounds of validators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np

_NOTHING = object()


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of nothing but JSON's own types (RFC 8259), in the order that it has.

    A member that JSON has no word for is left out: an infinite bound bounds nothing, and the text that Python makes of
    an object can have its address in memory, or a path. In a list it becomes null, so that all others keep their place.
    """
    return {str(name): value for name, each in document.items() if (value := _plain(each)) is not _NOTHING}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [None if (found := _plain(each)) is _NOTHING else found for each in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _NOTHING
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else _NOTHING
