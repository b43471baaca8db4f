"""Fields for schemas of request bodies. They are required by default and validate their options when created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..marshmallow_internals import AnyField

__all__ = ["AnyField", "checked_count", "is_count", "required_by_default"]


def required_by_default(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return field options with ``required=True`` as the default.

    A view that reads ``payload["instances"]`` must not fail on ``{}``.
    """
    return {"required": "load_default" not in options} | dict(options)


def checked_count(name: str, value: int) -> int:
    """Return an option that must be a positive integer.

    :raises ValueError: it is not.
    """
    if not is_count(value):
        raise ValueError(f"{name} must be a whole number from 1")
    return value


def is_count(value: Any) -> bool:
    """Return True if a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
