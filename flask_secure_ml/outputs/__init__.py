"""Responses: formats, response schemas and the masking of scores."""

from .bodies import mark_checked
from .filter import ConditionGuard, OutputFilter
from .json_provider import ArrayJSONProvider
from .responses import ResponseRules

__all__ = ["ArrayJSONProvider", "ConditionGuard", "OutputFilter", "ResponseRules", "mark_checked"]
