"""Plans: the limits of one caller over all routes (``SECURE_ML_PLANS``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..policy.fields import Integer, MappingOf, Options
from ..policy.limits import LimitList, Limits
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.schema import option


@dataclass(frozen=True)
class Plan:
    """The limits of a caller over all routes."""

    requests: Limits = option(LimitList(), (), "Rate limits over all routes.")
    quotas: Limits = option(LimitList(), (), "Quotas in rows of input, for routes with ``cost=``.")
    in_flight: int | None = option(Integer(1), None, "Maximum number of concurrent requests of a caller.")
    batch: int | None = option(Integer(1), None, "Maximum number of rows in one request, on routes with ``cost=``.")
    scores: ScoreOptions = option(
        Options(ScoreOptions, minimum=1),
        NO_SCORE_OPTIONS,
        'The precision of scores in responses, such as ``{"round": 2, "top_k": 3}``.',
    )


Plans = Mapping[str, Plan]


def plans_field() -> MappingOf:
    """Return the field of ``SECURE_ML_PLANS``."""
    return MappingOf(Plan, '{"default": {"requests": ["600/minute"]}}', needed=["default"])
