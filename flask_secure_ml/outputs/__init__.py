"""Responses: their format, the fields that their schema declares, and how precise their scores may be."""

from .bodies import mark_checked
from .filter import ConditionGuard, OutputFilter
from .json_provider import ArrayJSONProvider
from .responses import ResponseRules

__all__ = ["ArrayJSONProvider", "ConditionGuard", "OutputFilter", "ResponseRules", "mark_checked"]
