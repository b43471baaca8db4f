"""What the fields of this room have in common: a base that marshmallow 3 and 4 both take, and being required."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from marshmallow import fields

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
